"""How much memory and how many threads processes have, on Linux; elsewhere nothing is said."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

MEMORY_MB: Final = 200.0
"""By how much a process may grow: its caches have bounds of their own, 64 MB the largest."""
THREADS: Final = 80
"""By how many: what a worker may have, and its upstream services' own."""


@dataclass(frozen=True, slots=True)
class Size:
    """Megabytes that are resident, and threads, of the largest of some processes."""

    megabytes: float
    threads: int

    @classmethod
    def of(cls, *pids: int) -> Self | None:
        """Of these processes and their children; None where there is no /proc."""
        try:
            wanted = {*pids, *(child for pid in pids for child in _children(pid))}
            texts = [Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace") for pid in wanted]
        except OSError:
            return None
        facts = [dict(line.split(":", 1) for line in text.splitlines()) for text in texts]
        return cls(max(int(one["VmRSS"].split()[0]) / 1024 for one in facts), max(int(one["Threads"]) for one in facts))

    def check(self, later: Size | None) -> str:
        """What it came to later, for the summary. It must be within the bounds."""
        if later is None:
            return "unknown"
        grown, more = later.megabytes - self.megabytes, later.threads - self.threads
        assert grown < MEMORY_MB, f"{grown:.0f} MB more than before"
        assert more < THREADS, f"{more} threads more than before"
        return f"{grown:+.0f} MB, {more:+d} threads"


def here() -> int:
    """This process."""
    return os.getpid()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text(encoding="ascii").split()]
