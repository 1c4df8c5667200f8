"""`sts init`: write a first configuration that works without changes."""

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
# Configuration of the token service. `sts check` lists its faults; `sts check --effective` prints it with all defaults.
# All keys: `sts check --schema`, or docs/configuration.md in the repository.

# `iss` of every token minted here, and where backends find the public keys: <issuer>/.well-known/jwks.json
issuer: https://sts.example.internal
# Beyond loopback it needs `transport`: {address: "0.0.0.0:8080", transport: terminated}
listen: 127.0.0.1:8080

# The gateways, which may request tokens.
clients:
  edge-gateway:
    auth: secret                  # HTTP Basic at /token; header X-Gateway-Secret at /forward-auth/edge-gateway
    secrets: ["$digest"]
    audiences: [orders]           # the backends for which it may request tokens
    sources: [corporate-idp]      # the sources whose credentials it may present
    profile: nginx                # the header names of its forward-auth requests

# The trusted sources of inbound credentials. PUT YOUR IDENTITY PROVIDER HERE.
sources:
  corporate-idp:
    type: jwt
    issuer: https://idp.example.com                 # exactly the `iss` of its tokens
    jwks_uri: https://idp.example.com/jwks.json     # or `discovery: true`
    algorithms: [RS256, ES256]
    audience: api-gateway                           # the `aud` its tokens have when they are meant for your gateway
    audiences: [orders]                             # the backends that its credentials may reach
    namespace: ""                                   # prefix of the minted `sub`; needed with several sources
    identity:                                       # CEL over the verified `claims`
      subject: claims.sub
      scopes: claims.scope
      roles: claims.roles

# The backends, and the content of the token for each one.
audiences:
  orders:
    ttl: 5m                       # the maximum; a token never outlives the credential from which it was made
    scopes: [orders:read, orders:write]
    # allow: "'staff' in identity.roles"
    claims:                       # CEL over `identity`, `client`, `request`, `route`
      roles: identity.roles
    headers:                      # identity headers on forward-auth answers
      X-User-ID: identity.subject

# For forward-auth: the audience of each request. The most specific route applies.
routes:
  orders-read: {path: "/orders/**", methods: [GET, HEAD], audience: orders, scopes: ["orders:read"]}
  orders-write: {path: "/orders/**", methods: [POST, PUT, DELETE], audience: orders, scopes: ["orders:write"]}
  health: {path: /health, public: true}   # `host: api.example.com` limits a route to one host
""")


@click.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
def init(directory: Path) -> None:
    r"""Write a first configuration, DIR/sts.yaml, with a new client secret.

    Only its owner can read the file. An existing file is never overwritten. The secret is printed once and stored
    nowhere else: configure it in the gateway. `sts serve` generates the deployment secret and the signing keys at its
    first start, in `var` beside the file. An interrupted run leaves no configuration: run the command again.

    \b
    Examples:
      sts init
      sts init /etc/sts

    \b
    Exit status: 0 done, 1 the file exists or cannot be written, 2 usage.
    """
    secret = secrets.token_urlsafe(32)
    path = directory / _NAME
    with _draft(path, _CONFIGURATION.substitute(digest=digest(secret))) as draft:
        # Print the secret first: a configuration whose secret was never printed would block the next run.
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
    """Write a draft beside `path`, mode 0600, and remove it at the end; also remove the drafts of killed runs.

    Raises StartError if `path` exists, or the draft cannot be written.
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
    """Link the draft to its final name. Raises StartError if that exists; then the printed secret is invalid."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise _there_already(path) from None
    except FileNotFoundError:
        raise StartError(f"another `sts init` runs in {path.parent}: the secret above is invalid") from None
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}: the secret above is invalid") from None


def _there_already(path: Path) -> StartError:
    return StartError(f"{path} exists and is never overwritten")
