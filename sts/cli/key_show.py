"""How API keys are shown: a new one once, the others in a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich import box
from rich.table import Table

from sts.cli import common
from sts.state.key_records import ApiKey, is_over

_TOLD: Final = (
    *("id", "source", "owner", "tenant", "scopes", "audiences", "tier"),
    *("created_at", "expires_at", "revoked_at", "replaced_by", "imported"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known beside the records: when each key was last used, by id; the sources that there are; the time."""

    used: Mapping[str, int]
    sources: Collection[str]
    now: float

    def state(self, key: ApiKey) -> str:
        """What a key is: `live`, `replaced` (it ends by itself), `no_source`, `expired` or `revoked`."""
        if over := is_over(key, self.now):
            return over
        if key.source not in self.sources:
            return "no_source"
        return "live" if key.replaced_by is None else "replaced"

    def as_object(self, key: ApiKey) -> dict[str, Any]:
        """A key as `--json` shows it; times are Unix seconds."""
        return {
            **{name: getattr(key, name) for name in _TOLD},
            "state": self.state(key),
            "last_used": self.used.get(key.id),
        }


def show_table(keys: Iterable[ApiKey], shown: Shown) -> None:
    """Print the keys for a person."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("id", "source", "owner", "tenant", "scopes", "audiences", "tier", "ends", "last used"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for key in keys:
        state = shown.state(key)
        ends = "never" if key.expires_at is None else day(key.expires_at)
        ends = {"live": ends, "replaced": f"{ends} replaced", "no_source": "no source"}.get(state, state)
        last = day(shown.used[key.id]) if key.id in shown.used else "not seen"
        lists = (" ".join(key.scopes) or "-", " ".join(key.audiences) or "its source's", key.tier or "-")
        style = "" if state in {"live", "replaced"} else "dim"
        table.add_row(key.id, key.source, key.owner, key.tenant or "-", *lists, ends, last, style=style)
    common.console.print(table)
    common.console.print(f"{table.row_count} key{'' if table.row_count == 1 else 's'}")


def show_new(key: ApiKey, text: str, *, as_json: bool, replaces: ApiKey | None = None) -> None:
    """Print a key that was just made, this once."""
    if as_json:
        made = {"key": text, "id": key.id, "expires_at": key.expires_at}
        old = {"replaces": replaces.id, "replaced_ends_at": replaces.expires_at} if replaces else {}
        click.echo(json.dumps(made | old))
        return
    click.echo(f"key (shown once):  {text}")
    ends = "it never expires" if key.expires_at is None else f"it expires on {day(key.expires_at)}"
    click.echo(f"id {key.id}, owner {key.owner}, source {key.source}; {ends}")
    if replaces is not None and replaces.expires_at is not None:
        click.echo(f"{replaces.id} works until {_minute(replaces.expires_at)}")


def day(at: float) -> str:
    """A time as its day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
