"""The load: `wrk` where it is to be had, else one Python thread; and what the server's processes used meanwhile.

The generator must cost less than the server that it measures. wrk does. The Python one does not keep up with a fast
server: its requests/s and latencies are then its own, and only the processor time of the server is a measurement.
"""

from __future__ import annotations

import itertools
import os
import random
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.bench.figures import Load, Round, parse_wrk, percentile

_SCRIPT: Final = Path(__file__).with_name("load.lua")
_TIMEOUT_S: Final = 20.0
_LONGEST_S: Final = 300
"""How long requests that are sent once may take together."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """A server under load. `pid` is the root of its process tree; None where it is not known."""

    host: str
    port: int
    pid: int | None = None


@dataclass(frozen=True)
class Order:
    """What to send: prepared requests, each once (`seconds` is None) or in random order for whole `seconds`."""

    requests: Sequence[bytes]
    connections: int
    seconds: int | None


Generator = Callable[[Target, Order], Load]


class Wrk:
    """wrk with one thread. `program` is its path."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._seed = itertools.count(1)

    def __call__(self, target: Target, order: Order) -> Load:
        """Run wrk once. Raises RuntimeError with its output if it fails."""
        connections = min(order.connections, len(order.requests)) if order.seconds is None else order.connections
        with tempfile.NamedTemporaryFile(prefix="sts-bench-", suffix=".requests") as file:
            file.writelines(b"%d\n%b" % (len(one), one) for one in order.requests)
            file.flush()
            command = [self._program, "-t1", f"-c{connections}", f"-d{order.seconds or _LONGEST_S}s"]
            command += [f"--timeout={_TIMEOUT_S:.0f}s", f"-s{_SCRIPT}", f"http://{target.host}:{target.port}", "--"]
            command += [file.name, "once" if order.seconds is None else "each", str(next(self._seed))]
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise RuntimeError(f"wrk failed:\n{done.stdout[-2000:]}")
        return parse_wrk(done.stdout)


@dataclass
class _Connection:
    socket: socket.socket
    received: bytes = b""
    sent_at: float = 0.0

    def send(self, request: bytes) -> None:
        self.received, self.sent_at = b"", time.perf_counter()
        self.socket.sendall(request)

    def answer(self) -> tuple[int, bytes] | None:
        """Read what has arrived. Return status and body once the answer is whole; raises RuntimeError at its end."""
        data = self.socket.recv(65536)
        if not data:
            raise RuntimeError(f"the server hung up after {self.received[:300]!r}")
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        status = int(head[9:12])
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if status not in {204, 304} and length and len(body) < int(length):
            return None
        return status, body


def _connect(target: Target) -> _Connection:
    opened = socket.create_connection((target.host, target.port), timeout=_TIMEOUT_S)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _Connection(opened)


def ask(target: Target, request: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return the answer's status and what was received, head and all."""
    connection = _connect(target)
    with connection.socket:
        connection.send(request)
        answer = None
        while answer is None:
            answer = connection.answer()
    return answer[0], connection.received


@dataclass
class _Seen:
    latencies: list[float] = field(default_factory=list)
    refused: int = 0


def python_generator(target: Target, order: Order) -> Load:
    """Send from one Python thread over raw sockets: the generator for a machine that has no wrk."""
    seen = _Seen()
    started = time.perf_counter()
    end = None if order.seconds is None else started + order.seconds
    requests = iter(order.requests) if end is None else _random(order.requests)
    with selectors.DefaultSelector() as selector:
        for request in itertools.islice(requests, order.connections):
            connection = _connect(target)
            connection.send(request)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        try:
            while selector.get_map():
                for key, _ in selector.select(_TIMEOUT_S):
                    _turn(key.data, selector, requests, end, seen)
        finally:
            for key in list(selector.get_map().values()):
                key.data.socket.close()
    seconds = time.perf_counter() - started
    p50, p99 = (percentile(seen.latencies, share) * 1000 for share in (0.5, 0.99))
    return Load(len(seen.latencies), seconds, p50, p99, refused=seen.refused)


def _random(requests: Sequence[bytes]) -> Iterator[bytes]:
    chosen = random.Random(1)  # noqa: S311 - an order, no secret
    while True:
        yield chosen.choice(requests)


def _turn(
    connection: _Connection,
    selector: selectors.BaseSelector,
    requests: Iterator[bytes],
    end: float | None,
    seen: _Seen,
) -> None:
    answer = connection.answer()
    if answer is None:
        return
    now = time.perf_counter()
    seen.latencies.append(now - connection.sent_at)
    seen.refused += answer[0] >= 400
    following = next(requests, None) if end is None or now < end else None
    if following is None:
        selector.unregister(connection.socket)
        connection.socket.close()
    else:
        connection.send(following)


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that live (proc(5))."""
    found, waiting = [], [pid]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            waiting += map(int, children.read_text(encoding="ascii").split())
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process and its living descendants have used (proc(5))."""
    ticks = 0
    for process in tree(pid):
        after_name = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / _TICKS


def memory_mb(pid: int) -> float:
    """Return the memory of a process and its descendants in MB, shared pages counted once (Pss of proc(5))."""
    kilobytes = 0
    for process in tree(pid):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1000


def machine_seconds() -> dict[str, float]:
    """Return the seconds that all processors of this machine have been idle, and all their seconds (proc(5))."""
    ticks = [int(one) for one in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return {"idle": (ticks[3] + ticks[4]) / _TICKS, "all": sum(ticks) / _TICKS}


def measure(generator: Generator, target: Target, order: Order, expected: int) -> Round:
    """Put a server under load once. Raises RuntimeError if answers failed or had another status than `expected`."""
    before = 0.0 if target.pid is None else processor_seconds(target.pid)
    load = generator(target, order)
    used = None if target.pid is None else processor_seconds(target.pid) - before
    wanted = load.answers if expected >= 400 else 0
    lost = order.seconds is None and load.answers != len(order.requests)
    if load.failed or lost or load.refused != wanted or not load.answers:
        raise RuntimeError(
            f"of {load.answers} answers {load.refused} had a status of 400 or more, and {load.failed} did not come; "
            f"{expected} was expected of all"
        )
    cost = None if used is None else used / load.answers * 1e6
    return Round(cost, load.answers / load.seconds, load.p50_ms, load.p99_ms)
