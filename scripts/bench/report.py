"""What a run comes to: tables on the terminal, the dated files, the picture, and the figures in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from rich import box
from rich.console import Console
from rich.table import Table

from scripts.bench.figures import CONSTANT, GOALS, NGINX, USUAL, UTILIZATION, Result, Run, requests_per_core

ROOT: Final = Path(__file__).resolve().parent.parent.parent
RESULTS: Final = ROOT / "bench" / "results"
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "performance.svg"
BEGIN: Final = "<!-- figures: written by `python -m scripts.bench --docs` -->"
END: Final = "<!-- end of the figures -->"
_NONE: Final = "-"
_COLUMNS: Final = ("case", "conn.", "CPU µs", "x nginx", "requests/s", "p50 ms", "p99 ms", "MB", "cached")
_SHARES: Final = (0.001, 0.01, 0.05, 0.2)
_LOADS: Final = (1_000, 5_000, 20_000)
_SWITCHES: Final = (
    ("`/token` instead of forward-auth, hit", "hit /token", "hit forward-auth"),
    ("`/token` instead of forward-auth, miss", "miss /token", "miss forward-auth"),
    ("1 000 tokens in use instead of one", "1 000 tokens forward-auth", "hit forward-auth"),
    ("100 000 tokens in use instead of one", "100 000 tokens forward-auth", "hit forward-auth"),
    ("`keys.algorithm: Ed25519` instead of ES256, miss", "miss to Ed25519", "miss forward-auth"),
    ("`format: jwe`, miss", "miss to JWE", "miss forward-auth"),
    ("`reuse: unique` instead of a hit", "reuse: unique", "hit forward-auth"),
    ("an API key instead of a JWT, hit", "API key", "hit forward-auth"),
    ("an opaque token instead of a JWT, hit", "introspected hit", "hit forward-auth"),
    ("an opaque token instead of a JWT, miss", "introspected miss", "miss forward-auth"),
    ("a token of 16 KB and a rule over its 690 groups, miss at `/token`", "miss, 16 KB token", "miss /token"),
    ("10 000 sources, audiences, routes and clients, hit", "hit forward-auth, 10 000 of each", "hit forward-auth"),
    (
        "the same with 200 000 revocations, miss",
        "miss forward-auth, 10 000 of each",
        "miss forward-auth",
    ),
)


def number(value: float | None, digits: int = 1) -> str:
    """Write a figure with about three significant digits, thousands with spaces; `-` for None."""
    if value is None:
        return _NONE
    return f"{value:,.{digits if abs(value) < 100 else 0}f}".replace(",", " ")


def row(run: Run, result: Result) -> list[str]:
    """Return a result as the cells of the table."""
    cached = _NONE if result.cached is None else f"{result.cached:.0%}"
    return [
        result.case,
        str(result.connections),
        number(result.cpu_us),
        number(run.ratio(result.case, NGINX, result.connections)),
        number(result.median("per_second")),
        number(result.median("p50_ms"), 2),
        number(result.median("p99_ms"), 2),
        number(result.memory_mb, 0),
        cached,
    ]


def goals(run: Run) -> Iterator[list[str]]:
    """Yield each goal as cells: what, limit, measured, met or not."""
    for goal in GOALS:
        value = goal.measure(run)
        verdict = {True: "met", False: "not met", None: "not measured"}[goal.met(value)]
        yield [goal.text, f"{number(goal.limit, 2)} {goal.unit}", number(value, 2), verdict]


def sentences(run: Run) -> Iterator[str]:
    """Yield what else was measured: the raw cryptography, rules, notes."""
    for name, microseconds in run.raw_us.items():
        yield f"raw {name}: {number(microseconds)} µs"
    miss, constant = run.cpu("miss forward-auth"), run.cpu(CONSTANT)
    needed = [run.raw_us.get(name) for name in ("verify RS256", "sign ES256")]
    if miss is not None and constant is not None and all(needed):
        share = sum(one for one in needed if one) / miss
        yield f"a miss spends {share:.0%} of its processor time on cryptography, and {constant / miss:.0%} on HTTP"
    for rule in run.rules:
        yield f"rule {rule['rule']} over a {rule['size']}: at most {rule['steps']} steps, {rule['ms']:.1f} ms"
    for note in run.notes:
        yield f"note: {note}"


def show(run: Run, console: Console) -> None:
    """Print the tables."""
    console.print(head(run))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "case" else "right", overflow="fold")
    for result in run.results:
        table.add_row(*row(run, result))
    console.print(table)
    if any(goal.measure(run) is not None for goal in GOALS):
        verdicts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("goal", "at most", "measured", ""):
            verdicts.add_column(name)
        for cells in goals(run):
            verdicts.add_row(*cells)
        console.print(verdicts)
    for sentence in sentences(run):
        console.print(sentence)


def head(run: Run) -> str:
    """Say where and how the figures were measured."""
    machine = run.machine
    return (
        f"{run.date}, `{run.command}`, {machine['cpu']}, {machine['processors']} processors, "
        f"Python {machine['python']}; load by {run.generator}; "
        f"medians of {machine['rounds']} round(s); one worker pinned to one processor"
    )


def markdown(run: Run) -> str:
    """Return the run as Markdown, for the dated file."""
    parts = [f"# Benchmark of {run.date}", head(run) + ".", _table(_COLUMNS, [row(run, one) for one in run.results])]
    parts += ["## Goals", _table(("goal", "at most", "measured", ""), goals(run)), "## Beside"]
    parts.append("\n".join(f"- {sentence}" for sentence in sentences(run)))
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def save(run: Run, directory: Path = RESULTS) -> Path:
    """Write the run as JSON, Markdown and SVG, named by its date; return the JSON's path."""
    directory.mkdir(parents=True, exist_ok=True)
    name = run.date.replace(":", "").replace(" ", "-")
    path = directory / f"{name}.json"
    path.write_text(run.as_json(), encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(run), encoding="utf-8")
    path.with_suffix(".svg").write_text(picture(run), encoding="utf-8")
    return path


