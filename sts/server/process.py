"""What the operating system allows the processes of the service, and what they allow themselves.

The master sets all of it up before it forks the first worker, so that it holds for any class of worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sts.errors import StartError
from sts.server.prctl import prctl
from sts.telemetry import log

MOST_CONNECTIONS: Final = 1000
"""Connections of one worker, where the limit of open files allows as many."""

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_OTHER_FILES: Final = 128  # listeners, databases, metrics, connections to issuers and stores
_SPARE_CONNECTIONS: Final = 32  # beside one for each thread
_FULL: Final = 2  # the oldest generation
_GC_THRESHOLDS: Final = (1000, 5, 2)  # at most some 18 000 new objects between two full collections, walked in 10 ms
_SO_ATTACH_FILTER: Final = 26  # socket(7)
_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of TCP's flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone, a new connection
        (0x06, 0, 0, 0),  # is dropped
        (0x06, 0, 0, 0xFFFFFFFF),  # anything else passes
    )
)
"""A packet filter for a listening TCP socket (classic BPF; SO_ATTACH_FILTER in socket(7))."""
_HANDSHAKE_S: Final = 0.1  # for handshakes that began before the filter
_BACKLOG_S: Final = 5.0
_ORPHAN_S: Final = 1.5


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


def settle_memory() -> None:
    """Keep the pauses of the garbage collector short, however large the token cache is; for a worker that is loaded.

    What survives a full collection is frozen, which excludes it from later ones. So each walks only what was made since
    the one before, and the thresholds bound that. Reference counts free what is frozen as before, except for cycles:
    those wait for `collect_all`.
    """
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.collect()


def collect_all() -> None:
    """Free every cycle, frozen ones too: a pause of a tenth of a second and more, for after a reload."""
    gc.unfreeze()
    gc.collect()


def _freeze_survivors(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == _FULL:
        gc.freeze()


class SharedFlag:
    """A flag that the process which made it raises, and that all processes forked from it see."""

    def __init__(self) -> None:
        self._cell = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Raise the flag, for good."""
        self._cell[0] = 1

    def is_set(self) -> bool:
        """Whether it is raised."""
        return bool(self._cell[0])


def close_listeners(listeners: Iterable[Any]) -> None:
    """Stop listening in all processes that share `listeners`, without a reset for any connection that was taken.

    A listener that is just closed resets the connections which no worker has accepted yet. So new connections are
    kept off first, then the workers accept what waits, then it is closed. A client whose first packet was dropped
    meanwhile sends it again a second later and is refused, or reaches the replica that listens there by then.
    """
    kept = list(listeners)
    for listener in kept:
        _keep_off(listener)
    end = time.monotonic() + _BACKLOG_S
    time.sleep(_HANDSHAKE_S)
    while any(map(_has_waiting, kept)) and time.monotonic() < end:
        time.sleep(0.01)
    shut(kept)


def shut(listeners: Iterable[Any]) -> None:
    """Stop listening in all processes that share `listeners`, at once; connections that wait are reset."""
    for listener in listeners:
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: gunicorn's, once it is closed
            listener.shutdown(socket.SHUT_RDWR)


def end_orphan(listeners: Iterable[Any]) -> None:
    """End this worker, whose master is gone: the address is free at once, and the process ends within two seconds."""
    shut(listeners)
    log.error("the master is gone: this worker ends")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_S)
    os._exit(1)


def die_with_parent(*, on: bool) -> None:
    """Let the kernel kill this process when its parent ends; for a worker that does not yet serve (Linux)."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if on else 0)


def _keep_off(listener: Any) -> None:  # noqa: ANN401 - gunicorn has no types
    """Let no new connection reach the listener: a Unix socket loses its name, and TCP its packets that open one."""
    name = listener.getsockname()
    if isinstance(name, str):
        with contextlib.suppress(OSError):
            Path(name).unlink()
        return
    code = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    program = struct.pack("HL", len(_DROP_SYN) // 8, ctypes.addressof(code))
    with contextlib.suppress(OSError):  # another system than Linux
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _has_waiting(listener: Any) -> bool:  # noqa: ANN401 - gunicorn has no types
    """Whether connections wait to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
