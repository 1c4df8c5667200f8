"""Rollback protection: record on this machine's disk which ring it has seen, and refuse an older or different one.

A replica keeps the newest version in memory while it runs (`Floor`). The file (`Witness`) survives the replica, and the
commands share it. The file is separate from the store, so that an attacker who can write only to the store cannot roll
the ring back. An attacker who can also write this file can; the mode of its folder prevents that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import Final

from keys.errors import KeysError, RingMissing, RolledBack, StoreUnauthentic, StoreUnavailable
from keys.files import make_folder, replace_file
from keys.record import Ring
from keys.replica_report import Sighting
from keys.seal import Sealer
from keys.store import Store

_KIND: Final = "seen"
_MAX_BYTES: Final = 4096


class Witness:
    """A store that records the newest ring seen on this machine in the file `path`."""

    def __init__(self, store: Store, path: Path, sealer: Sealer) -> None:
        self._store = store
        self._path = path.absolute()
        self._sealer = sealer
        self._known: Ring | None = None

    @property
    def place(self) -> str:
        """The place of the store (see `Store`)."""
        return self._store.place

    def load(self) -> Ring:
        """Read the ring (see `Store`).

        Also raises RolledBack if the ring is older than the recorded one, differs from it, or is missing.
        """
        found = self._seen()  # before the read: other processes may see a newer ring during it
        try:
            ring = self._store.load()
        except RingMissing as error:
            if found is None or found[0]:
                raise RolledBack(f"{error}, though this machine has seen one ({self._path})") from None
            raise
        if found is None:
            raise StoreUnauthentic(
                f"{self._path}, which records the ring seen on this machine, was not written with our seal keys"
            )
        seen, digest = found
        if ring is self._known and ring.version == seen:
            return ring
        if ring.version < seen:
            raise RolledBack(
                f"{self.place} holds version {ring.version} of the ring, "
                f"though this machine has seen version {seen} ({self._path})"
            )
        if ring.version == seen and digest != _digest(ring):
            raise RolledBack(f"{self.place} holds another ring of version {seen} than was seen here ({self._path})")
        self._remember(ring)
        return ring

    def compare_and_swap(self, expected: int | None, ring: Ring) -> None:
        """Replace the ring (see `Store`)."""
        self._store.compare_and_swap(expected, ring)
        self._remember(ring)

    def report(self, sighting: Sighting) -> None:
        """Store the report of a replica (see `Store`)."""
        self._store.report(sighting)

    def forget(self, replica: str) -> None:
        """Delete the report of a replica (see `Store`)."""
        self._store.forget(replica)

    def sightings(self) -> Iterable[Sighting]:
        """Return the last report of each replica (see `Store`)."""
        return self._store.sightings()

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Listen to the store (see `Store`)."""
        self._store.listen(heard, stopping)

    def close(self) -> None:
        """Close the connections (see `Store`)."""
        self._store.close()

    def _seen(self) -> tuple[int, str] | None:
        """Return the version and digest of the newest ring seen; (0, "") if there is no note.

        Returns None if the note cannot be authenticated. Raises StoreUnavailable if the file cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return 0, ""
        except OSError as error:
            raise StoreUnavailable(f"{self._path} cannot be read: {error.strerror}") from None
        try:
            facts = self._sealer.read_note(_KIND, data)
        except StoreUnauthentic:
            return None
        return facts["version"], facts["digest"]

    def _remember(self, ring: Ring) -> None:
        """Record the ring on disk. If that fails, only the protection across restarts is lost."""
        self._known = ring
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError, KeysError):
            found = self._seen()
            if found is None or found[0] >= ring.version:
                return  # another process already recorded this version, or the note is not ours
            make_folder(self._path.parent)
            note = self._sealer.write_note(_KIND, {"version": ring.version, "digest": _digest(ring)})
            replace_file(self._path, new, note)


def _digest(ring: Ring) -> str:
    """Return a digest of a ring without its private keys."""
    keys = [[key.kid, key.algorithm, key.published_at, key.ready_at, key.active_at] for key in ring.keys]
    ends = [[key.retired_at, key.leaves_at, key.revoked_at] for key in ring.keys]
    facts = [ring.version, ring.longest_ttl, ring.keep, ring.guard, ring.default, keys, ends]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Floor:
    """A version that only increases, shared with all processes forked from its creator; 0 at first."""

    def __init__(self) -> None:
        self._cell = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self._between_threads = threading.Lock()
        # The kernel releases this lock when its holder is killed; a lock in shared memory would stay locked.
        self._between_processes = os.memfd_create("sts-key-floor")
        weakref.finalize(self, os.close, self._between_processes)

    @property
    def version(self) -> int:
        """The newest version seen. One aligned read of 8 bytes, which no writer can tear."""
        return self._cell[0]

    def raise_to(self, version: int) -> None:
        """Refuse versions below `version` from now on; a lower value than before has no effect."""
        if version <= self.version:
            return
        with self._between_threads:  # the file lock below does not exclude threads of one process
            fcntl.lockf(self._between_processes, fcntl.LOCK_EX)
            try:
                self._cell[0] = max(version, self._cell[0])
            finally:
                fcntl.lockf(self._between_processes, fcntl.LOCK_UN)
