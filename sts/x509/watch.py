"""Checks files for changes in one background thread of the process, never in a request."""

from __future__ import annotations

import threading
import weakref
from typing import Final, Protocol

from sts.telemetry import log

INTERVAL: Final = 5.0
"""Seconds between two checks."""


class Looks(Protocol):
    """An object that must be checked for changes regularly."""

    def look(self) -> None:
        """Check for changes; never raises."""


class Watch:
    """Checks objects every `interval` seconds, as long as another reference to them exists."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._watched: weakref.WeakSet[Looks] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, one: Looks) -> None:
        """Check this object too, from the next round on. May be called before or after the fork."""
        with self._lock:
            self._watched.add(one)

    def start(self) -> None:
        """Start the thread; call this after the fork."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the thread to end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stopping.clear()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            with self._lock:
                watched = list(self._watched)
            for one in watched:
                try:
                    one.look()
                except Exception as fault:  # noqa: BLE001 - a fault of one object must not stop the checks of the others
                    log.error("watch", fault=type(fault).__name__)
