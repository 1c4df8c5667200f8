"""The arithmetic of the benchmark: medians over rounds, ratios to the yardsticks, goals, capacity. No I/O."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

NGINX: Final = "nginx constant"
CONSTANT: Final = "protocol constant"
USUAL: Final = 16
"""The number of connections at which cases are compared."""
UTILIZATION: Final = 0.6
"""Which share of a core is planned with: beyond it requests begin to queue."""
_LINE: Final = "figures "


@dataclass(frozen=True)
class Load:
    """What a load generator saw in one run: answers, seconds, latencies; answers that did not come; statuses >= 400."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Round:
    """One case in one round; `cpu_us` is None where the server's process is not known."""

    cpu_us: float | None
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass
class Result:
    """One case at one number of connections: its rounds, and the server's memory after the last one."""

    case: str
    connections: int
    rounds: list[Round] = field(default_factory=list)
    memory_mb: float | None = None
    cached: float | None = None
    """The share of decisions that the cache answered, by the service's own count."""
    idle_mb: float | None = None
    """The server's memory before its first request."""
    minted_bytes: int | None = None
    """The size of the token in an answer of the forward-auth door."""

    @property
    def cpu_us(self) -> float | None:
        """Microseconds of processor time per answer, user and system, of all processes of the server: the median."""
        found = [one.cpu_us for one in self.rounds if one.cpu_us is not None]
        return statistics.median(found) if found else None

    def median(self, name: str) -> float:
        """Return the median of `per_second`, `p50_ms` or `p99_ms` over the rounds."""
        return float(statistics.median(getattr(one, name) for one in self.rounds))


@dataclass
class Run:
    """A whole run, as the JSON file has it."""

    date: str
    command: str
    machine: dict[str, Any]
    generator: str
    results: list[Result] = field(default_factory=list)
    raw_us: dict[str, float] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, case: str, connections: int = USUAL) -> Result | None:
        """Return a case's result; None if it was not measured."""
        return next((one for one in self.results if (one.case, one.connections) == (case, connections)), None)

    def cpu(self, case: str, connections: int = USUAL) -> float | None:
        """Return a case's median processor time in microseconds; None if it was not measured."""
        found = self.find(case, connections)
        return None if found is None else found.cpu_us

    def ratio(self, case: str, to: str, connections: int = USUAL) -> float | None:
        """Return the processor time of a case in units of another case; None if either was not measured."""
        above, below = self.cpu(case, connections), self.cpu(to)
        return None if above is None or not below else above / below

    def as_json(self) -> str:
        """Return the run as JSON: each case with its medians and its rounds, and the goals."""
        whole = asdict(self)
        for written, result in zip(whole["results"], self.results, strict=True):
            medians = {name: result.median(name) for name in ("per_second", "p50_ms", "p99_ms")}
            written["median"] = {"cpu_us": result.cpu_us, **medians}
        whole["goals"] = [
            {"goal": goal.text, "limit": goal.limit, "measured": value, "met": goal.met(value)}
            for goal in GOALS
            for value in (goal.measure(self),)
        ]
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Read what `as_json` wrote. Raises ValueError for anything else."""
        try:
            whole = json.loads(text)
            del whole["goals"]
            for written in whole["results"]:
                del written["median"]
                written["rounds"] = [Round(**one) for one in written["rounds"]]
            return cls(**{**whole, "results": [Result(**one) for one in whole["results"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no result of the benchmark: {error!r}") from None


def parse_wrk(output: str) -> Load:
    """Read the line that load.lua writes at the end of a run. Raises ValueError with wrk's output if there is none."""
    for line in output.splitlines():
        if line.startswith(_LINE):
            return Load(**json.loads(line.removeprefix(_LINE)))
    raise ValueError(f"wrk printed no figures:\n{output[-2000:]}")


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed. Raises ValueError if there are none."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there are no values")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Goal:
    """An upper limit for one figure. `measure` returns None where the run does not have it."""

    text: str
    limit: float
    unit: str
    measure: Callable[[Run], float | None]

    def met(self, value: float | None) -> bool | None:
        """Return whether the value is within the limit; None if it was not measured."""
        return None if value is None else value <= self.limit


def _to_nginx(case: str) -> Callable[[Run], float | None]:
    return lambda run: run.ratio(case, NGINX)


def _p99(case: str, connections: int) -> Callable[[Run], float | None]:
    def measure(run: Run) -> float | None:
        found = run.find(case, connections)
        return None if found is None else found.median("p99_ms")

    return measure


def _growth(case: str) -> Callable[[Run], float | None]:
    return lambda run: run.ratio(f"{case}, 10 000 of each", case)


def _beside_token(run: Run) -> float | None:
    """Return the bytes that the server keeps for a cached token beside the token itself."""
    found = run.find("100 000 tokens forward-auth")
    if found is None or found.memory_mb is None or found.idle_mb is None or found.minted_bytes is None:
        return None
    return (found.memory_mb - found.idle_mb) * 1e6 / 100_000 - found.minted_bytes


# Ratios instead of microseconds, so that another machine can judge: nginx's constant cost 9.3 µs where they were set.
GOALS: Final[Sequence[Goal]] = (
    Goal("hit at forward-auth", 6, "x nginx", _to_nginx("hit forward-auth")),
    Goal("hit at /token", 7.5, "x nginx", _to_nginx("hit /token")),
    Goal("miss at forward-auth", 27, "x nginx", _to_nginx("miss forward-auth")),
    Goal("refusal", 16, "x nginx", _to_nginx("refusal forward-auth")),
    Goal("repeated refusal", 6.5, "x nginx", _to_nginx("repeated refusal forward-auth")),
    Goal("p99 of hits, 128 connections", 20, "ms", _p99("hit forward-auth", 128)),
    Goal("p99 of misses, 128 connections", 60, "ms", _p99("miss forward-auth", 128)),
    Goal("memory of a cached token beside its own size", 600, "B", _beside_token),
    Goal("hit with 10 000 sources, audiences, routes, clients", 1.15, "x small", _growth("hit forward-auth")),
    Goal("miss with 10 000 sources, audiences, routes, clients", 1.15, "x small", _growth("miss forward-auth")),
)


def requests_per_core(run: Run, misses: float, door: str = "forward-auth") -> float | None:
    """Return how many requests a second one core is planned with, if the share `misses` of them are misses."""
    hit, miss = run.cpu(f"hit {door}"), run.cpu(f"miss {door}")
    if hit is None or miss is None:
        return None
    return UTILIZATION * 1e6 / (hit * (1 - misses) + miss * misses)


def machine_share(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the share of processor time that was not idle between two readings of `idle` and `all` (seconds)."""
    passed = after["all"] - before["all"]
    return 0.0 if passed <= 0 else 1 - (after["idle"] - before["idle"]) / passed
