"""Run the benchmark: `make bench`, or `python -m scripts.bench`; `--help` explains the options."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import click
from rich.console import Console

from scripts.bench import report
from scripts.bench.cases import CASES, GROWTH, Case, Peer
from scripts.bench.figures import CONSTANT, NGINX, USUAL, Run, machine_share
from scripts.bench.load import Generator, Target, Wrk, machine_seconds, python_generator
from scripts.bench.raw import Raw
from scripts.bench.rules import rules
from scripts.bench.run import Effort, Plan, run
from scripts.bench.world import World
from scripts.demo.provider import AUDIENCE, ISSUER, Provider
from scripts.servers import NGINX as NGINX_SERVER
from scripts.servers import WRK, find, install

QUICK: Final = Effort(rounds=1, seconds=1, fresh=60)
FULL: Final = Effort(rounds=5, seconds=2, fresh=3000)
_BUSY: Final = 0.1
_LOOK_S: Final = 1.0
_PEER_CONNECTIONS: Final = (1, USUAL, 128)
HELP: Final = """\
Measure the service beside yardsticks, in one run.

The server is pinned to one processor, and the load generator (wrk) to another one. Cases run in turns, round after
round. CPU µs is the processor time of all processes of the server for one request. The yardsticks are nginx and
this server's own HTTP, each with a constant answer, and the raw cryptography. Ratios to nginx can be compared
between machines; microseconds cannot. Other load on the machine spoils the figures: the table says so.

Another forward-auth server (--against) gets the same load. The benchmark issues the tokens, RS256 with the
claims `iss`, `sub`, `aud`, `scope`, and publishes the key set at --issuer-port: configure the server to accept
them. Start it yourself under `taskset -c` on the first processor, and name its --pid.

\b
Examples:
  make bench
  make bench ARGS='--full --growth --save'
  make bench ARGS='--case miss --rounds 5'
  make bench AGAINST=http://127.0.0.1:4456/decisions/orders/{n} ARGS='--issuer-port 9000 --pid 4711'
  make bench AGAINST=http://127.0.0.1:9091/verify ARGS="--token-file tokens.txt --header 'X-Forwarded-Uri: /{n}'"
  python -m scripts.bench --docs
