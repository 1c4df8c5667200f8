"""The load generator: one thread, raw sockets, kept connections, requests prepared as bytes.

It must cost less than the server that it measures. So it parses no more of an answer than its status and its length,
and says how much of its own processor it used: near 1, it is the generator that was measured.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 20.0


@dataclass
class Measured:
    """What was measured: answers, seconds, seconds of processor time on either side, latency of each answer."""

    answers: int = 0
    seconds: float = 0.0
    generator_seconds: float = 0.0
    server_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def add(self, other: Measured) -> None:
        """Take another round in."""
        self.answers += other.answers
        self.seconds += other.seconds
        self.generator_seconds += other.generator_seconds
        self.server_seconds += other.server_seconds
        self.latencies += other.latencies

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's processor for one answer, whoever else used that processor meanwhile."""
        return self.server_seconds / self.answers

    @property
    def generator(self) -> float:
        """The share of a processor that the generator used."""
        return self.generator_seconds / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in milliseconds that `share` of the answers do not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def whole_answer(self) -> bool:
        """Read what is there; say whether the answer is complete. Raises RuntimeError unless it is a 200."""
        data = self.socket.recv(65536)
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not data:
            raise RuntimeError("the server hung up")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"an answer was not 200: {self.received[:600]!r}")
        return len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def processor_seconds(master: int) -> float:
    """Seconds of processor time that the living workers of a gunicorn master have used (proc(5))."""
    ticks = 0
    for worker in Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split():
        after_name = Path(f"/proc/{worker}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(port: int, master: int, requests: Iterator[bytes], *, connections: int, seconds: float) -> Measured:
    """Keep `connections` busy with `requests` until they or the `seconds` run out; `master` is the server's."""
    measured = Measured()
    server = processor_seconds(master)
    with selectors.DefaultSelector() as selector:
        opened = [_Connection(port) for _ in range(connections)]
        started, processor = time.perf_counter(), time.process_time()
        end = started + seconds
        for connection in opened:
            connection.send(next(requests))
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        while selector.get_map():
            for key, _ in selector.select(_TIMEOUT_S):
                connection = key.data
                if not connection.whole_answer():
                    continue
                now = time.perf_counter()
                measured.latencies.append(now - connection.sent_at)
                following = next(requests, None) if now < end else None
                if following is None:
                    selector.unregister(connection.socket)
                    connection.socket.close()
                else:
                    connection.send(following)
        measured.seconds = time.perf_counter() - started
        measured.generator_seconds = time.process_time() - processor
    measured.server_seconds = processor_seconds(master) - server
    measured.answers = len(measured.latencies)
    return measured
