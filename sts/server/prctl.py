"""What a process asks of the Linux kernel about itself. Every command imports it, so it imports nothing heavy."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def forbid_core_dumps() -> None:
    """Let no core dump be written of this process and its children: it would hold the deployment secret and keys.

    Where the kernel pipes core dumps to a program (core_pattern(5)) it ignores RLIMIT_CORE of 0, so the process is
    marked as not dumpable too (Linux). That also keeps other processes of the same user from reading its memory.
    Root can still read it.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(_PR_SET_DUMPABLE, 0)


def prctl(option: int, value: int) -> None:
    """Set `option` of this process (prctl(2)); does nothing on another system than Linux."""
    with contextlib.suppress(OSError, AttributeError):  # another system than Linux has no prctl
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
