"""Common parts of the key commands: opening the store, options, exit statuses, audit events."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Final

import click

from keys.errors import GuardRefused, KeysError, RingMissing, StoreUnavailable
from keys.record import Ring
from keys.store import Store
from sts.cli import audited, common
from sts.mint import keystore
from sts.settings import Settings

ROTATED: Final = "rotated"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON; times are Unix seconds.")
looks_only = click.option("--dry-run", is_flag=True, expose_value=False, hidden=True)
"""For commands that never change anything."""
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def open_ring(settings: Settings) -> Store:
    """Return the key store of this configuration; creates nothing. Raises StartError."""
    secret = keystore.open_secret(settings.given_secret(), settings.var)
    return keystore.open_store(settings.keys, settings.var, secret, settings.redis)


@contextlib.contextmanager
def spoken(*, as_json: bool = False) -> Iterator[None]:
    """End the command with a message and the documented exit status for a KeysError in the block."""
    try:
        yield
    except StoreUnavailable as error:
        common.fail(str(error), common.EXIT_UNREACHABLE)
    except RingMissing as error:
        common.fail(f"{error}: `sts serve` and `sts keys init` make one", common.EXIT_REFUSED)
    except GuardRefused as error:
        if as_json:
            told = {"rotated": False, "why": "guard", "seconds": round(error.seconds, 3), "replica": error.replica}
            click.echo(json.dumps(told))
        common.fail(str(error), common.EXIT_REFUSED)
    except KeysError as error:
        common.fail(str(error), common.EXIT_REFUSED)


def no_key(asked: tuple[str, ...], used: tuple[str, ...]) -> KeysError:
    """Return the error for a ring without a key of the algorithms `asked`; the configuration uses those in `used`."""
    named = ", ".join(asked)
    if set(asked).isdisjoint(used):
        return KeysError(
            f"no {named} key is there, and the configuration uses none: write it to `keys.algorithm` first"
        )
    return KeysError(f"no {named} key is published yet: `sts keys init` publishes the first one, and so does a reload")


def ask(question: str, *, yes: bool, alone: bool = False) -> None:
    """Ask for confirmation of an irreversible action; ends the command with exit status 1 unless the answer is yes.

    With `alone`, an empty standard input that is no terminal, as in a script, counts as yes.
    """
    try:
        if yes or click.confirm(question, err=True):
            return
    except click.Abort as error:
        if alone and isinstance(error.__context__, EOFError) and not sys.stdin.isatty():
            click.echo("no input for the confirmation: continuing", err=True)
            return
        raise
    common.fail("nothing was changed", common.EXIT_REFUSED)


def audit(settings: Settings, action: str, ring: Ring, *, forced: bool = False, revoked: Iterable[str] = ()) -> None:
    """Write the audit event of a change of the ring; without `audit.file`, a plain rotation writes none."""
    audited.audit(
        settings,
        "keys",
        action,
        aloud=forced or action != ROTATED,
        forced=forced,
        ring_version=ring.version,
        signing=sorted(key.kid for key in ring.keys if key.signs),
        revoked=sorted(revoked),
    )