"""


@dataclass(frozen=True)
class Options:
    """The command line."""

    full: bool
    quick: bool
    growth: bool
    case: tuple[str, ...]
    connections: tuple[int, ...]
    rounds: int | None
    seconds: int | None
    fresh: int | None
    generator: str
    save: bool
    json: Path | None
    against: str | None
    header: tuple[str, ...]
    token_header: str
    token_file: Path | None
    method: str
    statuses: tuple[int, int]
    issuer_port: int
    pid: int | None

    @property
    def effort(self) -> Effort:
        """How much to measure."""
        usual = QUICK if self.quick else FULL if self.full else Effort()
        return Effort(self.rounds or usual.rounds, self.seconds or usual.seconds, self.fresh or usual.fresh)


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--full", is_flag=True, help="All cases, also at 1 and 128 connections, in long rounds (30 minutes).")
@click.option("--growth", is_flag=True, help="Also beside 10 000 sources, audiences, routes and clients (minutes).")
@click.option("--quick", is_flag=True, help="One short round: shows that everything works, measures nothing.")
@click.option("--case", multiple=True, metavar="TEXT", help="Only cases whose name contains TEXT; may be repeated.")
@click.option("--list", "list_cases", is_flag=True, help="List the cases, and measure nothing.")
@click.option("--connections", multiple=True, type=click.IntRange(1, 1000), help="Instead of each case's own numbers.")
@click.option("--rounds", type=click.IntRange(1), help="How many rounds; the table has their medians.  [default: 3]")
@click.option("--seconds", type=click.IntRange(1), help="How long a case runs in a round.  [default: 1]")
@click.option("--fresh", type=click.IntRange(1), help="Tokens of a miss in a round.  [default: 1500]")
@click.option("--generator", type=click.Choice(["auto", "wrk", "python"]), default="auto", help="What makes the load.")
@click.option("--save", is_flag=True, help="Write JSON, table and picture into bench/results, named by the date.")
@click.option("--json", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write JSON into FILE.")
@click.option("--docs", is_flag=True, help="Write the newest result into docs/performance.md; measures nothing.")
@click.option("--against", metavar="URL", help="Measure another server: the URL that its gateway asks. {n} varies.")
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="A header of each request to it. {n} varies.")
@click.option("--token-header", default="Authorization", show_default=True, help="Which header has the token.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Tokens of its own identity provider, one a line; then only hits are measured.",
)
@click.option("--method", default="GET", show_default=True, help="The method of requests to it.")
@click.option("--statuses", type=(int, int), default=(200, 401), show_default=True, help="What it answers: good, bad.")
@click.option("--issuer-port", type=click.IntRange(0, 65535), default=0, help="Where to publish the tokens' key set.")
@click.option("--pid", type=int, help="The root of its processes on this machine: adds its CPU time and memory.")
def main(*, list_cases: bool, docs: bool, **given: Any) -> None:  # noqa: ANN401 - click's options
    """Measure and print the tables."""
    if list_cases:
        for case in (*CASES, *GROWTH):
            print(f"{case.name:36}{case.about}{'' if case.connections else ' (--full)'}")
        return
    if docs:
        _write_docs()
        return
    options = Options(**given)
    console = Console(width=None if sys.stdout.isatty() else 128, highlight=False, markup=False, emoji=False)
    try:
        done = _measure(options, Console(stderr=True, highlight=False, markup=False, emoji=False))
    except (RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    report.show(done, console)
    if options.json is not None:
        options.json.write_text(done.as_json(), encoding="utf-8")
    if options.save:
        console.print(f"written: {report.save(done)}")


def _write_docs() -> None:
    try:
        path = report.newest()
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    done = Run.from_json(path.read_text(encoding="utf-8"))
    report.PAGE.write_text(report.documented(done, report.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    report.PICTURE.write_text(report.picture(done), encoding="utf-8")
    print(f"{report.PAGE.name} and {report.PICTURE.name} have the figures of {path.name}")


def _measure(options: Options, terminal: Console) -> Run:
    plan = _cases(options)
    name, generator = _generator(options.generator, terminal)
    processors = sorted(os.sched_getaffinity(0))
    server_cpu, load_cpu = {processors[0]}, {processors[-1]}
    done = Run(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        command=shlex.join(["python", "-m", "scripts.bench", *sys.argv[1:]]),
        machine=_machine(options.effort),
        generator=name,
    )
    _note_surroundings(done, shared=server_cpu == load_cpu, python=generator is python_generator)
    if options.quick:
        done.notes.append("one short round only (--quick): the figures measure nothing")
    with contextlib.ExitStack() as running:
        progress = running.enter_context(terminal.status("starting")).update if terminal.is_terminal else terminal.print
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="sts-bench-")))
        provider = running.enter_context(Provider(options.issuer_port))
        if options.against is not None and options.token_file is None:
            terminal.print(f"tokens: iss {ISSUER}, aud {AUDIENCE}; their key set is at {provider.jwks_uri}")
        world = World(running, directory, server_cpu, load_cpu, provider, progress)
        if options.against is not None:
            world.add("peer", _peer_target(options))
        os.sched_setaffinity(0, load_cpu)
        raw = Raw(provider, server_cpu)
        raw.run()
        done.results += run(Plan(plan, options.effort, generator, raw.run), world, done.notes.append, progress)
        done.raw_us = {name: seconds * 1e6 for name, seconds in raw.seconds.items()}
        if not options.case and options.against is None:
            done.rules = [
                {"rule": rule, "size": size, "steps": steps, "ms": seconds * 1e3}
                for rule, size, steps, seconds in rules()
            ]
    return done


def _cases(options: Options) -> list[tuple[Case, tuple[int, ...]]]:
    """Choose the cases, each with its numbers of connections."""
    if options.against is not None:
        yardsticks = [(case, (USUAL,)) for case in CASES if case.name == NGINX]
        return yardsticks + [
            (case, case.connections) for case in _peer(options).cases(options.connections or _PEER_CONNECTIONS)
        ]
    known = (*CASES, *GROWTH) if options.growth or options.case else CASES
    chosen = [
        (case, options.connections or (case.more if options.full or not case.connections else case.connections))
        for case in known
        if (options.full or case.connections or options.case)
        and (not options.case or case.name == NGINX or any(text in case.name for text in options.case))
        and (options.growth or case not in GROWTH or case.name in options.case)
    ]
    if options.case and [case.name for case, _ in chosen] == [NGINX]:
        raise click.UsageError(f"No case has {' or '.join(options.case)} in its name: --list shows them.")
    return chosen


def _peer(options: Options) -> Peer:
    url = urlsplit(cast("str", options.against))
    headers = {}
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"A header is written as 'Name: value', not as {header!r}.")
        headers[name.strip()] = value.strip()
    lines = [] if options.token_file is None else options.token_file.read_text(encoding="ascii").split()
    if options.token_file is not None and not lines:
        raise click.UsageError(f"{options.token_file} has no token.")
    path = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
    return Peer(path, url.netloc, options.method, headers, options.token_header, options.statuses, tuple(lines))


def _peer_target(options: Options) -> Target:
    url = urlsplit(cast("str", options.against))
    if url.scheme != "http" or url.hostname is None:
        raise click.UsageError("--against needs an http URL, such as http://127.0.0.1:4456/decisions/orders.")
    return Target(url.hostname, url.port or 80, options.pid)


def _generator(chosen: str, terminal: Console) -> tuple[str, Generator]:
    if chosen != "python":
        missing = [server for server in (WRK, NGINX_SERVER) if find(server) is None]
        if missing:
            terminal.print(f"installing {' and '.join(server.command for server in missing)}")
            install(missing)
    program = find(WRK)
    if chosen == "python" or (program is None and chosen == "auto"):
        return "a Python thread", python_generator
    if program is None:
        raise click.ClickException("there is no wrk: install the package wrk, or choose --generator python.")
    return "wrk", Wrk(program)


def _machine(effort: Effort) -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if "model name" in line]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "fresh": effort.fresh,
    }


def _note_surroundings(done: Run, *, shared: bool, python: bool) -> None:
    before = machine_seconds()
    time.sleep(_LOOK_S)
    busy = machine_share(before, machine_seconds())
    done.machine["busy_before"] = round(busy, 3)
    if busy > _BUSY:
        done.notes.append(f"other processes used {busy:.0%} of the processors before the run: the machine was busy")
    if shared:
        done.notes.append("there is only one processor: server and load generator share it")
    if python:
        done.notes.append("there is no wrk: the Python generator limits requests/s and latencies; CPU µs are valid")
    if find(NGINX_SERVER) is None:
        done.notes.append(f"there is no nginx, so that no goal in units of {NGINX} or {CONSTANT} can be judged")


if __name__ == "__main__":
    main()
