"""Looks at files that change while we run, in one thread of the process: never in a request."""

from __future__ import annotations

import threading
import weakref
from typing import Final, Protocol

from sts.telemetry import log

INTERVAL: Final = 5.0
"""Seconds between two looks."""


class Looks(Protocol):
    """Something that must be looked at again and again."""

    def look(self) -> None:
        """Look; never raises."""


class Watch:
    """What is looked at every `interval` seconds, for as long as somebody else holds it."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._watched: weakref.WeakSet[Looks] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, one: Looks) -> None:
        """Look at this one too, from the next round on; before the fork or after it."""
        with self._lock:
            self._watched.add(one)

    def start(self) -> None:
        """Begin, in a thread of this process; to be called after the fork."""
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
                except Exception as fault:  # noqa: BLE001 - one that breaks its word must not blind us to the others
                    log.error("watch", fault=type(fault).__name__)