def newest(directory: Path = RESULTS) -> Path:
    """Return the newest result. Raises FileNotFoundError if there is none."""
    found = sorted(directory.glob("*.json"))
    if not found:
        raise FileNotFoundError(f"there is no result in {directory}: `make bench ARGS='--full --save'` makes one")
    return found[-1]


def documented(run: Run, page: str) -> str:
    """Return docs/performance.md with this run's figures. Raises ValueError if the page does not have their place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{_figures(run)}\n\n{end}{after}"


def _figures(run: Run) -> str:
    parts = [f"{head(run)}.", *(f"**{note[0].upper()}{note[1:]}.**" for note in run.notes)]
    parts += ["![Processor time per request, by case](performance.svg)"]
    parts += [_table(_COLUMNS[:-1], [row(run, one)[:-1] for one in run.results])]
    parts += ["### Cores", *_capacity(run)]
    parts += ["### What each switch costs", "Processor time of one request, beside the case without the switch:"]
    parts += [_table(("switch", "CPU µs", "without", "difference"), _switches(run))]
    parts += ["### Goals", "A goal is a ratio to nginx, so that any machine can judge it."]
    parts += [_table(("goal", "at most", "measured", ""), goals(run))]
    return "\n\n".join(parts)


def _capacity(run: Run) -> Iterator[str]:
    yield (
        f"Cores for forward-auth, with each core {UTILIZATION:.0%} busy. The share of misses is about the number of"
        " tokens that are in use, divided by the requests within the life of a minted token."
    )
    rows = []
    for share in _SHARES:
        each = requests_per_core(run, share)
        if each is not None:
            cores = [str(max(1, -int(-load // each))) for load in _LOADS]
            rows.append([f"{share:.1%}", number(each, 0), *cores])
    yield _table(("misses", "requests/s per core", *(f"cores for {number(load)}/s" for load in _LOADS)), rows)


def _switches(run: Run) -> Iterator[list[str]]:
    for text, case, without in _SWITCHES:
        used, usual = run.cpu(case), run.cpu(without)
        if used is not None and usual is not None:
            yield [text, number(used), number(usual), f"{used - usual:+.0f}"]


_WIDTH: Final = 860
_LEFT: Final = 290
_BAR: Final = 18
_GAP: Final = 8
_TOP: Final = 56


def picture(run: Run) -> str:
    """Return an SVG: one bar for each case at the usual number of connections, as long as its processor time."""
    cases = [(one.case, one.cpu_us) for one in run.results if one.connections == USUAL and one.cpu_us is not None]
    bars = [(name, value) for name, value in cases if value is not None]
    bars += [(f"raw {name}", value) for name, value in run.raw_us.items()]
    most = max((value for _, value in bars), default=1.0)
    height = _TOP + len(bars) * (_BAR + _GAP) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif"',
        f' viewBox="0 0 {_WIDTH} {height}" font-size="13" role="img" aria-labelledby="title">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text id="title" x="12" y="22" font-size="15">Processor time per request in µs, {USUAL} connections</text>',
        f'<text x="12" y="42" fill="#555555">{escape(run.date)}, {escape(str(run.machine["cpu"]))}</text>',
    ]
    for place, (name, value) in enumerate(bars):
        top = _TOP + place * (_BAR + _GAP)
        width = max(1.0, value / most * (_WIDTH - _LEFT - 80))
        color = "#9aa5b1" if name in {NGINX, CONSTANT} or name.startswith("raw ") else "#2b6cb0"
        lines += [
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{color}"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{top + 14}">{number(value)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
