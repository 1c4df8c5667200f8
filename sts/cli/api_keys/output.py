"""Common parts of the API key commands: opening the store, options, checks of texts, output."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Final

import click
from rich import box
from rich.table import Table

from sts.cli import audited, common
from sts.cli.state import warn_of_loss
from sts.credentials.api_key import key_prefixes
from sts.errors import StartError
from sts.mint.keystore import open_secret
from sts.options import parse_duration
from sts.settings import Settings
from sts.state import ConflictError, StateUnavailableError, open_state
from sts.state.key_records import LABEL, LATEST, NAMESPACE, ApiKey, KeyRecords, is_over
from sts.state.state import BATCH

MAX_TEXT: Final = 256
REVOKED: Final = "revoked"

_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,256}")  # RFC 6749 §3.3

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; times are Unix seconds.")
source_option = click.option("--source", metavar="NAME", help="The source; default: the only one of type api_key.")


class Span(click.ParamType[float]):
    """A duration as in the configuration, of at least `least` seconds, and ending before the year 10000."""

    name = "duration"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Return the duration in seconds. Raises click.BadParameter."""
        if isinstance(value, float):
            return value
        try:
            span = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= span <= LATEST - time.time():
            self.fail("it must end in the future, and before the year 10000", param, ctx)
        return span


def checked_text(name: str, value: object) -> str:
    """Return `value` if it is a printable text of limited length. Raises ValueError."""
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"`{name}` is a printable text of at most {MAX_TEXT} characters")
    return value


def checked_scopes(values: Iterable[object]) -> tuple[str, ...]:
    """Return the scopes without duplicates, each valid by RFC 6749 §3.3. Raises ValueError."""
    scopes = tuple(dict.fromkeys(checked_text("scopes", value) for value in values))
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise ValueError("a scope is visible ASCII without spaces, quotation marks and backslashes")
    return scopes


def checked_audiences(settings: Settings, source: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the audiences without duplicates, each allowed for the source. Raises ValueError."""
    listed = settings.sources[source].audiences or ("*",)
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in settings.audiences:
            raise ValueError(f"there is no audience {name}")
        if "*" not in listed and name not in listed:
            raise ValueError(f"the source {source} does not list the audience {name}")
    return found


def unknown_scopes(settings: Settings, scopes: Iterable[str]) -> str:
    """Return a warning about scopes that no audience has, or "". It is no fault, because rules may map them."""
    known = {scope for audience in settings.audiences.values() for scope in audience.scopes or ()}
    unknown = [scope for scope in scopes if scope not in known]
    return f"no audience has the scope {', '.join(unknown)}: is that meant?" if unknown else ""


def prefixes(settings: Settings) -> dict[str, str]:
    """Return the prefixes of all sources of API keys, also of disabled ones, by name."""
    return key_prefixes(settings.sources)


def source_of(settings: Settings, name: str | None) -> tuple[str, str]:
    """Return the name and prefix of the named source, or of the only one; ends the command if there is none."""
    found = prefixes(settings)
    if not found:
        common.fail("no source of type api_key is configured: write one under `sources`")
    if name is None and len(found) > 1:
        raise click.UsageError(
            f"There are several sources of type api_key: choose one with --source ({', '.join(found)})."
        )
    if name is not None and name not in found:
        raise click.UsageError(f"{name} is not a source of type api_key.")
    name = name or next(iter(found))
    return name, found[name]


def audit(settings: Settings, action: str, *keys: ApiKey, **fields: object) -> None:
    """Write an audit event of what was done to each key: never the key itself, nor its hash."""
    what = [{"credential_id": key.id, "owner": key.owner, "source": key.source, **fields} for key in keys]
    audited.audit_each(settings, NAMESPACE, action, what, aloud=action == REVOKED)


@contextmanager
def opened(settings: Settings) -> Iterator[KeyRecords]:
    """Open the records in the state store; a fault of the store ends the command."""
    secret = open_secret(settings.given_secret(), settings.var)
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        try:
            state.check()
        except StartError as error:
            common.fail(str(error), common.EXIT_UNREACHABLE)
        warn_of_loss(settings, state)
        yield KeyRecords(state, secret.keys(LABEL))
    except StateUnavailableError as error:
        common.fail(f"the state store cannot be used: {error}", common.EXIT_UNREACHABLE)
    except ConflictError:
        common.fail("another process changed this key just now: try again")
    finally:
        state.close()


_TOLD: Final = (
    *("id", "source", "owner", "tenant", "scopes", "audiences", "tier"),
    *("created_at", "expires_at", "revoked_at", "replaced_by", "imported"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The data for the output of keys: the last use of each key by id, the existing sources, and the time."""

    used: dict[str, int]
    sources: Collection[str]
    now: float

    def state(self, key: ApiKey) -> str:
        """Return the state of a key: `live`, `replaced` (it will expire), `no_source`, `expired` or `revoked`."""
        if over := is_over(key, self.now):
            return over
        if key.source not in self.sources:
            return "no_source"
        return "live" if key.replaced_by is None else "replaced"

    def as_object(self, key: ApiKey) -> dict[str, Any]:
        """Return a key for `--json`; times are Unix seconds."""
        return {
            **{name: getattr(key, name) for name in _TOLD},
            "state": self.state(key),
            "last_used": self.used.get(key.id),
        }


_COLUMNS: Final = ("id", "source", "owner", "tenant", "scopes", "audiences", "tier", "ends", "last used")


def show_table(keys: Iterable[ApiKey], shown: Shown) -> None:
    """Print the keys as a table."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    keys = iter(keys)
    first = list(islice(keys, BATCH + 1))
    if len(first) > BATCH:
        count = common.write_columns(_COLUMNS, (_row(key, shown) for key in chain(first, keys)))
    else:
        for key in first:
            table.add_row(*_row(key, shown), style="" if shown.state(key) in {"live", "replaced"} else "dim")
        common.console.print(table)
        count = len(first)
    common.console.print(f"{count} key{'' if count == 1 else 's'}")


def _row(key: ApiKey, shown: Shown) -> tuple[str, ...]:
    state = shown.state(key)
    ends = "never" if key.expires_at is None else day(key.expires_at)
    ends = {"live": ends, "replaced": f"{ends} replaced", "no_source": "no source"}.get(state, state)
    last = day(shown.used[key.id]) if key.id in shown.used else "not seen"
    lists = (" ".join(key.scopes) or "-", " ".join(key.audiences) or "its source's", key.tier or "-")
    return key.id, key.source, key.owner, key.tenant or "-", *lists, ends, last


def show_new(key: ApiKey, text: str, *, as_json: bool, replaces: ApiKey | None = None) -> None:
    """Print a new key; it is not printed again."""
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
    """Return the day of a time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
