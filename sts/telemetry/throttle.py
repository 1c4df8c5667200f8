"""At most one line a second of each kind that strangers can cause at will, and how many were left out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 1.0
"""Seconds between two lines of one kind."""
MAX_KINDS: Final = 256
"""How many kinds are told apart; further ones count as one."""

Write = Callable[[int], None]
"""Writes a line, given how many lines like it were left out since the one before."""


class _Kind:
    """When the next line of one kind may be written, and the last one that waits for it."""

    __slots__ = ("not_before", "waiting", "write")

    def __init__(self) -> None:
        self.not_before = float("-inf")
        self.waiting = 0
        self.write: Write | None = None


class Throttle:
    """Writes the first line of a kind at once, and of those within the second after it the last one, at its end.

    So the lines that are written and the numbers that they give add up to what has happened, a second later at the
    latest. Safe to share between threads; `monotonic` is a steady clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.forget()

    def forget(self) -> None:
        """Begin as a new one: after a fork, what waits is the parent's to write."""
        self._lock = threading.Lock()
        self._kinds: dict[str, _Kind] = {}

    def offer(self, kind: str, write: Write) -> None:
        """Call `write` now, or at the end of the second in a thread, or never, if a later line of this kind is."""
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
        """Write what waits, for instance at the end of the process."""
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
        with contextlib.suppress(RuntimeError):  # no thread is to be had: the next line of the kind gives the number
            timer.start()

    def _write_waiting(self, kind: _Kind) -> None:
        with self._lock:
            write, others = kind.write, kind.waiting - 1
            kind.waiting, kind.write = 0, None
            if write is not None:
                kind.not_before = self._monotonic() + EVERY_S
        if write is not None:
            write(others)
