"""`sts shadow report`: summarise from the audit log what the rules on trial would have decided."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from rich import box
from rich.table import Table

from sts.cli import common
from sts.options import parse_duration
from sts.settings import printable

OUTCOMES: Final = ("deny", "error", "allow", "unknown")
"""The outcomes of a trial in the audit log (docs/audit.md)."""
MAX_ROWS: Final = 10_000
"""The maximum number of rows (audience, client, route); later ones share one row, so that memory is limited."""

_LONGEST_LINE: Final = 65_536
_LONGEST_NAME: Final = 128
_OTHERS: Final = ("(others)", "(others)", "(others)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Place = tuple[str, str, str | None]
"""Audience, client and route; None at `/token`."""


@dataclass(slots=True)
class Row:
    """One audience, client and route: the count of each outcome, and the last event that would have been denied."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    last: tuple[str, str] = ("", "")
    """The time and request id of that event."""


@dataclass(slots=True)
class Report:
    """The summary of an audit log: its rows, the number of decisions, and the number of unreadable lines."""

    rows: dict[Place, Row] = field(default_factory=dict)
    decisions: int = 0
    unreadable: int = 0

    def read(self, file: BinaryIO, audience: str | None = None, since: str = "") -> None:
        """Add the events of `file`, line by line; only those of `audience`, and from the time `since`, if given."""
        for line in _lines(file):
            event = _event(line)
            if event is None:
                self.unreadable += 1
            elif event["event"] == "decision" and event["time"] >= since:
                self.decisions += 1
                self._add(event, audience)

    def _add(self, event: dict[str, Any], audience: str | None) -> None:
        trials = event.get("shadow")
        if not isinstance(trials, dict):
            return
        for name, outcome in trials.items():
            if outcome in OUTCOMES and audience in {None, name}:
                row = self._row((name[:_LONGEST_NAME], _name(event.get("client")) or "-", _name(event.get("route"))))
                row.counts[outcome] += 1
                if outcome == "deny":  # lines may come out of order: several workers, several files
                    row.last = max(row.last, (event["time"], _name(event.get("request_id")) or "-"))

    def _row(self, place: Place) -> Row:
        if place not in self.rows and len(self.rows) >= MAX_ROWS:
            place = _OTHERS
        return self.rows.setdefault(place, Row())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; a line longer than any event is cut, and is then not valid JSON."""
    whole = True
    while line := file.readline(_LONGEST_LINE):
        if whole:
            yield line
        whole = line.endswith(b"\n")


def _event(line: bytes) -> dict[str, Any] | None:
    """Return an event of the audit log, None for another line."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    at = event.get("time")
    return event if isinstance(at, str) and _TIME.fullmatch(at) else None


def _name(value: object) -> str | None:
    return value[:_LONGEST_NAME] if isinstance(value, str) else None


@click.group()
def shadow() -> None:
    """Report on rules on trial."""


@shadow.command()
@common.config_option
@click.option("--audience", metavar="NAME", help="Only the rule of this audience.")
@click.option("--since", metavar="TIME", help='Only newer events: "7d", "12h", or a time: 2026-07-01T00:00:00Z.')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("file", type=click.Path(path_type=Path, readable=False, allow_dash=True), required=False)
def report(*, config: Path, audience: str | None, since: str | None, as_json: bool, file: Path | None) -> None:
    r"""Summarise what the rules on trial (`shadow`) would have decided.

    FILE is an audit file, or - for standard input; default: `audit.file` of the configuration. The file is read line by
    line and may have any size.

    \b
    Examples:
      sts shadow report
      sts shadow report audit.jsonl --audience orders --since 7d
      zcat -f audit.jsonl* | sts shadow report --json -

    \b
    Exit status: 0 the report was printed, 1 the audit log cannot be read, 2 usage.
    """
    begin = "" if since is None else _since(since, time.time())
    path = file or common.load(config).audit.file
    if path is None:
        raise click.UsageError("The audit log goes to standard output: name the FILE in which it was collected, or -.")
    found = Report()
    try:
        if str(path) == "-":
            found.read(sys.stdin.buffer, audience, begin)
        else:
            with path.open("rb") as opened:
                found.read(opened, audience, begin)
    except OSError as error:
        common.fail(f"the audit {path} cannot be read: {error.strerror}")
    if as_json:
        click.echo(json.dumps(_as_json(found, begin)))
    else:
        _show(found)


def _since(text: str, now: float) -> str:
    """Return the start time in the format of events; from "7d" or an RFC 3339 time."""
    try:
        begin = datetime.fromtimestamp(now - parse_duration(text), UTC)
    except (ValueError, OverflowError, OSError):
        try:
            begin = datetime.fromisoformat(text)
        except ValueError:
            begin = datetime.min  # noqa: DTZ901 - refused below, like every time without an offset
        if begin.tzinfo is None:
            raise click.UsageError('--since takes "7d", "12h" or a time such as 2026-07-01T00:00:00Z.') from None
        begin = begin.astimezone(UTC)
    return begin.strftime("%Y-%m-%dT%H:%M:%S.") + f"{begin.microsecond // 1000:03d}Z"


def _sorted(found: Report) -> list[tuple[Place, Row]]:
    """Return the rows, those with the most denials first."""
    return sorted(found.rows.items(), key=lambda one: (*(-one[1].counts[name] for name in OUTCOMES), str(one[0])))


def _as_json(found: Report, begin: str) -> dict[str, object]:
    return {
        "since": begin or None,
        "decisions": found.decisions,
        "unreadable": found.unreadable,
        "rows": [
            {
                "audience": audience,
                "client": client,
                "route": route,
                "denied": row.counts["deny"],
                "errors": row.counts["error"],
                "allowed": row.counts["allow"],
                "unknown": row.counts["unknown"],
                "last_denied": {"time": row.last[0], "request_id": row.last[1]} if row.last[0] else None,
            }
            for (audience, client, route), row in _sorted(found)
        ],
    }


def _show(found: Report) -> None:
    if found.rows:
        table = Table(box=box.SIMPLE_HEAD if common.console.is_terminal else None, pad_edge=False)
        for column in ("audience", "client", "route"):
            table.add_column(column)
        for column in ("denied", "error", "allowed", "unknown"):
            table.add_column(column, justify="right")
        table.add_column("last denied")
        for (audience, client, route), row in _sorted(found):
            names = [printable(one) for one in (audience, client, route or "-")]
            counts = [str(row.counts[name]) for name in OUTCOMES]
            table.add_row(*names, *counts, printable(" ".join(row.last).strip()))
        common.console.print(table)
    else:
        click.echo(f"no rule was on trial in {found.decisions} decisions")
    if found.unreadable:
        click.echo(f"{found.unreadable} lines are not audit events", err=True)
