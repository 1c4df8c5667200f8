"""`sts api-keys`: create, list, revoke, rotate and import the keys of sources of type `api_key`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

import click

from sts.cli import audited, common
from sts.cli.api_keys.importing import import_keys
from sts.cli.api_keys.output import (
    REVOKED,
    Shown,
    Span,
    audit,
    checked_audiences,
    checked_scopes,
    checked_text,
    json_option,
    opened,
    prefixes,
    show_new,
    show_table,
    source_of,
    source_option,
    unknown_scopes,
)
from sts.settings import Settings
from sts.state import ConflictError
from sts.state.key_records import NAMESPACE, ApiKey, KeyRecords, digest, id_of, is_over, make
from sts.state.last_used import read_last_used
from sts.state.state import batches

Checked = TypeVar("Checked")

_ATTEMPTS: Final = 5
_ID: Final = re.compile(r"[0-9A-Za-z]{12}|i-[0-9a-f]{20}")


@click.group("api-keys")
def api_keys() -> None:
    """Create, list and revoke the API keys of sources of type `api_key`.

    A key is printed once, when it is created; the store keeps only its hash. Running services detect every change
    within two seconds, without a restart.
    """


@api_keys.command()
@common.config_option
@source_option
@click.option("--owner", required=True, metavar="WHO", help="The owner of the key: `key.owner` in mappings.")
@click.option("--tenant", metavar="NAME", help="`key.tenant` in mappings.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPES", help="`key.scopes`; separate by spaces, or repeat.")
@click.option(
    "--audience", "audiences", multiple=True, metavar="NAME", help="An allowed audience; default: all of its source."
)
@click.option("--tier", metavar="NAME", help="`key.tier` in mappings.")
@click.option(
    "--expires", "life", type=Span(1.0), metavar="SPAN", help="The lifetime, such as 90d; default: no expiry."
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
    r"""Create a key. It is printed once; an owner may have several keys.

    \b
    Examples:
      sts api-keys create --owner acme --scope orders:read --expires 90d
      sts api-keys create --source partner-keys --owner acme --audience orders --json

    \b
    Exit status: 0 created, 1 refused, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    name, prefix = source_of(settings, source)
    now = int(time.time())
    key_id, text = make(prefix)
    key = ApiKey(
        id=key_id,
        source=name,
        owner=_checked(checked_text, "owner", owner),
        digest=digest(text),
        created_at=now,
        tenant=None if tenant is None else _checked(checked_text, "tenant", tenant),
        scopes=_checked(checked_scopes, [scope for given in scopes for scope in given.split() or [given]]),
        audiences=_checked(checked_audiences, settings, name, audiences),
        tier=None if tier is None else _checked(checked_text, "tier", tier),
        expires_at=None if life is None else now + int(life),
    )
    with opened(settings) as records:
        records.put(key)
        audit(settings, "created", key)
    show_new(key, text, as_json=as_json)
    warning = unknown_scopes(settings, key.scopes)
    if warning:
        click.echo(f"warning: {warning}", err=True)


@api_keys.command("list")
@common.config_option
@click.option("--source", metavar="NAME", help="Only this source's.")
@click.option("--owner", metavar="WHO", help="Only this owner's.")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired ones too.")
@common.limit_option
@click.option("--after", metavar="ID", help="Only keys behind this one in the list, for the next page.")
@json_option
def list_keys(
    *,
    config: Path,
    source: str | None,
    owner: str | None,
    everything: bool,
    limit: int | None,
    after: str | None,
    as_json: bool,
) -> None:
    r"""List keys, oldest first: owner, purpose, end, last use.

    Long lists are read and written in parts. More than 500 keys are written as plain columns.

    \b
    Examples:
      sts api-keys list
      sts api-keys list --owner acme --all --json
      sts api-keys list --limit 100 --after 4fJ2kQz81LmN

    \b
    Exit status: 0 done, 1 a record is not authentic, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    shown = Shown({}, set(prefixes(settings)), time.time())
    strange: list[str] = []
    with opened(settings) as records:
        ids = common.page_of(records.by_age(), after, None)
        found = islice(
            (
                key
                for key in _read(records, ids, shown, strange)
                if source in (None, key.source)
                and owner in (None, key.owner)
                and (everything or not is_over(key, shown.now))
            ),
            limit,
        )
        if as_json:
            common.write_json_list(shown.as_object(key) for key in found)
            click.echo()
        else:
            show_table(found, shown)
    if strange:
        common.fail(f"{len(strange)} records are not authentic, and refused by running services: {' '.join(strange)}")


@api_keys.command()
@common.config_option
@click.argument("key_id", metavar="ID")
@json_option
def revoke(*, config: Path, key_id: str, as_json: bool) -> None:
    r"""Revoke a key permanently. Issued tokens stay valid until they expire, after five minutes by default.

    ID is the id of the key; for - the key is read from standard input.

    \b
    Examples:
      sts api-keys revoke 4fJ2kQz81LmN
      sts api-keys revoke - < leaked.txt

    \b
    Exit status: 0 revoked, now or before, 1 no such key, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    key_id = _id(settings, key_id)
    with opened(settings) as records:
        key = _revoked(settings, records, key_id)
    if as_json:
        click.echo(json.dumps({"id": key.id, "revoked_at": key.revoked_at}))
    else:
        click.echo(f"{key.id} of {key.owner} is revoked; running services refuse it within two seconds")


