"""The ring in one file, for the workers of one machine; a folder beside it keeps the reports of the replicas.

Readers need no lock: the file is replaced by an atomic rename, so they see the old ring or the new one. Writers take a
lock that the kernel always releases when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Final

from keys.errors import Conflict, RingMissing, StoreUnauthentic, StoreUnavailable
from keys.files import hand_over, make_folder, replace_file
from keys.record import Ring
from keys.replica_report import Sighting
from keys.seal import MAX_BYTES, Sealer

LOCK_WAIT_S: Final = 10.0

_LOCK_STEP_S: Final = 0.02
_NOTE: Final = "replica"
_MODE: Final = 0o600


class FileStore:
    """A store in the file `path`, mode 0600; a file that others may read or write is refused."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path.absolute()
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        self._new_path = self._path.with_name(self._path.name + ".new")
        self._said = self._path.with_name(self._path.name + ".replicas")
        self._sealer = sealer
        self._last: tuple[bytes, Ring] | None = None

    @property
    def place(self) -> str:
        """The absolute path of the file."""
        return str(self._path)

    def load(self) -> Ring:
        """Read the ring; the file is parsed and unsealed only if its bytes differ from those of the last read."""
        data = self._read()
        last = self._last
        if last is not None and last[0] == data:
            return last[1]
        try:
            ring = self._sealer.open(data)
        except StoreUnauthentic as error:
            raise StoreUnauthentic(f"{self._path}: {error}") from None
        self._last = (data, ring)
        return ring

    def compare_and_swap(self, expected: int | None, ring: Ring) -> None:
        """Replace the ring of version `expected` under the lock (see `Store`)."""
        if ring.version != (expected or 0) + 1:
            raise ValueError("the version of a ring grows by one with every write")
        try:
            with self._locked():
                self._check_version(expected)
                self._replace(self._sealer.seal(ring))
        except OSError as error:
            raise self._unavailable(self._path, error) from None

    def report(self, sighting: Sighting) -> None:
        """Store the report of a replica in a separate file that only this replica writes (see `Store`)."""
        path = self._said / f"{sighting.replica}.json"
        try:
            make_folder(self._said)
            replace_file(path, path.with_suffix(".new"), self._sealer.write_note(_NOTE, sighting.facts()))
        except OSError as error:
            raise self._unavailable(path, error) from None

    def forget(self, replica: str) -> None:
        """Delete the report of a replica (see `Store`)."""
        path = self._said / f"{replica}.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unavailable(path, error) from None

    def sightings(self) -> list[Sighting]:
        """Return the last report of each replica (see `Store`)."""
        found = []
        try:
            for path in sorted(self._said.glob("*.json")):
                with contextlib.suppress(FileNotFoundError, StoreUnauthentic, KeyError):
                    found.append(Sighting.of(self._sealer.read_note(_NOTE, path.read_bytes())))
        except OSError as error:
            raise self._unavailable(self._said, error) from None
        return found

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Return at once: a file sends no notices (see `Store`)."""

    def close(self) -> None:
        """Do nothing: no file stays open (see `Store`)."""

    def _check_version(self, expected: int | None) -> None:
        try:
            found = self.load().version
        except RingMissing:
            found = None
        if found != expected:
            raise Conflict(f"{self._path} was changed by another writer: it contains version {found}, not {expected}")

    def _read(self) -> bytes:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                self._refuse_wider(os.fstat(descriptor))  # checks the open file: the path may be replaced
                return self._read_all(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise RingMissing(f"there is no key ring at {self._path}") from None
        except OSError as error:
            raise self._unavailable(self._path, error) from None

    def _refuse_wider(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise StoreUnavailable(f"{self._path} is not a plain file")
        mode = stat.S_IMODE(found.st_mode)
        if mode & ~_MODE:
            raise StoreUnavailable(f"{self._path} has mode {mode:04o}: only its owner may read it (chmod 600)")

    @staticmethod
    def _read_all(descriptor: int) -> bytes:
        chunks: list[bytes] = []
        while sum(map(len, chunks)) <= MAX_BYTES and (chunk := os.read(descriptor, MAX_BYTES)):
            chunks.append(chunk)
        return b"".join(chunks)

    def _replace(self, data: bytes) -> None:
        """Write a new file beside the old one and rename it; after a crash either the old or the new ring is complete.

        The caller holds the lock, so an existing file of the same name is left from a writer that was killed.
        """
        replace_file(self._path, self._new_path, data, durable=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # without fsync of the folder, a power failure may undo the rename
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._path.parent)
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            hand_over(descriptor, self._path.parent)
            self._wait_for_lock(descriptor)
            yield
        finally:
            os.close(descriptor)  # also releases the lock

    def _wait_for_lock(self, descriptor: int) -> None:
        for _ in range(int(LOCK_WAIT_S / _LOCK_STEP_S)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_STEP_S)
            else:
                return
        raise StoreUnavailable(f"{self._lock_path} has been held by another process for {LOCK_WAIT_S:.0f} s")

    @staticmethod
    def _unavailable(path: Path, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{path} cannot be used: {error.strerror or type(error).__name__}")
