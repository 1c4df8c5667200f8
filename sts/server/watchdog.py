"""How long the event loop was held, and by what: while it is, every connection of the worker waits.

The loop ticks. A tick that comes late says for how long something held the loop; a thread of the watchdog looks at the
loop's stack meanwhile, so that the log can say where. What holds the interpreter lock too, a call into native code, is
seen only afterwards, and the place may then be the next one.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import FrameType
from typing import Final

from sts.telemetry import log, metrics

TICK_S: Final = 0.05
HELD_S: Final = 0.05
"""How late a tick may come before the log says so."""
_OURS: Final = ("sts.", "keys.", "scripts.")


class Watchdog:
    """Watches the loop of the thread that makes it; `start` once the loop is about to run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._due = 0.0
        self._cpu = 0.0
        self._seen = ""
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to tick and to watch."""
        self._due, self._cpu = self._loop.time(), time.thread_time()
        self._tick()
        threading.Thread(target=self._watch, name="sts-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _tick(self) -> None:
        """In the loop: measure how late this is. `busy_s` near `held_s` says that it computed, near 0 that it waited.

        It also waits where the machine gives it no processor.
        """
        now, cpu = self._loop.time(), time.thread_time()
        late = max(0.0, now - self._due)
        metrics.loop_held(late)
        if late > HELD_S:
            facts = {"held_s": round(late, 3), "busy_s": round(cpu - self._cpu, 3)}
            log.warning("event loop was held", **facts, at=self._seen or "unknown")
        self._seen, self._cpu = "", cpu
        self._due = now + TICK_S
        if not self._ended.is_set():
            self._loop.call_at(self._due, self._tick)

    def _watch(self) -> None:
        """In the watchdog's thread: look at the loop's stack once a tick is late."""
        while not self._ended.wait(HELD_S / 2):
            if self._loop.time() - self._due > HELD_S / 2 and not self._seen:
                self._seen = _place(sys._current_frames().get(self._thread))  # noqa: SLF001 - there is no public way


def _place(frame: FrameType | None) -> str:
    """Where a stack is, "module:line": the innermost frame of our own code, else the innermost at all."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "?")
        if name.startswith(_OURS) and name != __name__:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "" if innermost is None else f"{innermost.f_globals.get('__name__', '?')}:{innermost.f_lineno}"
