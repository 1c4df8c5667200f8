"""Threads for what may wait or computes long. Everything else is answered in the event loop."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable


class Threads:
    """At most `bound` threads that run what they are given, in order; each starts when it is needed first.

    They are daemons: a thread that waits for a dead peer must not hold up the end of the process.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._started = 0
        self._free = 0
        self._lock = threading.Lock()

    def run(self, job: Callable[[], None]) -> bool:
        """Run `job`, which raises nothing, as soon as a thread is free; False where there is none to be had at all."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif not self._grow() and self._started == 0:
                return False
            else:
                self._free -= 1
        self._jobs.put(job)
        return True

    def _grow(self) -> bool:
        if self._started >= self.bound:
            return False
        thread = threading.Thread(target=self._work, name=f"sts-{self._started}", daemon=True)
        with contextlib.suppress(RuntimeError):  # the system has none left: those that there are go on
            thread.start()
            self._started += 1
            self._free += 1
            return True
        return False

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            with self._lock:
                self._free += 1
