"""`sts revoke` and `sts revocations`: revoke credentials and tokens, and list revocations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, cast

import click
from rich import box
from rich.table import Table

from sts.audit.log import LABEL
from sts.cli import common
from sts.cli.audited import audit
from sts.cli.state import warn_of_loss
from sts.credentials.api_key import key_prefixes
from sts.errors import StartError
from sts.mint.keystore import open_secret
from sts.options import parse_duration, show_duration
from sts.settings import Settings
from sts.state import State, StateUnavailableError, open_state
from sts.state.revocations import DEFAULT_LIFE_S, HASH, NAMESPACE, Kind, Revocation, essence, listed, name_of, planned
from sts.state.revocations import revoke as record
from sts.state.state import BATCH

_MAX_REASON = 200


class _Life(click.ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return a duration, as in the configuration, in seconds."""
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@common.config_option
@click.option(
    "--subject", metavar="S", help="Everything of this subject: `sub` as we mint it, or its hash in the audit."
)
@click.option("--sid", metavar="SID", help="Everything of this session of a user, by the claim `sid`.")
@click.option("--jti", metavar="JTI", help="One token, inbound or minted, by its `jti`.")
@click.option(
    "--credential", type=click.File("rb"), metavar="FILE", help="One credential; - reads it from standard input."
)
@click.option("--credential-hash", metavar="HASH", help="One credential, by its hash in the audit.")
@click.option("--client", metavar="ID", help="Everything that was minted for this client so far.")
@click.option("--source", metavar="NAME", help="Everything of this source; with --subject, --sid: the source's value.")
@click.option("--reason", default="", metavar="TEXT", help="A reason, which the list of revocations shows.")
@click.option(
    "--for", "life", type=_Life(), default=DEFAULT_LIFE_S, metavar="DURATION", help="How long it is kept; default: 30d."
)
@click.option("--dry-run", is_flag=True, help="Print what would be recorded, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; times are Unix seconds.")
def revoke(  # noqa: PLR0913 - the options of the command line
    *,
    config: Path,
    subject: str | None,
    sid: str | None,
    jti: str | None,
    credential: BinaryIO | None,
    credential_hash: str | None,
    client: str | None,
    source: str | None,
    reason: str,
    life: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    r"""Revoke what was issued up to now, on every worker within a second.

    A subject, a session, a client or a source is accepted again with a credential that was issued afterwards. One token
    or one credential stays refused. Keep the revocation (--for) longer than the lifetime of the revoked credentials.
    Backends accept issued tokens until their `exp`.

    \b
    Examples:
      sts revoke --subject alice --reason 'laptop stolen'
      sts revoke --credential leaked.jwt
      sts revoke --source partner --subject 4711 --for 7d

    \b
    Exit status: 0 recorded, 1 refused or faulty, 2 usage, 3 the state cannot be reached.
    """
    if credential_hash is not None and not HASH.fullmatch(credential_hash):
        raise click.UsageError("The hash of a credential has the format of the audit log: hmac:…")
    found = credential_hash if credential is None else essence(common.read_text(credential, "the credential"))
    kind, value = _what(subject=subject, sid=sid, jti=jti, credential=found, client=client, source=source)
    if len(reason) > _MAX_REASON:
        raise click.UsageError(f"A reason has at most {_MAX_REASON} characters.")
    settings = common.load(config)
    _known(settings, client, source)
    name = name_of(open_secret(settings.given_secret(), settings.var).key(LABEL), kind, value, source or "")
    now, state = time.time(), _open(settings)
    try:
        done = planned(state, name, now, life, reason) if dry_run else record(state, name, now, life, reason)
    except StateUnavailableError as error:
        common.fail(str(error), common.EXIT_UNREACHABLE)
    finally:
        state.close()
    if not dry_run:
        audit(settings, NAMESPACE, "revoked", aloud=True, **done.as_json())
    if _concerns_keys(settings, kind, value, source):
        common.console_err.print(
            "note: the API keys concerned are valid again after that time: `sts api-keys revoke` is permanent"
        )
    if as_json:
        click.echo(json.dumps({"done": not dry_run, **done.as_json()}))
    else:
        said = "would be revoked" if dry_run else "revoked"
        click.echo(f"{done.name}: {said}, kept for {show_duration(round(done.until - now))}")


def _what(**given: str | None) -> tuple[Kind, str]:
    """Return the kind and value of the one revoked thing; `--source` with a subject or session means its value."""
    source = given.pop("source")
    named = [(kind, value) for kind, value in given.items() if value is not None]
    if source is not None and not named:
        return "source", source
    if len(named) != 1 or not named[0][1]:
        raise click.UsageError("Name one of --subject, --sid, --jti, --credential, --client, --source.")
    kind, value = named[0]
    if source is not None:
        if kind not in {"subject", "sid"}:
            raise click.UsageError("--source is used alone, or with --subject or --sid.")
        kind = f"source_{kind}"
    return cast("Kind", kind), value


def _concerns_keys(settings: Settings, kind: Kind, value: str, source: str | None) -> bool:
    """Return whether the revocation may concern API keys, which may live longer than a revocation is kept."""
    keys = key_prefixes(settings.sources)
    if kind == "credential":
        return value.startswith(tuple(keys.values()))
    return source in keys or (kind == "subject" and bool(keys))


def _known(settings: Settings, client: str | None, source: str | None) -> None:
    """Refuse an unknown client or source: with a typing error, the command would seem to succeed."""
    if client is not None and client not in settings.clients:
        raise click.UsageError(f"There is no client {client}.")
    if source is not None and source not in settings.sources:
        raise click.UsageError(f"There is no source {source}.")


def _open(settings: Settings) -> State:
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        state.check()
        warn_of_loss(settings, state)
    except (StateUnavailableError, StartError) as error:  # such as a Redis that evicts
        common.fail(str(error), common.EXIT_UNREACHABLE)
    return state


@click.group()
def revocations() -> None:
    """Show the revocations."""


@revocations.command("list")
@common.config_option
@common.limit_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; times are Unix seconds.")
def list_revocations(*, config: Path, limit: int | None, as_json: bool) -> None:
    r"""List what is revoked and until when that is kept.

    Subjects, sessions and credentials are shown as hashes, as in the audit log.

    \b
    Examples:
      sts revocations list
      sts revocations list --json | jq '.revocations[].what'

    \b
    Exit status: 0 done, 1 faulty, 2 usage, 3 the state cannot be reached.
    """
    settings = common.load(config)
    open_secret(settings.given_secret(), settings.var)  # with a wrong `var` the list would be empty
    state = _open(settings)
    try:
        found: Iterator[Revocation] = islice(listed(state), limit)
        first = list(islice(found, BATCH + 1))
        found = chain(first, found)
        if as_json:
            click.echo(f'{{\n "{NAMESPACE}": ', nl=False)
            common.write_json_list((one.as_json() for one in found), indent=2)
            click.echo("\n}")
        elif not first:
            click.echo("nothing is revoked")
        elif len(first) > BATCH:
            common.write_columns(_TITLES, map(_row, found))
        else:
            common.console.print(_table(first))
    except StateUnavailableError as error:
        common.fail(str(error), common.EXIT_UNREACHABLE)
    finally:
        state.close()


_TITLES = ("what", "issued up to", "kept until", "reason")


def _table(found: list[Revocation]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for title in _TITLES:
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(*_row(one))
    return table


def _row(one: Revocation) -> tuple[str, str, str, str]:
    return one.name, "always" if one.before is None else _when(one.before), _when(one.until), one.reason


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
