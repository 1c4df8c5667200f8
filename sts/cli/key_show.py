"""How API keys are shown: a new one once, the others in a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich import box
from rich.table import Table

from sts.cli import common
from sts.state.api_keys import ApiKey, is_over


def show_table(keys: Iterable[ApiKey], used: Mapping[str, int], now: float) -> None:
    """Print the keys, and when each was last used, for a person."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("id", "source", "owner", "tenant", "scopes", "audiences", "tier", "ends", "last used"):
        table.add_column(column, no_wrap=column == "id")
    for key in keys:
        over = is_over(key, now)
        ends = over or ("never" if key.expires_at is None else day(key.expires_at))
        last = day(used[key.id]) if key.id in used else "not seen"
        lists = (" ".join(key.scopes) or "-", " ".join(key.audiences) or "its source's", key.tier or "-")
        table.add_row(key.id, key.source, key.owner, key.tenant or "-", *lists, ends, last, style="dim" if over else "")
    common.console.print(table)
    common.console.print(f"{table.row_count} key{'' if table.row_count == 1 else 's'}")


def show_new(key: ApiKey, text: str, *, as_json: bool, replaces: str | None = None) -> None:
    """Print a key that was just made, this once."""
    if as_json:
        click.echo(json.dumps({"key": text, "id": key.id, "expires_at": key.expires_at, "replaces": replaces}))
        return
    click.echo(f"key (shown once):  {text}")
    ends = "it never expires" if key.expires_at is None else f"it expires on {day(key.expires_at)}"
    click.echo(f"id {key.id}, owner {key.owner}, source {key.source}; {ends}")
    if replaces:
        click.echo(f"{replaces} goes on working for its grace period, then ends")


def as_object(key: ApiKey, used: int | None, now: float) -> dict[str, Any]:
    """A key as `--json` shows it; times are Unix seconds."""
    names = ("id", "source", "owner", "tenant", "scopes", "audiences", "tier", "created_at", "expires_at", "revoked_at")
    return {**{name: getattr(key, name) for name in names}, "state": is_over(key, now) or "live", "last_used": used}


def day(at: float) -> str:
    """A time as its day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
