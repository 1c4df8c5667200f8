"""Limits lines that callers can cause at will to one a second of each kind, and counts the lines left out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 1.0
"""Seconds between two lines of one kind."""
MAX_KINDS: Final = 256
"""Maximum number of separate kinds; further kinds are treated as one."""

Write = Callable[[int], None]
"""Writes a line; the argument is the number of lines of its kind left out since the last one."""


class _Kind:
    """The state of one kind: when its next line may be written, and the last line that waits for that time."""

    __slots__ = ("not_before", "waiting", "write")

    def __init__(self) -> None:
        self.not_before = float("-inf")
        self.waiting = 0
        self.write: Write | None = None


class Throttle:
    """Writes the first line of a kind at once, and at the end of the following second the last line of that second.

    So the written lines and their counts add up to all events, at most one second late. Safe to share between threads;
    `monotonic` is a steady clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.forget()

    def forget(self) -> None:
        """Reset after a fork: the waiting lines belong to the parent."""
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def offer(self, kind: str, write: Write) -> None:
        """Call `write` now, or at the end of the second in a thread, or never if a later line replaces it."""
        with self._lock:
            now = self._monotonic()
            found = self._kind(kind, now)
            if now < found.not_before:
                found.waiting += 1
                found.write = write
                if found.waiting == 1:
                    self._write_later(found, found.not_before - now)
                return
            left_out, found.waiting, found.write = found.waiting, 0, None
            found.not_before = now + EVERY_S
        write(left_out)

    def flush(self) -> None:
        """Write the waiting lines, for instance at the end of the process."""
        for kind in list(self._kinds.values()):
            self._write_waiting(kind)

    def _kind(self, name: str, now: float) -> _Kind:
        if name not in self._kinds and len(self._kinds) >= MAX_KINDS:
            over = [other for other, kind in self._kinds.items() if kind.not_before <= now and not kind.waiting]
            for other in over:
                del self._kinds[other]
            if not over:
                name = ""
        return self._kinds.setdefault(name, _Kind())

    def _write_later(self, kind: _Kind, seconds: float) -> None:
        timer = threading.Timer(seconds, self._write_waiting, [kind])
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread can be started: the next line has the count
            timer.start()

    def _write_waiting(self, kind: _Kind) -> None:
        with self._lock:
            write, others = kind.write, kind.waiting - 1
            kind.waiting, kind.write = 0, None
            if write is not None:
                kind.not_before = self._monotonic() + EVERY_S
        if write is not None:
            write(others)
