"""Calls to one external service for which requests wait: limits of time and number, and no wait while it is down.

This module prevents known faults of other implementations: a slow service that blocks all threads; a dead service that
costs each request its whole timeout; a flood of retries that keeps a service down.
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
"""The maximum time in seconds that a request waits for a response."""
LONGEST_TURN: Final = 2.0
"""The maximum time in seconds that a request waits for its turn."""
STALL: Final = (0.25, 1.0)
"""A request stops waiting for its turn after twice the duration of the last response without any response, between
these two values in seconds. If responses take longer than the second value, no request waits for its turn."""
STRICT: Final = 1.0
"""Seconds for which no request waits for its turn after one request has waited without any response."""


class Upstream:
    """Calls one service in separate threads, because a DNS lookup that hangs cannot be interrupted.

    While the service responds, a request over the limit waits a moment for its turn, because a burst is no fault of the
    service; otherwise it is refused at once. Create the object after a fork, or use it first after the fork.

    Args:
        monotonic: A monotonic clock in seconds.
        max_waiters: How many calls may be in progress, including calls for which no request waits any more. Callers
            share the places fairly (see `Bulkhead`).
        all_waiters: A limit that several services share, or None.
        patience: The maximum time in seconds that a request waits for a response.
        notice: Called after every call with the reason of a failure, or "".
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
        """Why the last call failed, "" if it succeeded; for operators."""
        return self._trouble

    def call(self, ask: Callable[[], Result]) -> Result:
        """Return the result of `ask`.

        Raises UnreachableError if `ask` does, if it takes too long, or if no call is possible now.
        """
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
        """Hold the place of a call for a request that waits for the result of another request.

        Waiting requests and calls share one limit. Half of the places are reserved for calls, so that waiting requests
        cannot starve the call for which they wait. If there is a single place, they use it in turn. Raises
        UnreachableError if there is no place.
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
        """Return how long to wait for a turn without any response. A service that hangs costs only one such wait."""
        if self._breaker.failures or self._took > STALL[1] or self._monotonic() < self._strict_until:
            return 0.0
        return min(max(2 * self._took, STALL[0]), STALL[1])
