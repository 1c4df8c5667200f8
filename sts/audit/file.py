"""The output of the audit log: a file, a FIFO or standard output; each line is appended with one system call.

While a worker writes to a file, it checks that the file is still at its path, and that the previous line is complete.
Another user of the folder may have put a file at the path. Therefore the file is checked before use: no symbolic link,
no file of another user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keys.files import hand_over
from sts.errors import StartError
from sts.telemetry import Turn, log

LOOK_EVERY_S: Final = 1.0
"""How often a writer checks whether the file was renamed, in seconds. A deleted file is detected at each line."""

_PIPE_ATTEMPTS: Final = 50
_LOCK_PAUSE_S: Final = 0.001
_LOCK_ATTEMPTS: Final = 50
_STDOUT: Final = 1
_MODE: Final = 0o640
_FLAGS: Final = os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK


class _LostError(OSError):
    """Some lines could not be written: `lost` says how many."""

    def __init__(self, number: int | None, why: str | None, lost: int) -> None:
        super().__init__(number, why)
        self.lost = lost


class AuditFile:
    """The output of events: a file or FIFO to append to, or standard output. A reload keeps it and reopens the file."""

    def __init__(self, path: Path | None) -> None:
        """Open `path`, or standard output for None. Raises StartError if it cannot be opened."""
        self._path = path
        self._descriptor = _open(path)
        self._plain = path is not None and _is_plain(self._descriptor)
        self._torn = False
        self._whole_to = 0
        self._lock = threading.Lock()
        self._turn = Turn()
        self._looked_at = time.monotonic()

    def write(self, line: bytes) -> None:
        """Append whole lines: to a file with one call, to a pipe each with its own, so that none is torn (pipe(7)).

        Raises OSError where they could not be written, or not wholly; `lost` of it is how many, where it was not all.
        """
        if not self._plain:
            self._write_each(line.splitlines(keepends=True))
            return
        with self._lock:
            self._stay_at_path()
            self._append(line)
            if os.fstat(self._descriptor).st_nlink == 0:  # the file was deleted, and the line is lost with it
                self._back_to_path()
                self._append(line)

    def reopen(self, path: Path | None) -> None:
        """Continue at `path`, after a reload or a rotation of the file; concurrent writers lose no line.

        Raises StartError if it cannot be opened; then the present file stays open.
        """
        with self._lock:
            self._open_again(path)

    def close(self) -> None:
        """Close the output; afterwards `write` fails."""
        os.close(self._descriptor)

    def _write_each(self, lines: list[bytes]) -> None:
        lost = 0
        for line in lines:
            try:
                self._put_in_turn(line)
            except OSError as error:
                lost, fault = lost + 1, error
        if lost:
            raise _LostError(fault.errno, fault.strerror, lost)

    def _put_in_turn(self, line: bytes) -> None:
        """Write a line to a pipe. Between the wait for room and the write another worker may take the room."""
        for left in reversed(range(_PIPE_ATTEMPTS)):
            try:
                with self._turn.wait(self._descriptor):
                    self._put(b"\n" + line if self._torn else line)
            except BlockingIOError:
                if not left:
                    raise
                self._torn = False  # none of it was written
            else:
                return

    def _append(self, line: bytes) -> None:
        """Append to the file, on a new line: an incomplete line of a worker must not merge with the next one."""
        with self._locked():
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            self._put(line if self._is_whole_up_to(end) else b"\n" + line)
            self._whole_to = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the file against other workers: a half-written line of another worker would look like an incomplete one.

        The lock is a POSIX record lock, which belongs to the process: workers share the open file. It is advisory. A
        worker that the kernel stopped may hold it, so after 50 ms the line is written without the lock. The worst
        result is an empty line between two events.
        """
        locked = False
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    break  # a file system without locks
                time.sleep(_LOCK_PAUSE_S if attempt else 0)
            else:
                locked = True
                break
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _put(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        if written < len(line):
            self._torn = True
            raise _LostError(0, "only part of the line was written", line.count(b"\n", written))
        self._torn = False

    def _is_whole_up_to(self, end: int) -> bool:
        """Return whether the content before the offset `end` ends with a line break.

        If the file is not readable, the result is whether our own last line was complete.
        """
        if end in {0, self._whole_to}:
            return True
        try:
            return os.pread(self._descriptor, 1, end - 1) == b"\n"
        except OSError:  # the file is writable but not readable
            return not self._torn

    def _stay_at_path(self) -> None:
        """Reopen the path if the file was renamed; checked every LOOK_EVERY_S, because a rename loses no event."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if not self._is_at_path():
            with contextlib.suppress(OSError):  # logged; until the path can be opened, the lines go to the renamed file
                self._back_to_path()

    def _is_at_path(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path or "/"))
        return False

    def _back_to_path(self) -> None:
        try:
            self._open_again(self._path)
        except StartError as error:
            log.error("audit file was deleted or renamed", why=str(error))
            raise OSError(errno.ENOENT, "the audit file was deleted and cannot be made again") from None
        log.warning("audit file was deleted or renamed: opened again", file=str(self._path))

    def _open_again(self, path: Path | None) -> None:
        descriptor = _open(path)
        try:
            os.dup2(descriptor, self._descriptor, inheritable=False)
        finally:
            os.close(descriptor)
        self._path, self._torn, self._whole_to = path, False, 0
        self._plain = path is not None and _is_plain(self._descriptor)


def _open(path: Path | None) -> int:
    if path is None:
        return _open_stdout()
    path = path.absolute()
    try:
        descriptor = _open_or_make(path)
    except OSError as error:
        raise StartError(f"the audit file {path} cannot be opened: {_why(path, error)}") from None
    wrong = _fault(os.fstat(descriptor), path.parent.stat())
    if wrong:
        os.close(descriptor)
        raise StartError(f"the audit file {path} {wrong}")
    os.set_blocking(descriptor, stat.S_ISREG(os.fstat(descriptor).st_mode))
    return descriptor


def _open_stdout() -> int:
    """Open standard output; a pipe as a new file description, so that non-blocking mode does not affect other users."""
    if stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
        with contextlib.suppress(OSError):  # it may belong to another user
            return os.open(f"/proc/self/fd/{_STDOUT}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(_STDOUT)


def _open_or_make(path: Path) -> int:
    """Open or create the file; for reading, too, if allowed: its last byte shows whether the last line is complete."""
    try:
        descriptor = os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, _MODE)
            hand_over(descriptor, path.parent)
            return descriptor
        descriptor = os.open(path, os.O_RDWR | _FLAGS)
    except PermissionError:
        return os.open(path, os.O_WRONLY | _FLAGS)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return descriptor
    try:  # for writing only: without a reader, a line is lost and counted, and does not fill the pipe
        return os.open(path, os.O_WRONLY | _FLAGS)
    finally:
        os.close(descriptor)


def _fault(found: os.stat_result, folder: os.stat_result) -> str:
    """Return the fault of the opened file, "" if there is none."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode)):
        return "is neither a plain file nor a FIFO"
    if found.st_uid not in {0, os.geteuid(), folder.st_uid}:
        return (
            f"belongs to {_user(found.st_uid)}: it must belong to {_user(os.geteuid())}, who writes to it, to root, or "
            "to the owner of its folder (chown)"
        )
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        return "has a second name (a hard link), so it may be another user's file: remove one of the names"
    return ""


def _is_plain(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, which is not followed: name the file itself (standard output: leave the key out)"
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):
            owner = _user(path.lstat().st_uid)
            return f"{error.strerror}: it belongs to {owner}, and {_user(os.geteuid())} must write to it (chown)"
    return error.strerror or type(error).__name__


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
