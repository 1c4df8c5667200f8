"""What the commands of API keys share: the records in the store, whose source a key is, how texts are checked."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from sts.cli import audited, common
from sts.credentials.api_key import ApiKeySource
from sts.errors import StartError
from sts.mint.keystore import open_secret
from sts.options import parse_duration
from sts.settings import Settings
from sts.state import ConflictError, StateUnavailableError, open_state
from sts.state.key_records import LABEL, LATEST, NAMESPACE, ApiKey, KeyRecords

MAX_TEXT: Final = 256
REVOKED: Final = "revoked"

_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,256}")  # RFC 6749 §3.3

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; times are Unix seconds.")
source_option = click.option("--source", metavar="NAME", help="The source; default: the only one of type api_key.")


class Span(click.ParamType[float]):
    """A duration, as in the configuration; one of at least `least` seconds, and of an end that can be written."""

    name = "duration"

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        """Read it. Fails as click does."""
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
    """`value` where it is a printable text of bounded length. Raises ValueError."""
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"`{name}` is a printable text of at most {MAX_TEXT} characters")
    return value


def checked_scopes(values: Iterable[object]) -> tuple[str, ...]:
    """Scopes without repetition, each as RFC 6749 §3.3 writes them. Raises ValueError."""
    scopes = tuple(dict.fromkeys(checked_text("scopes", value) for value in values))
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise ValueError("a scope is visible ASCII without spaces, quotation marks and backslashes")
    return scopes


def checked_audiences(settings: Settings, source: str, names: Iterable[str]) -> tuple[str, ...]:
    """Audiences without repetition, each of which the source may reach. Raises ValueError."""
    listed = settings.sources[source].audiences or ("*",)
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in settings.audiences:
            raise ValueError(f"there is no audience {name}")
        if "*" not in listed and name not in listed:
            raise ValueError(f"the source {source} does not list the audience {name}")
    return found


def unknown_scopes(settings: Settings, scopes: Iterable[str]) -> str:
    """A sentence about those of `scopes` that no audience has, "" for none: rules may map them, so it is no fault."""
    known = {scope for audience in settings.audiences.values() for scope in audience.scopes or ()}
    unknown = [scope for scope in scopes if scope not in known]
    return f"no audience has the scope {', '.join(unknown)}: is that meant?" if unknown else ""


def prefixes(settings: Settings) -> dict[str, str]:
    """The sources of API keys, disabled ones too, and how their keys begin."""
    return {name: source.prefix for name, source in settings.sources.items() if isinstance(source, ApiKeySource)}


def source_of(settings: Settings, name: str | None) -> tuple[str, str]:
    """The name and prefix of the source of keys that is named, or of the only one; ends the command without one."""
    found = prefixes(settings)
    if not found:
        common.fail("no source of type api_key is configured: write one under `sources`")
    if name is None and len(found) > 1:
        raise click.UsageError(
            f"There are several sources of type api_key: say which with --source ({', '.join(found)})."
        )
    if name is not None and name not in found:
        raise click.UsageError(f"{name} is no source of type api_key.")
    name = name or next(iter(found))
    return name, found[name]


def audit(settings: Settings, action: str, key: ApiKey, **fields: object) -> None:
    """Write down what was done to a key: never the key itself, nor its hash."""
    what = {"credential_id": key.id, "owner": key.owner, "source": key.source, **fields}
    audited.audit(settings, NAMESPACE, action, aloud=action == REVOKED, **what)


@contextmanager
def opened(settings: Settings) -> Iterator[KeyRecords]:
    """The records in the state store; faults of the store end the command."""
    secret = open_secret(settings.given_secret(), settings.var)
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        try:
            state.check()
        except StartError as error:
            common.fail(str(error), common.EXIT_UNREACHABLE)
        yield KeyRecords(state, secret.keys(LABEL))
    except StateUnavailableError as error:
        common.fail(f"the state store cannot be used: {error}", common.EXIT_UNREACHABLE)
    except ConflictError:
        common.fail("somebody else changed this key just now: look again")
    finally:
        state.close()
