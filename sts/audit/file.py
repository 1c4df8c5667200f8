"""Where the audit's lines go: one descriptor of the worker, appended to with one call for each line.

A file is watched while it is written to: whether it is still the one at its path, and whether the line before is whole.
What stands at the path may have been put there by another user of the folder, so it is judged before it is used: no
symbolic link, no file of another user.
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
"""How often a writer looks whether the file was renamed. A deleted file shows with each line."""

_LOCK_PAUSE_S: Final = 0.001
_LOCK_ATTEMPTS: Final = 50
_STDOUT: Final = 1
_MODE: Final = 0o640
_FLAGS: Final = os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK


class AuditFile:
    """Where events go: a file or FIFO, appended to, or standard output. It outlives a reload, which opens it anew."""

    def __init__(self, path: Path | None) -> None:
        """Open `path`, or standard output for None. Raises StartError where it cannot be opened."""
        self._path = path
        self._descriptor = _open(path)
        self._plain = path is not None and _is_plain(self._descriptor)
        self._torn = False
        self._whole_to = 0
        self._lock = threading.Lock()
        self._turn = Turn()
        self._looked_at = time.monotonic()

    def write(self, line: bytes) -> None:
        """Append one line with one call. Raises OSError where it could not be written, or not wholly."""
        if not self._plain:
            with self._turn.wait(self._descriptor):
                self._put(b"\n" + line if self._torn else line)
            return
        with self._lock:
            self._stay_at_path()
            self._append(line)
            if os.fstat(self._descriptor).st_nlink == 0:  # it was deleted, and the line is gone with it
                self._back_to_path()
                self._append(line)

    def reopen(self, path: Path | None) -> None:
        """Go on at `path`, after a reload or a rotation of the file; writers in between lose nothing.

        Raises StartError where it cannot be opened; then everything stays as it was.
        """
        with self._lock:
            self._open_again(path)

    def close(self) -> None:
        """Close it; nothing can be written any more."""
        os.close(self._descriptor)

    def _append(self, line: bytes) -> None:
        """Append to the file on a line of its own: a line that a worker tore must not swallow the next one."""
        with self._locked():
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            self._put(line if self._is_whole_up_to(end) else b"\n" + line)
            self._whole_to = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the workers from writing at the same time: half a line of another worker would look like a torn one.

        The lock is a POSIX record lock, which belongs to the process: workers share the open file. It is advisory, and
        a worker that the kernel stopped may hold it, so after 50 ms the line is written without it. Then at worst an
        empty line is between two events.
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
        if os.write(self._descriptor, line) < len(line):
            self._torn = True
            raise OSError(0, "only part of the line was written")
        self._torn = False

    def _is_whole_up_to(self, end: int) -> bool:
        """Whether what stands before the offset `end` is whole lines; where that cannot be read, what we know."""
        if end in {0, self._whole_to}:
            return True
        try:
            return os.pread(self._descriptor, 1, end - 1) == b"\n"
        except OSError:  # it may be appended to and not read
            return not self._torn

    def _stay_at_path(self) -> None:
        """Open the file again where it was renamed; this is looked at once in a while, since it loses no event."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if not self._is_at_path():
            with contextlib.suppress(OSError):  # told; until it can be opened, the renamed file takes the lines
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
    """Standard output; a pipe so that writes never block, which must not become so for others that hold it."""
    if stat.S_ISFIFO(os.fstat(_STDOUT).st_mode):
        with contextlib.suppress(OSError):  # it may be another user's
            return os.open(f"/proc/self/fd/{_STDOUT}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(_STDOUT)


def _open_or_make(path: Path) -> int:
    """Open what is there, for reading too where that is allowed: its last byte says whether its last line is whole."""
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
    try:  # a writer alone: without a reader a line is lost and counted, and does not fill the pipe
        return os.open(path, os.O_WRONLY | _FLAGS)
    finally:
        os.close(descriptor)


def _fault(found: os.stat_result, folder: os.stat_result) -> str:
    """What is wrong with the file that was opened, "" if nothing is."""
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
