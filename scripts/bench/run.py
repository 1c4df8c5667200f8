"""The run: cases in turns, round after round, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from scripts.bench.cases import Case, get
from scripts.bench.figures import Result
from scripts.bench.load import Generator, Order, Target, ask, measure, memory_mb
from scripts.bench.world import MissingError, World

_PATIENCE_S: Final = 10.0
_WARM_UP: Final = 50
_MINTED: Final = re.compile(rb"\r\n[Aa]uthorization: Bearer ([^\r]+)\r\n")
_DECISION: Final = re.compile(r'^sts_decisions_total\{cached="(\w+)",.*\} ([0-9.e+]+)$', re.MULTILINE)


@dataclass(frozen=True)
class Effort:
    """How much to measure: rounds, whole seconds of a case in a round, requests of a `fresh` case in a round."""

    rounds: int = 3
    seconds: int = 1
    fresh: int = 1500


@dataclass
class _Prepared:
    case: Case
    target: Target
    requests: list[bytes]
    minted_bytes: int | None
    decided: dict[str, float] = field(default_factory=lambda: {"true": 0.0, "false": 0.0})


@dataclass(frozen=True)
class Plan:
    """What to measure: each case with its numbers of connections."""

    cases: Sequence[tuple[Case, tuple[int, ...]]]
    effort: Effort
    generator: Generator
    between: Callable[[], None] = lambda: None
    """Is called after each round."""


def run(plan: Plan, world: World, note: Callable[[str], None], progress: Callable[[str], None]) -> Iterator[Result]:
    """Measure; `note` receives what the reader of the table has to know, `progress` a line about each step.

    Raises RuntimeError if a server fails or answers with another status than the case expects.
    """
    prepared: list[_Prepared] = []
    for case, _ in plan.cases:
        try:
            prepared.append(_prepare(case, world, plan, progress))
        except MissingError as error:
            note(f"{case.name}: not measured, {error}")
    results = {
        (one.case.name, connections): Result(
            one.case.name,
            connections,
            idle_mb=world.idle_mb.get(one.case.server),
            minted_bytes=one.minted_bytes,
        )
        for one in prepared
        for case, counts in plan.cases
        if case is one.case
        for connections in counts
    }
    for number in range(1, plan.effort.rounds + 1):
        for one in prepared:
            for (name, connections), result in results.items():
                if name == one.case.name:
                    progress(f"round {number} of {plan.effort.rounds}: {name}, {connections} connections")
                    _measure(one, world, plan, result, connections)
        plan.between()
    yield from results.values()


def _prepare(case: Case, world: World, plan: Plan, progress: Callable[[str], None]) -> _Prepared:
    """Start the server, prove that the case gets its status, and warm up connections, caches and code."""
    target = world.target(case.server)
    progress(f"preparing: {case.name}")
    requests = case.requests(world, _WARM_UP)
    minted = _prove(case, target, requests[-1])
    plan.generator(target, Order(requests[:-1] or requests, 16, None))
    return _Prepared(case, target, requests, minted)


def _prove(case: Case, target: Target, request: bytes) -> int | None:
    """Ask once; return the size of the token in the answer's `Authorization`, None if it has none."""
    end = time.monotonic() + _PATIENCE_S
    status, answer = ask(target, request)
    while status != case.status and time.monotonic() < end:  # workers follow a new API key within seconds
        time.sleep(0.2)
        status, answer = ask(target, request)
    if status != case.status:
        raise RuntimeError(f"{case.name}: the answer is {status}, {case.status} was expected:\n{answer[:1000]!r}")
    found = _MINTED.search(answer)
    return None if found is None else len(found[1])


def _measure(one: _Prepared, world: World, plan: Plan, result: Result, connections: int) -> None:
    case, effort = one.case, plan.effort
    requests = case.requests(world, effort.fresh) if case.fresh else one.requests
    order = Order(requests, connections, None if case.fresh else effort.seconds)
    counted = case.server in world.services
    before = decisions(one.target) if counted else {}
    try:
        result.rounds.append(measure(plan.generator, one.target, order, case.status))
    except RuntimeError as error:
        raise RuntimeError(f"{case.name}, {connections} connections: {error}") from None
    if counted:
        for cached, count in decisions(one.target).items():
            one.decided[cached] = one.decided.get(cached, 0.0) + count - before.get(cached, 0.0)
        whole = sum(one.decided.values())
        result.cached = one.decided["true"] / whole if whole else None
    if one.target.pid is not None:
        result.memory_mb = memory_mb(one.target.pid)


def decisions(target: Target) -> dict[str, float]:
    """Return how many decisions the service counts so far, by whether the cache answered them."""
    _, answer = ask(target, get("/metrics", {"Host": "sts"}))
    found: dict[str, float] = {}
    for cached, count in _DECISION.findall(answer.decode()):
        found[cached] = found.get(cached, 0.0) + float(count)
    return found
