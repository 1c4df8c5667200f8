"""`sts init`: a first configuration that works as it stands."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Final

import click

from keys.files import hand_over
from sts.clients.secret import digest
from sts.errors import StartError

_NAME: Final = "sts.yaml"
_DRAFT: Final = ".draft"
_CONFIGURATION: Final = Template("""\
# Configuration of the token service. `sts check` lists everything that is wrong in it; `sts check --effective` shows
# what is in force. Every key: `sts check --schema`, or docs/configuration.md in the repository.

# `iss` of every token minted here, and where backends find the public keys: <issuer>/.well-known/jwks.json
issuer: https://sts.example.internal
# Beyond loopback it needs `transport`: {address: "0.0.0.0:8080", transport: terminated}
listen: 127.0.0.1:8080

# Who may ask for tokens: the gateways.
clients:
  edge-gateway:
    auth: secret                  # HTTP Basic at /token; header X-Gateway-Secret at /forward-auth/edge-gateway
    secrets: ["$digest"]
    audiences: [orders]           # which backends it may ask for
    sources: [corporate-idp]      # whose credentials it may hand in
    profile: nginx                # how it says which request it asks about at forward-auth

# Which credentials from outside are believed. PUT YOUR IDENTITY PROVIDER HERE.
sources:
  corporate-idp:
    type: jwt
    issuer: https://idp.example.com                 # exactly the `iss` of its tokens
    jwks_uri: https://idp.example.com/jwks.json     # or `discovery: true`
    algorithms: [RS256, ES256]
    audience: api-gateway                           # the `aud` its tokens have when they are meant for your gateway
    audiences: [orders]                             # which backends may be reached with them
    namespace: ""                                   # prefix of the minted `sub`; matters once there are more sources
    identity:                                       # CEL over the verified `claims`
      subject: claims.sub
      scopes: claims.scope
      roles: claims.roles

# The backends, and what the token for each one holds.
audiences:
  orders:
    ttl: 5m                       # at most; a token never outlives the credential it was made from
    scopes: [orders:read, orders:write]
    # allow: "'staff' in identity.roles"
    claims:                       # CEL over `identity`, `client`, `request`, `route`
      roles: identity.roles
    headers:                      # identity headers on forward-auth answers
      X-User-ID: identity.subject

# At forward-auth: which request is meant for which audience. The most specific route wins.
routes:
  orders-read: {path: "/orders/**", methods: [GET, HEAD], audience: orders, scopes: ["orders:read"]}
  orders-write: {path: "/orders/**", methods: [POST, PUT, DELETE], audience: orders, scopes: ["orders:write"]}
  health: {path: /health, public: true}   # `host: api.example.com` limits a route to one host
""")


@click.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
def init(directory: Path) -> None:
    r"""Write a first configuration, DIR/sts.yaml, with a fresh client secret.

    The file is readable by its owner only and never written over an existing one. The secret is printed this once and
    kept nowhere else: it goes into the gateway. The deployment secret and the signing keys are made by `sts serve` at
    its first start, in `var` beside the file. A run that was interrupted leaves no configuration: run it again.

    \b
    Examples:
      sts init
      sts init /etc/sts

    \b
    Exit status: 0 done, 1 there is such a file already or it cannot be written, 2 usage.
    """
    secret = secrets.token_urlsafe(32)
    path = directory / _NAME
    with _draft(path, _CONFIGURATION.substitute(digest=digest(secret))) as draft:
        # Before there is a configuration: one whose secret was never shown would be in the way of the next run.
        click.echo(f"secret of the client edge-gateway, shown once:  {secret}\n")
        _finish(draft, path)
    option = "" if directory == Path() else f" -c {shlex.quote(str(path))}"
    click.echo(
        f"wrote {path}\n\n"
        f"next:  put your identity provider and your backends into {path}\n"
        f"       sts check{option}\n"
        f"       sts serve{option}\n"
        f"       sts exchange --url http://127.0.0.1:8080 --client edge-gateway --audience orders TOKEN-FILE"
    )


@contextlib.contextmanager
def _draft(path: Path, text: str) -> Iterator[Path]:
    """Write a draft beside `path`, mode 0600, which is removed at the end. What killed runs left is removed as well.

    Raises StartError where there is a file at `path` already, or the draft cannot be written.
    """
    draft = path.with_name(f".{_NAME}.{secrets.token_hex(8)}{_DRAFT}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            raise _there_already(path)
        for left in path.parent.glob(f".{_NAME}.*{_DRAFT}"):
            left.unlink(missing_ok=True)
            click.echo(
                f"an earlier `sts init` was interrupted before it was done: {path} gets a new secret\n", err=True
            )
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            hand_over(handle, path.parent)
            stream.write(text)
            stream.flush()
            os.fsync(handle)
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _finish(draft: Path, path: Path) -> None:
    """Give the draft its name. Raises StartError where there is such a file; the secret that was shown is void then."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise _there_already(path) from None
    except FileNotFoundError:
        raise StartError(f"another `sts init` runs in {path.parent}: the secret above is void") from None
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}: the secret above is void") from None


def _there_already(path: Path) -> StartError:
    return StartError(f"{path} is there already and is never written over")