@api_keys.command()
@common.config_option
@click.argument("key_id", metavar="ID")
@click.option("--grace", type=Span(), default="7d", show_default=True, help="How long the old key stays valid.")
@json_option
def rotate(*, config: Path, key_id: str, grace: float, as_json: bool) -> None:
    r"""Replace a key; the old one stays valid for a grace period.

    The new key has the permissions of the key ID, which expires after the grace period. The new key has the same
    lifetime as the old one; it is printed once. A key with a successor is not rotated again. ID is as for revoke; the
    successor of an imported key is a generated key.

    \b
    Examples:
      sts api-keys rotate 4fJ2kQz81LmN
      sts api-keys rotate 4fJ2kQz81LmN --grace 0s

    \b
    Exit status: 0 done, 1 no such key, expired, revoked or already replaced, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    key_id = _id(settings, key_id)
    now = int(time.time())
    with opened(settings) as records:
        old = _existing(records, key_id)
        over = is_over(old, now)
        if over or old.replaced_by:
            common.fail(f"{key_id} is {over}: make a new key" if over else f"rotate {old.replaced_by}, its successor")
        prefix = prefixes(settings).get(old.source)
        if prefix is None:
            common.fail(f"{old.source} is not a source of type api_key")
        new_id, text = make(prefix)
        new = replace(
            old,
            id=new_id,
            digest=digest(text),
            created_at=now,
            expires_at=None if old.expires_at is None else now + old.expires_at - old.created_at,
            imported=False,
            change=0,
            version=0,
        )
        ends = now + int(grace)
        old = replace(old, replaced_by=new_id, expires_at=ends if old.expires_at is None else min(ends, old.expires_at))
        new = records.put(new)
        try:
            records.put(old)
        except ConflictError:  # it may have been revoked just now: then it must not have a successor
            records.put(replace(new, revoked_at=now))
            raise
        audit(settings, "rotated", old, replaced_by=new_id)
    show_new(new, text, as_json=as_json, replaces=old)


@api_keys.command()
@common.config_option
@json_option
def reseal(*, config: Path, as_json: bool) -> None:
    r"""Write the records of the previous secret again.

    Run this command, and `sts keys reseal`, while `secret.previous` is still configured. Otherwise the keys that were
    created before are refused when the previous secret is removed. The keys themselves do not change.

    \b
    Example:  sts api-keys reseal

    \b
    Exit status: 0 done, 1 refused, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    with opened(settings) as records:
        count = records.reseal()
        audited.audit(settings, NAMESPACE, "resealed", aloud=False, records=count)
    click.echo(
        json.dumps({"resealed": count}) if as_json else f"{count} record{'' if count == 1 else 's'} written again"
    )


api_keys.add_command(import_keys)


def _read(records: KeyRecords, ids: Sequence[str], shown: Shown, strange: list[str]) -> Iterator[ApiKey]:
    """The authentic keys of `ids`, read in batches; adds their last use to `shown`, other ids to `strange`."""
    for batch in batches(ids):
        there = records.get_many(batch)
        shown.used.clear()
        shown.used.update(read_last_used(records.state, batch))
        for key_id in batch:
            key = there.get(key_id)
            if key is not None:
                yield key
            elif key_id in there:
                strange.append(key_id)


def _checked(check: Callable[..., Checked], *arguments: object) -> Checked:
    try:
        return check(*arguments)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _id(settings: Settings, given: str) -> str:
    """Return the given id, or the id of the key on standard input. A text that may be a key is never printed."""
    if given != "-":
        if not _ID.fullmatch(given):
            raise click.UsageError(
                "ID is not an id as printed by `sts api-keys list`; for - the key is read from standard input."
            )
        return given
    text = common.read_text(cast("BinaryIO", click.open_file("-", "rb")), "the key")
    found = [id_of(prefix, text) for prefix in prefixes(settings).values() if text.startswith(prefix)]
    if not found or not found[0]:
        common.fail("standard input contains no key of a source of type api_key, or one with a wrong checksum")
    return found[0]


def _existing(records: KeyRecords, key_id: str) -> ApiKey:
    key = records.get(key_id)
    if key is None:
        common.fail(f"there is no API key {key_id} with an authentic record: `sts api-keys list --all` shows all")
    return key


def _revoked(settings: Settings, records: KeyRecords, key_id: str) -> ApiKey:
    """Revoke a key, also during concurrent changes; a revoked key stays unchanged."""
    for _ in range(_ATTEMPTS):
        key = _existing(records, key_id)
        if key.revoked_at is not None:
            return key
        try:
            key = records.put(replace(key, revoked_at=int(time.time())))
        except ConflictError:
            continue
        audit(settings, REVOKED, key)
        return key
    raise ConflictError(key_id)
