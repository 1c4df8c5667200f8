"""Which threads may wait for somebody else.

The poller of a worker answers a request itself as far as nobody has to be waited for: handing it to a thread costs
more than a cached answer. Whatever may have to wait says so first; where waiting is not allowed, the request is left as
if it had not been begun, and a thread takes it up anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WouldWait(BaseException):  # no error: nothing that handles errors may take it for one
    """This thread may not wait. Whoever catches it must begin the request anew where that is allowed."""


class _Thread(threading.local):
    hurried = False


_thread = _Thread()


@contextmanager
def without_waiting() -> Iterator[None]:
    """Forbid this thread to wait, as long as the block lasts."""
    _thread.hurried = True
    try:
        yield
    finally:
        _thread.hurried = False


def about_to_wait() -> None:
    """To be called before waiting for another thread or a peer, before anything is changed. Raises WouldWait."""
    if _thread.hurried:
        raise WouldWait
