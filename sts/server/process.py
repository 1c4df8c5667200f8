"""What the operating system allows the processes of the service, and what they allow themselves.

The master sets all of it up before it forks the first worker, so that it holds for any class of worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
from typing import Final

from sts.errors import StartError

MOST_CONNECTIONS: Final = 1000
"""Connections of one worker, where the limit of open files allows as many."""

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
_OTHER_FILES: Final = 128  # listeners, databases, metrics, connections to issuers and stores
_SPARE_CONNECTIONS: Final = 32  # beside one for each thread


def forbid_core_dumps() -> None:
    """Let no core dump be written of this process and its children: it would hold the deployment secret and keys.

    Where the kernel pipes core dumps to a program (core_pattern(5)) it ignores RLIMIT_CORE of 0, so the process is
    marked as not dumpable too (Linux). That also keeps other processes of the same user from reading its memory.
    Root can still read it.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # another system than Linux has no prctl
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns the limit that is then in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit than they admit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def connections_within(limit: int, threads: int) -> int:
    """How many connections a worker with `threads` threads may hold, lingering ones included.

    A quarter of the `limit` of open files is left to everything else. Raises StartError where too few would remain.
    """
    if limit == resource.RLIM_INFINITY:
        return max(MOST_CONNECTIONS, threads * 4)
    within = limit - max(_OTHER_FILES, limit // 4)
    if within < threads + _SPARE_CONNECTIONS:
        raise StartError(
            f"the limit of open files, {limit}, is too low for {threads} threads: "
            "raise it (ulimit -n, LimitNOFILE= of the unit) or lower `threads`"
        )
    return min(within, max(MOST_CONNECTIONS, threads * 4))
