"""`sts api-keys`: make, list, revoke, rotate and import the keys of sources of type `api_key`."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from sts.cli import common
from sts.cli.api_key_records import check_audiences, existing, opened, source_of
from sts.cli.key_files import checked_text, imported, rows
from sts.cli.key_show import as_object, show_new, show_table
from sts.options import parse_duration
from sts.state.api_keys import ApiKey, is_over
from sts.state.key_text import digest, make
from sts.state.last_used import read_last_used

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; times are Unix seconds.")


class _Span(click.ParamType[float]):
    """A duration, as in the configuration."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group("api-keys")
def api_keys() -> None:
    """Make, list and revoke the API keys of sources of type `api_key`.

    A key is shown once, when it is made; what is kept is its hash. Running services notice every change within two
    seconds, and nothing is restarted.
    """


@api_keys.command()
@common.config_option
@click.option("--source", metavar="NAME", help="The source; default: the only one of type api_key.")
@click.option("--owner", required=True, metavar="WHO", help="Whose key it is: `key.owner` in mappings.")
@click.option("--tenant", metavar="NAME", help="`key.tenant` in mappings.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="`key.scopes`; may be repeated.")
@click.option(
    "--audience", "audiences", multiple=True, metavar="NAME", help="An audience it may reach; default: its source's."
)
@click.option("--tier", metavar="NAME", help="`key.tier` in mappings.")
@click.option(
    "--expires", "life", type=_Span(), metavar="SPAN", help="How long it lives, such as 90d; default: for good."
)
@json_option
def create(  # noqa: PLR0913 - the options of the command line
    *,
    config: Path,
    source: str | None,
    owner: str,
    tenant: str | None,
    scopes: tuple[str, ...],
    audiences: tuple[str, ...],
    tier: str | None,
    life: float | None,
    as_json: bool,
) -> None:
    r"""Make a key. It is shown this once; an owner may have several.

    \b
    Examples:
      sts api-keys create --owner acme --scope orders:read --expires 90d
      sts api-keys create --source partner-keys --owner acme --audience orders --json

    \b
    Exit status: 0 made, 1 refused, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    name, prefix = source_of(settings, source)
    check_audiences(settings, name, audiences)
    now = int(time.time())
    key_id, text = make(prefix)
    key = ApiKey(
        id=key_id,
        source=name,
        owner=_checked("owner", owner),
        digest=digest(text),
        created_at=now,
        tenant=_optional("tenant", tenant),
        scopes=tuple(dict.fromkeys(_checked("scope", one) for one in scopes)),
        audiences=tuple(dict.fromkeys(audiences)),
        tier=_optional("tier", tier),
        expires_at=None if life is None else now + int(life),
    )
    with opened(settings) as records:
        records.put(key)
    show_new(key, text, as_json=as_json)


@api_keys.command("list")
@common.config_option
@click.option("--source", metavar="NAME", help="Only this source's.")
@click.option("--owner", metavar="WHO", help="Only this owner's.")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired ones too.")
@json_option
def list_keys(*, config: Path, source: str | None, owner: str | None, everything: bool, as_json: bool) -> None:
    r"""List the keys: id, owner, what they may do, when they end and when they were last used.

    \b
    Examples:
      sts api-keys list
      sts api-keys list --owner acme --all --json

    \b
    Exit status: 0 done, 1 refused, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    now = time.time()
    with opened(settings) as records:
        used = read_last_used(records.state)
        found = [
            key
            for key in records.all()
            if source in (None, key.source) and owner in (None, key.owner) and (everything or not is_over(key, now))
        ]
    if as_json:
        click.echo(json.dumps([as_object(key, used.get(key.id), now) for key in found], indent=1))
        return
    show_table(found, used, now)


@api_keys.command()
@common.config_option
@click.argument("key_id", metavar="ID")
@json_option
def revoke(*, config: Path, key_id: str, as_json: bool) -> None:
    r"""Revoke a key for good. Tokens that are out already live to their end, five minutes by default.

    \b
    Example:  sts api-keys revoke 4fJ2kQz81LmN

    \b
    Exit status: 0 revoked, now or before, 1 there is no such key, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    with opened(settings) as records:
        key = existing(records, key_id)
        if key.revoked_at is None:
            key = replace(key, revoked_at=int(time.time()))
            records.put(key)
    if as_json:
        click.echo(json.dumps({"id": key.id, "revoked_at": key.revoked_at}))
    else:
        click.echo(f"{key.id} of {key.owner} is revoked; running services refuse it within two seconds")


@api_keys.command()
@common.config_option
@click.argument("key_id", metavar="ID")
@click.option("--grace", type=_Span(), default="7d", show_default=True, help="How long the old key goes on working.")
@json_option
def rotate(*, config: Path, key_id: str, grace: float, as_json: bool) -> None:
    r"""Make a key that may do what ID may, and let ID end after a grace period.

    The new one lives as long as the old one was given; it is shown this once.

    \b
    Examples:
      sts api-keys rotate 4fJ2kQz81LmN
      sts api-keys rotate 4fJ2kQz81LmN --grace 0s

    \b
    Exit status: 0 done, 1 there is no such living key, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    now = int(time.time())
    with opened(settings) as records:
        old = existing(records, key_id)
        over = is_over(old, now)
        if over:
            common.fail(f"{key_id} is {over}: make a new key with `sts api-keys create`")
        _, prefix = source_of(settings, old.source)
        new_id, text = make(prefix)
        life = None if old.expires_at is None else old.expires_at - old.created_at
        new = replace(
            old,
            id=new_id,
            digest=digest(text),
            created_at=now,
            expires_at=None if life is None else now + life,
            imported=False,
            version=0,
        )
        ends = now + int(grace)
        records.put(new)
        records.put(replace(old, expires_at=ends if old.expires_at is None else min(ends, old.expires_at)))
    show_new(new, text, as_json=as_json, replaces=old.id)


@api_keys.command()
@common.config_option
@json_option
def reseal(*, config: Path, as_json: bool) -> None:
    r"""Write every record anew that was written with the previous deployment secret.

    To be done while `secret.previous` is still given, beside `sts keys reseal`; without it the keys that were made
    before are worth nothing once the previous secret is gone. The keys themselves stay as they are.

    \b
    Example:  sts api-keys reseal

    \b
    Exit status: 0 done, 1 refused, 2 usage, 3 the state store cannot be used.
    """
    with opened(common.load(config)) as records:
        count = records.reseal()
    click.echo(
        json.dumps({"resealed": count}) if as_json else f"{count} record{'' if count == 1 else 's'} written anew"
    )


@api_keys.command("import")
@common.config_option
@click.option("--source", metavar="NAME", help="The source; default: the only one of type api_key.")
@click.option("--dry-run", is_flag=True, help="Check every line, and write nothing.")
@json_option
@click.argument("file", type=click.File("rb"))
def import_keys(*, config: Path, source: str | None, dry_run: bool, as_json: bool, file: BinaryIO) -> None:
    r"""Import keys that were made elsewhere, from CSV with a header line or from one JSON object a line.

    Columns: `key`, or `sha256` with its hex digest where the keys themselves are not to be had; `owner`; and if wanted
    `tenant`, `scopes` and `audiences` (separated by spaces), `tier`, `expires_at` (Unix seconds). Keys begin with the
    source's prefix. A plain hash protects only keys of high entropy: import no short or guessable ones. All lines are
    checked before the first key is written; what is there already is left as it is.

    \b
    Examples:
      sts api-keys import --dry-run keys.csv
      sts api-keys import --source partner-keys keys.jsonl

    \b
    Exit status: 0 done, 1 a line is faulty, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    name, prefix = source_of(settings, source)
    found: dict[str, ApiKey] = {}
    faults = []
    for line, row in rows(common.read_text(file, "the file")):
        try:
            key = imported(settings, name, prefix, row)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
            continue
        if key.id in found:
            faults.append(f"line {line}: this key stands there twice")
        found[key.id] = key
    if faults:
        common.fail("\n".join([*faults[:20], f"{len(faults)} faulty; nothing was imported"]))
    made = []
    with opened(settings) as records:
        there = {key.id for key in records.all()}
        for key in found.values():
            if key.id not in there:
                if not dry_run:
                    records.put(key)
                made.append(key.id)
    if as_json:
        click.echo(json.dumps({"imported": [] if dry_run else made, "there_already": len(found) - len(made)}))
    else:
        verb = "would be imported" if dry_run else "imported"
        click.echo(f"{len(made)} {verb}, {len(found) - len(made)} there already")


def _checked(name: str, value: str) -> str:
    try:
        return checked_text(name, value)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None


def _optional(name: str, value: str | None) -> str | None:
    return None if value is None else _checked(name, value)
