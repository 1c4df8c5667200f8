"""One service outside that requests have to wait for: bounded in time and number, and not at all once it is down.

What goes wrong elsewhere, and is ruled out here: one slow service that takes all threads with it; a dead one that costs
each request its whole time-out; a flood of retries that keeps it down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from typing import Final, TypeVar

from sts.trust.fetch import UnreachableError

Result = TypeVar("Result")

PATIENCE: Final = 6.0
"""Seconds that a request waits for an answer at most."""
FAILURES: Final = 3
"""Failures in a row after which nobody is sent any more, until one has tried."""
FIRST_PAUSE: Final = 1.0
"""Seconds until one may try again; doubled with each further failure, up to LONGEST_PAUSE."""
LONGEST_PAUSE: Final = 30.0
LONGEST_TURN: Final = 0.25
"""Seconds that a request waits for its turn at most, and only while the service answers within them."""
STRICT: Final = 1.0
"""Seconds for which nobody waits for a turn after somebody has waited in vain."""


class Upstream:
    """Asks one service in threads of its own, since a resolver that hangs cannot be interrupted.

    At most `max_waiters` requests are under way there at once, those included that nobody waits for any more, and
    only while `all_waiters`, which several services may share, has room. Others are told so at once; but while the
    service answers quickly they wait a moment for their turn, since a burst is no fault of it. `monotonic` is a steady
    clock in seconds; `notice` hears of every answer: "" or why there was none. To be made after a fork, or at least
    first used then.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        max_waiters: int,
        all_waiters: threading.BoundedSemaphore | None = None,
        patience: float = PATIENCE,
        notice: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._monotonic, self._patience, self._notice = monotonic, patience, notice
        self._waiters = threading.BoundedSemaphore(max_waiters)
        self._places = threading.BoundedSemaphore(max(1, max_waiters // 2))
        self._all_waiters = all_waiters
        self._threads = ThreadPoolExecutor(max_waiters, thread_name_prefix="upstream")
        self._lock = threading.Lock()
        self._took = 0.0
        self._strict_until = float("-inf")
        self._failures = 0
        self._not_before = float("-inf")
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last attempt failed, "" if it did not; for operators."""
        return self._trouble

    def call(self, ask: Callable[[], Result]) -> Result:
        """What `ask` comes to. Raises UnreachableError: `ask` did, or it takes too long, or nobody is sent now."""
        self._check_open()
        self._enter()
        try:
            future = self._threads.submit(self._attempt, ask)
        except RuntimeError:
            self._leave()
            raise UnreachableError("no thread can be started") from None
        except BaseException:
            self._leave()
            raise
        future.add_done_callback(self._done)
        try:
            return future.result(self._patience)
        except Late:
            future.cancel()
            raise UnreachableError("no answer in time") from None

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take up the place of a request that is under way, for one that waits for somebody else's answer.

        So those that wait are bounded together with those that ask, and half of the places are left to these: whoever
        is waited for must find one. Of a single place they have the turns between two questions. Raises
        UnreachableError as `call` does where there is no room.
        """
        self._enter_by(self._places)
        try:
            self._enter()
            try:
                yield
            finally:
                self._leave()
        finally:
            self._places.release()

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
            self._took = self._monotonic() - began
            self._failures, self._not_before, self._trouble = 0, float("-inf"), ""
        self._notice("")
        return result

    def _failed(self, why: str) -> None:
        with self._lock:
            self._failures += 1
            self._trouble = why
            if self._failures >= FAILURES:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - FAILURES, 10))
                self._not_before = self._monotonic() + pause
        self._notice(why)

    def _check_open(self) -> None:
        """Let nobody through during a pause; behind it one at a time until one has succeeded."""
        if self._failures < FAILURES:
            return
        with self._lock:
            now = self._monotonic()
            if now < self._not_before:
                raise UnreachableError(f"not asked, since it failed {self._failures} times: {self._trouble}")
            self._not_before = now + self._patience  # this one tries; the others wait for what becomes of it

    def _enter(self) -> None:
        self._enter_by(self._waiters)
        if self._all_waiters is not None and not self._all_waiters.acquire(blocking=False):
            self._waiters.release()
            raise UnreachableError("too many requests wait for services like it")

    def _enter_by(self, room: threading.Semaphore) -> None:
        if not room.acquire(blocking=False) and not self._wait_for_turn(room):
            raise UnreachableError("too many requests wait for it")

    def _wait_for_turn(self, room: threading.Semaphore) -> bool:
        """Whether this request's turn has come. A service that hangs costs one such wait, then nobody waits so."""
        if self._failures or self._took > LONGEST_TURN or self._monotonic() < self._strict_until:
            return False
        if room.acquire(timeout=LONGEST_TURN):
            return True
        self._strict_until = self._monotonic() + STRICT
        return False

    def _leave(self) -> None:
        if self._all_waiters is not None:
            self._all_waiters.release()
        self._waiters.release()

    def _done(self, _future: Future[Result]) -> None:
        self._leave()
