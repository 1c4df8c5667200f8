"""The newest version of the ring that a replica has seen: what any process of it knows, all of them know.

Known to one process only, it would be forgotten when that process dies, and its successor would take an older ring.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import weakref


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
