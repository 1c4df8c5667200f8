"""`sts backends`: key pairs for encrypted tokens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, get_args

import click

from sts.cli.common import EXIT_REFUSED, fail
from sts.jose import Curve, KeyManagement, make_pair

DEFAULT: Final = "ECDH-ES+A256KW"


@click.group()
def backends() -> None:
    """Generate key pairs for backends with encrypted tokens (`format: jwe`)."""


@backends.command()
@click.option(
    "--alg", type=click.Choice(get_args(KeyManagement)), default=DEFAULT, show_default=True, help="Algorithm."
)
@click.option("--curve", type=click.Choice(get_args(Curve)), help="For ECDH-ES; default: P-256.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="The folder for the two files; default: the current folder.",
)
def keygen(*, alg: KeyManagement, curve: Curve | None, out: Path) -> None:
    r"""Generate a backend's key pair.

    Writes KID.private.jwk.json, which only its owner may read, and KID.jwks.json. KID is the key id, which the header
    of each token contains. The private key stays with the backend. The key set is public: name it in
    `encryption.jwks_file`, or let the backend publish it for `encryption.jwks_uri`.
    To replace a key, put the new one first in the set, and keep the old private key until the last token for it has
    expired (docs/encryption.md). Existing files are never overwritten.

    \b
    Examples:
      sts backends keygen
      sts backends keygen --alg ECDH-ES --curve X25519 --out /etc/billing
      sts backends keygen --alg RSA-OAEP-256

    \b
    Exit status: 0 done, 1 the files cannot be written, 2 usage.
    """
    if curve is not None and alg == "RSA-OAEP-256":
        raise click.UsageError("RSA-OAEP-256 has no curve.")
    private, public = make_pair(alg, curve or "P-256")
    kid = private["kid"]
    private_file, public_file = out / f"{kid}.private.jwk.json", out / f"{kid}.jwks.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write(private_file, private, 0o600)
        _write(public_file, {"keys": [public]}, 0o644)
    except OSError as error:
        fail(f"{error.filename or out} cannot be written: {error.strerror}", EXIT_REFUSED)
    click.echo(f"private, for the backend only:  {private_file}")
    click.echo(f"public key set:                 {public_file}")
    click.echo(f"encryption: {{jwks_file: {json.dumps(str(public_file))}, alg: {alg}}}")


def _write(path: Path, document: dict[str, Any], mode: int) -> None:
    """Create a file with its final mode. Raises OSError if it exists or cannot be written."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        file.write(json.dumps(document, indent=1) + "\n")
