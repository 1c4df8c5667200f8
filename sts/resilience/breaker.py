"""A circuit breaker: after several successive failures only one request at a time may call the service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sts.errors import StsError

FAILURES: Final = 3
"""Successive failures after which only probes are admitted."""
PAUSE: Final = 1.0
"""Seconds between a failed probe and the next one, and so the maximum delay until a recovered service is detected."""


class BreakerOpenError(StsError):
    """The service failed too often; no request is admitted until the next probe is due."""


class Breaker:
    """Opens after `limit` successive failures; then admits one probe at a time until one succeeds.

    The pause does not increase: a probe costs the service little, and a long pause delays the use of a recovered
    service. A closed breaker costs a request one comparison and no lock.

    Args:
        monotonic: A monotonic clock in seconds.
        limit: The number of successive failures that opens the breaker.
        pause: Seconds between a failed probe and the next one.
        patience: Seconds after which a probe without a result counts as failed; default: `pause`.
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
        """The number of failures since the last success."""
        return self._failures

    @property
    def open(self) -> bool:
        """Whether the breaker refuses requests."""
        return self._failures >= self._limit

    def admit(self) -> None:
        """Admit a request, or raise BreakerOpenError at once.

        The caller then reports `succeeded` or `failed`. A probe that reports neither delays the next one by `patience`.
        """
        if self._failures < self._limit:
            return
        with self._lock:
            now = self._monotonic()
            if now < self._closed_until:
                raise BreakerOpenError("it failed several times in a row and is not asked for a moment")
            self._closed_until = now + self._patience

    def succeeded(self) -> None:
        """Report a success, which closes the breaker."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """Report a failure."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._closed_until = self._monotonic() + self._pause
