"""Run the benchmark: `make bench`, or `python -m scripts.bench`; `--quick` only tries whether it works.

One worker of the service is pinned to one processor, the load generator to another. Hit and miss at both doors are
measured in turns with the same server answering a constant, so that what else the machine does meets all of them
alike. A miss is a token that was never seen: RS256 in, ES256 out.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import urllib3
from rich import box
from rich.console import Console
from rich.table import Table

from scripts.bench.load import Measured, load
from scripts.bench.raw import Raw
from scripts.bench.rules import rules
from scripts.demo.provider import Provider
from scripts.demo.service import CLIENT, CONFIGURATION, GRANT_TYPE, ISSUER, JWT_TYPE, SECRET, Service
from scripts.nginx import await_port, free_port, stop

Server = tuple[int, int]
"""A port and the process id of the gunicorn master behind it."""

CONNECTIONS: Final = 8
HIT_GOAL: Final = 0.4
MISS_GOAL: Final = 2.5

# The demo's configuration with one worker and the usual numbers for the keys.
BENCHED: Final = re.sub(r"(?m)^keys:.*\n", "", CONFIGURATION).replace("workers: 2\n", "workers: 1\n")


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, seconds for a case in a round, new tokens for a door in a round."""

    rounds: int = 3
    seconds: float = 1.5
    misses: int = 1200


QUICK: Final = Effort(rounds=1, seconds=0.2, misses=50)


def main(effort: Effort) -> int:
    """Measure and print the tables."""
    processors = sorted(os.sched_getaffinity(0))
    server_cpu, load_cpu = {processors[0]}, {processors[-1]}
    with contextlib.ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sts-bench-")))
        provider = running.enter_context(Provider())
        service = running.enter_context(Service(directory, provider.jwks_uri, BENCHED, server_cpu))
        constant = running.enter_context(_constant(directory, server_cpu))
        tokens = [provider.token() for _ in range(effort.misses * effort.rounds + 1)]
        os.sched_setaffinity(0, load_cpu)
        raw = Raw(provider, server_cpu)
        measured = _measure((service.port, service.pid), constant, raw, tokens, effort)
    _print(measured, raw.seconds, shared=server_cpu == load_cpu)
    return 0


def _token_request(token: str) -> bytes:
    form = {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": JWT_TYPE, "audience": "orders"}
    body = urlencode(form)
    basic = urllib3.make_headers(basic_auth=f"{CLIENT}:{SECRET}")["authorization"]
    return (
        f"POST /token HTTP/1.1\r\nHost: sts\r\nAuthorization: {basic}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _forward_auth_request(token: str) -> bytes:
    return (
        f"GET /forward-auth/{CLIENT} HTTP/1.1\r\nHost: sts\r\nX-Gateway-Secret: {SECRET}\r\n"
        f"X-Original-Method: GET\r\nX-Original-URI: /orders/1\r\nX-Original-Host: api.example.com\r\n"
        f"X-Original-Proto: https\r\nX-Original-Addr: 127.0.0.1\r\nX-Request-ID: 0123456789abcdef\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


def _measure(service: Server, constant: Server, raw: Raw, tokens: list[str], effort: Effort) -> dict[str, Measured]:
    """Each case in turns, after a short round that is thrown away: connections, caches and code get warm."""
    doors: dict[str, Callable[[str], bytes]] = {"/token": _token_request, "/forward-auth": _forward_auth_request}
    measured: dict[str, Measured] = {}
    known = tokens[-1]
    fresh = {door: iter([request(token) for token in tokens[:-1]]) for door, request in doors.items()}

    def run(name: str, server: Server, requests: Iterator[bytes]) -> None:
        measured.setdefault(name, Measured()).add(
            load(*server, requests, connections=CONNECTIONS, seconds=effort.seconds)
        )

    for request in doors.values():
        for server in (service, constant):
            load(*server, itertools.repeat(request(known)), connections=CONNECTIONS, seconds=0.3)
    for _ in range(effort.rounds):
        for door, request in doors.items():
            raw.run()
            run(f"constant {door}", constant, itertools.repeat(request(known)))
            run(f"hit {door}", service, itertools.repeat(request(known)))
            run(f"miss {door}", service, itertools.islice(fresh[door], effort.misses))
    return measured


@contextlib.contextmanager
def _constant(directory: Path, cpu: set[int]) -> Iterator[Server]:
    port = free_port()
    configuration, log = directory / "constant.yaml", directory / "constant.log"
    configuration.write_text(BENCHED.format(issuer=ISSUER, port=port, jwks_uri="http://127.0.0.1:9/"), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.bench.constant", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    os.sched_setaffinity(process.pid, cpu)  # at once, so that the worker, forked much later, inherits it
    try:
        await_port(port, process, log)
        yield port, process.pid
    finally:
        stop(process)


def _print(measured: dict[str, Measured], raw: dict[str, float], *, shared: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else 118, highlight=False, markup=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("case", "requests/s", "server µs", "p50 ms", "p99 ms", "generator busy"):
        table.add_column(name, justify="left" if name == "case" else "right")
    for name, case in measured.items():
        each = f"{case.cost * 1e6:.0f}"
        latencies = [f"{case.percentile(share):.2f}" for share in (0.5, 0.99)]
        table.add_row(name, f"{case.per_second:.0f}", each, *latencies, f"{case.generator:.0%}")
    console.print(f"one worker pinned to one processor, {CONNECTIONS} kept connections, RS256 in, ES256 out")
    console.print(table)
    for name, seconds in raw.items():
        console.print(f"raw {name}: {seconds * 1e6:.0f} µs")
    for rule, size, steps, seconds in rules():
        console.print(f"rule {rule} over a {size}: {steps} steps, {seconds * 1e3:.1f} ms at most")
    for door in ("/token", "/forward-auth"):
        constant, hit, miss = (measured[f"{case} {door}"] for case in ("constant", "hit", "miss"))
        hit_ratio = hit.per_second / constant.per_second
        miss_ratio = (miss.cost - constant.cost) / sum(raw.values())
        console.print(f"{door}: hit / constant in requests/s = {hit_ratio:.2f} (goal: at least {HIT_GOAL})")
        console.print(f"{door}: (miss - constant) / raw in server µs = {miss_ratio:.2f} (goal: at most {MISS_GOAL})")
    if shared:
        console.print("only one processor is to be had: server and generator shared it, the figures are too low")
    busy = [name for name, case in measured.items() if case.generator > 0.9]
    if busy and not shared:
        console.print(f"the generator itself was the limit for: {', '.join(busy)}")


if __name__ == "__main__":
    sys.exit(main(QUICK if "--quick" in sys.argv[1:] else Effort()))
