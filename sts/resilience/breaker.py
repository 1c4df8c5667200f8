"""A circuit breaker: a service that failed several times in a row is asked by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sts.errors import StsError

FAILURES: Final = 3
"""Failures in a row after which only probes are let through."""
PAUSE: Final = 1.0
"""Seconds between a failed probe and the next one: so long after its return a service is found at the latest."""


class BreakerOpenError(StsError):
    """The service failed too often; no request is let through until the next probe is due."""


class Breaker:
    """Opens after `limit` failures in a row; then lets one probe through at a time, until one succeeds.

    `monotonic` gives steady seconds; `pause` (seconds) lies between a probe that failed and the next; a probe of which
    nothing is heard for `patience` seconds (default: `pause`) counts as failed. The pause does not grow: a probe costs
    the service little, and a long pause keeps a service that is back out of use. A closed breaker costs a request one
    comparison and no lock.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        limit: int = FAILURES,
        pause: float = PAUSE,
        patience: float | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._pause = pause
        self._patience = pause if patience is None else patience
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_until = 0.0

    @property
    def failures(self) -> int:
        """How many attempts have failed since the last success."""
        return self._failures

    @property
    def open(self) -> bool:
        """Whether requests are turned away."""
        return self._failures >= self._limit

    def admit(self) -> None:
        """Let a request through, or raise BreakerOpenError at once.

        A request that is let through reports `succeeded` or `failed` in the end. A probe that reports neither delays
        the next one by `patience`, no longer.
        """
        if self._failures < self._limit:
            return
        with self._lock:
            now = self._monotonic()
            if now < self._closed_until:
                raise BreakerOpenError("it failed several times in a row and is not asked for a moment")
            self._closed_until = now + self._patience

    def succeeded(self) -> None:
        """An answer came: all requests may ask again."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """No answer came."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._closed_until = self._monotonic() + self._pause
