"""`sts clients`: secrets with which gateways authenticate."""

from __future__ import annotations

import json
import re
import secrets
import sys
from typing import Final

import click

from sts.cli.common import EXIT_REFUSED, fail
from sts.clients.secret import digest

_SECRET: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_BYTES: Final = 32
_SHORT: Final = 32


@click.group()
def clients() -> None:
    """Generate secrets for gateways."""


@clients.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--hash", "hash_given", is_flag=True, help="Hash the secret on standard input instead of generating one.")
def secret(*, as_json: bool, hash_given: bool) -> None:
    r"""Generate a client secret and its hash.

    The secret has 256 random bits. It is printed once and stored nowhere. Configure the secret in the gateway, and its
    hash in `secrets:` of the client. To replace a secret, list both hashes until the gateway uses the new one.

    \b
    Examples:
      sts clients secret
      sts clients secret --json
      sts clients secret --hash < secret.txt

    \b
    Exit status: 0 done, 1 the text to hash is not a valid secret, 2 usage.
    """
    given = _given() if hash_given else secrets.token_urlsafe(_BYTES)
    shown = {} if hash_given else {"secret": given}
    if as_json:
        click.echo(json.dumps({**shown, "digest": digest(given)}))
    elif hash_given:
        click.echo(digest(given))
    else:
        click.echo(f"secret (for the gateway, shown once):  {given}")
        click.echo(f'secrets: ["{digest(given)}"]')


def _given() -> str:
    asked = sys.stdin.isatty()
    given = str(click.prompt("Secret", hide_input=True, err=True) if asked else sys.stdin.read()).strip()
    if not _SECRET.fullmatch(given):
        fail("a client's secret is 1 to 128 characters of A-Z a-z 0-9 . _ ~ -", EXIT_REFUSED)
    if len(given) < _SHORT:
        click.echo(
            "sts: a plain hash protects only random secrets, and this secret is short: prefer a generated one", err=True
        )
    return given
