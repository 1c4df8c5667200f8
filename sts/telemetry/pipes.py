"""Writes to a pipe, a socket or a terminal; a reader that stops reading must not stop the service."""

from __future__ import annotations

import errno
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE_S: Final = 1.0
"""Seconds that a writer waits for a reader that has read until then."""


class Turn:
    """A lock that lets one thread write at a time.

    The first write waits for a reader that does not read. After that, every write fails at once until the reader reads
    again. So at most one thread can block: if another process fills the pipe between the check and the write.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset after a fork: a thread that does not exist in this process may hold the lock."""
        self._lock = threading.Lock()
        self._stuck = False

    @contextmanager
    def wait(self, descriptor: int) -> Iterator[None]:
        """Wait until a line can be written to `descriptor`. Raises BlockingIOError if the reader does not read."""
        patience = 0.0 if self._stuck else PATIENCE_S
        if not self._lock.acquire(timeout=patience):
            raise self._fault()
        try:
            if not _is_writable(descriptor, patience):
                raise self._fault()
            yield
            self._stuck = False
        finally:
            self._lock.release()

    def _fault(self) -> BlockingIOError:
        self._stuck = True
        return BlockingIOError(errno.EAGAIN, "no process reads what is written")


def _is_writable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
