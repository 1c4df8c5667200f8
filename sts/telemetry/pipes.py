"""Writing to a pipe, a socket or a terminal whose reader may not read: the service must not stop with it."""

from __future__ import annotations

import errno
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE_S: Final = 1.0
"""How long a writer waits for a reader that has read up to then."""


class Turn:
    """The turn to write, one thread after the other.

    A reader that does not read is waited for once. After that every write fails at once, until the reader reads again.
    So of all threads at most one can block: where another process fills the pipe between the look and the write.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as a new one: after a fork the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()
        self._stuck = False

    @contextmanager
    def wait(self, descriptor: int) -> Iterator[None]:
        """Wait until a line can be written to `descriptor`. Raises BlockingIOError where the reader does not read."""
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
