"""What this machine has seen of the ring, on its disk: an older or another ring is refused, whoever looks at the store.

A replica remembers the newest version while it runs (`floor`); this outlives it, and commands share it. It stands apart
from the store, so that whoever writes to the store alone can roll nothing back. Who can write here too can: what keeps
that out is the mode of the folder.
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
    """A store whose newest ring, as seen from here, is written down in the file `path`."""

    def __init__(self, store: Store, path: Path, sealer: Sealer) -> None:
        self._store = store
        self._path = path.absolute()
        self._sealer = sealer
        self._known: Ring | None = None

    @property
    def place(self) -> str:
        """Where the store is."""
        return self._store.place

    def load(self) -> Ring:
        """Read the ring (see `Store`). Raises RolledBack as well: for an older one, another of its version, or none."""
        found = self._seen()  # before the look: what others see meanwhile may well be newer
        try:
            ring = self._store.load()
        except RingMissing as error:
            if found is None or found[0]:
                raise RolledBack(f"{error}, though this machine has seen one ({self._path})") from None
            raise
        if found is None:
            raise StoreUnauthentic(f"{self._path}, which says what ring was seen here, was not written by us")
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
        """Keep what a replica says (see `Store`)."""
        self._store.report(sighting)

    def forget(self, replica: str) -> None:
        """Drop what a replica said (see `Store`)."""
        self._store.forget(replica)

    def sightings(self) -> Iterable[Sighting]:
        """What all replicas said last (see `Store`)."""
        return self._store.sightings()

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Hear of changes (see `Store`)."""
        self._store.listen(heard, stopping)

    def close(self) -> None:
        """Let go of connections (see `Store`)."""
        self._store.close()

    def _seen(self) -> tuple[int, str] | None:
        """The newest version that was seen from here, and what it was; (0, "") if none was, None if who knows."""
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
        """Write down what was seen. Where that cannot be, nothing but the memory beyond this process is lost."""
        self._known = ring
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError, KeysError):
            found = self._seen()
            if found is None or found[0] >= ring.version:
                return  # somebody beside us was faster
            make_folder(self._path.parent)
            note = self._sealer.write_note(_KIND, {"version": ring.version, "digest": _digest(ring)})
            replace_file(self._path, new, note)


def _digest(ring: Ring) -> str:
    """A short name of all that is in a ring but its private halves."""
    keys = [[key.kid, key.algorithm, key.published_at, key.ready_at, key.active_at] for key in ring.keys]
    ends = [[key.retired_at, key.leaves_at, key.revoked_at] for key in ring.keys]
    facts = [ring.version, ring.longest_ttl, ring.keep, ring.guard, ring.default, keys, ends]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Floor:
    """A version that only grows, shared with every process that is forked from the one that made it; 0 at first."""

    def __init__(self) -> None:
        self._cell = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self._between_threads = threading.Lock()
        # Between processes a lock that the kernel lets go of when its holder is killed, unlike one in shared memory.
        self._between_processes = os.memfd_create("sts-key-floor")
        weakref.finalize(self, os.close, self._between_processes)

    @property
    def version(self) -> int:
        """The newest version seen. One aligned read of 8 bytes, which no writer can tear."""
        return self._cell[0]

    def raise_to(self, version: int) -> None:
        """Let nothing below `version` be taken from now on; a lower one than before changes nothing."""
        if version <= self.version:
            return
        with self._between_threads:  # the other lock belongs to the process as a whole
            fcntl.lockf(self._between_processes, fcntl.LOCK_EX)
            try:
                self._cell[0] = max(version, self._cell[0])
            finally:
                fcntl.lockf(self._between_processes, fcntl.LOCK_UN)
