"""One service outside that requests have to wait for: bounded in time and number, and not at all once it is down.

What goes wrong elsewhere, and is ruled out here: one slow service that takes all threads with it; a dead one that costs
each request its whole time-out; a flood of retries that keeps it down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from typing import Final, TypeVar

from sts.resilience.breaker import Breaker, BreakerOpenError
from sts.resilience.bulkhead import QUEUE, Bulkhead, FullError, Place
from sts.trust.fetch import UnreachableError

Result = TypeVar("Result")

PATIENCE: Final = 6.0
"""Seconds that a request waits for an answer at most."""
LONGEST_TURN: Final = 2.0
"""Seconds that a request waits for its turn at most."""
STALL: Final = (0.25, 1.0)
"""Seconds without any answer after which a request gives up waiting for its turn: twice as long as the last answer
took, within these two. A service whose answers take longer than the second is waited for by no queue."""
STRICT: Final = 1.0
"""Seconds for which no request waits for a turn after one has waited without any answer."""


class Upstream:
    """Asks one service in threads of its own, since a resolver that hangs cannot be interrupted.

    At most `max_waiters` requests are under way there at once, those included that no request waits for any more, and
    only while `all_waiters`, which several services may share, has room. Both are shared fairly by callers (see
    `Bulkhead`). Other requests are refused at once; but while the service answers they wait a moment for their turn,
    since a burst is no fault of it. `monotonic` is a steady clock in seconds; `notice` hears of every answer: "" or why
    there was none. To be made after a fork, or at least first used then.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        max_waiters: int,
        all_waiters: Bulkhead | None = None,
        patience: float = PATIENCE,
        notice: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._monotonic, self._patience, self._notice = monotonic, patience, notice
        self._breaker = Breaker(monotonic, patience=patience)
        self._waiters = Bulkhead(max_waiters, queue=QUEUE * max_waiters, shared=all_waiters)
        self._places = Bulkhead(max(1, max_waiters // 2), queue=QUEUE * max_waiters)
        self._threads = ThreadPoolExecutor(max_waiters, thread_name_prefix="upstream")
        self._lock = threading.Lock()
        self._took = 0.0
        self._strict_until = float("-inf")
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last attempt failed, "" if it did not; for operators."""
        return self._trouble

    def call(self, ask: Callable[[], Result]) -> Result:
        """What `ask` comes to. Raises UnreachableError: `ask` did, or it takes too long, or no question is sent now."""
        try:
            self._breaker.admit()
        except BreakerOpenError:
            raise UnreachableError(f"not asked, since it failed several times: {self._trouble}") from None
        place = self._enter(self._waiters)
        try:
            future = self._threads.submit(self._attempt, ask)
        except RuntimeError:
            place.leave()
            raise UnreachableError("no thread can be started") from None
        except BaseException:
            place.leave()
            raise
        future.add_done_callback(lambda _: place.leave())
        try:
            return future.result(self._patience)
        except Late:
            future.cancel()
            raise UnreachableError("no answer in time") from None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take up the place of a request that is under way, for one that waits for the answer to another request.

        So those that wait are bounded together with those that ask, and half of the places are left to the latter:
        the request that is waited for must find one. Of a single place they have the turns between two questions.
        Raises UnreachableError as `call` does where there is no room.
        """
        first = self._enter(self._places)
        try:
            second = self._enter(self._waiters)
            try:
                yield
            finally:
                second.leave()
        finally:
            first.leave()

    def _attempt(self, ask: Callable[[], Result]) -> Result:
        began = self._monotonic()
        try:
            result = ask()
        except UnreachableError as error:
            self._failed(str(error))
            raise
        except Exception as error:
            self._failed(f"fault: {type(error).__name__}")
            raise
        with self._lock:
            self._took, self._trouble = self._monotonic() - began, ""
        self._breaker.succeeded()
        self._notice("")
        return result

    def _failed(self, why: str) -> None:
        with self._lock:
            self._trouble = why
        self._breaker.failed()
        self._notice(why)

    def _enter(self, room: Bulkhead) -> Place:
        try:
            return room.enter(self._stall(), LONGEST_TURN)
        except FullError as error:
            if error.stalled:
                self._strict_until = self._monotonic() + STRICT
            raise UnreachableError(str(error)) from None

    def _stall(self) -> float:
        """How long to wait for a turn without any answer. A service that hangs costs one such wait, then none."""
        if self._breaker.failures or self._took > STALL[1] or self._monotonic() < self._strict_until:
            return 0.0
        return min(max(2 * self._took, STALL[0]), STALL[1])
