"""A circuit breaker: what failed several times in a row is asked by one now and then, not by everybody."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sts.errors import StsError


class BreakerOpenError(StsError):
    """It failed too often; nobody is asked until the pause is over."""


class Breaker:
    """Opens after `limit` failures in a row; then lets one probe through every `pause` seconds, until one succeeds.

    `monotonic` gives steady seconds. A closed breaker costs a request one comparison and no lock.
    """

    def __init__(self, monotonic: Callable[[], float], limit: int = 3, pause: float = 1.0) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._pause = pause
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_until = 0.0

    @property
    def open(self) -> bool:
        """Whether requests are turned away."""
        return self._failures >= self._limit

    def admit(self) -> None:
        """Let a request through, or raise BreakerOpenError at once.

        Whoever is let through says `succeeded` or `failed` in the end. A probe that says neither holds up the next one
        for the length of a pause, no longer.
        """
        if self._failures < self._limit:
            return
        with self._lock:
            now = self._monotonic()
            if now < self._closed_until:
                raise BreakerOpenError("it failed several times in a row and is not asked for a moment")
            self._closed_until = now + self._pause

    def succeeded(self) -> None:
        """An answer came: everybody may ask again."""
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """No answer came."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._limit:
                self._closed_until = self._monotonic() + self._pause
