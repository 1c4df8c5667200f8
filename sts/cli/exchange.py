"""`sts exchange`: request a token from a running service, and print its content."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from sts.cli import common
from sts.cli.credential import as_sent, urn
from sts.cli.http import Tls, call, check_address
from sts.model import TYPE_ACCESS_TOKEN

_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--url", required=True, metavar="URL", help="The address of the service, such as http://127.0.0.1:8080.")
@click.option("--client", required=True, metavar="ID", help="The client id to call as.")
@click.option(
    "--secret-file", type=click.File("rb"), help="The file with the client's secret; default: a prompt at the terminal."
)
@click.option("--ca-file", type=_FILE, help="CA certificates for an https address (PEM); default: the system's CAs.")
@click.option("--cert-file", type=_FILE, help="The client's certificate (PEM); with it no secret is required.")
@click.option("--key-file", type=_FILE, help="The private key of the certificate; default: in --cert-file.")
@click.option("--audience", required=True, multiple=True, metavar="NAME", help="The backend; may be repeated.")
@click.option("--scope", metavar="SCOPES", help="Scopes to request, separated by spaces; default: all allowed scopes.")
@click.option(
    "--type",
    "token_type",
    default=TYPE_ACCESS_TOKEN,
    metavar="URN",
    show_default=True,
    help="The credential's type; the last part of the URN suffices. client_certificate: FILE is PEM, leaf first.",
)
@click.option("--raw", is_flag=True, help="Print only the token, for a pipe.")
@click.argument("file", type=click.File("rb"), default="-")
def exchange(  # noqa: PLR0913 - the options of the command line
    *,
    url: str,
    client: str,
    secret_file: BinaryIO | None,
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    audience: tuple[str, ...],
    scope: str | None,
    token_type: str,
    raw: bool,
    file: BinaryIO,
) -> None:
    r"""Exchange the credential in FILE (default: standard input) at a running service and print the response.

    The token is decoded for display. Its signature is not verified.

    \b
    Example:  sts exchange --url http://127.0.0.1:8080 --client edge-gateway --audience orders inbound.jwt

    \b
    Exit status: 0 a token was issued, 1 the service refused, 2 usage, 3 the service cannot be reached.
    """
    address = check_address(url)
    secret = _secret(secret_file, needed=cert_file is None)
    fields = [
        *([] if secret is not None else [("client_id", client)]),
        ("grant_type", _GRANT),
        ("subject_token", as_sent(urn(token_type), common.read_text(file, "the credential"))),
        ("subject_token_type", urn(token_type)),
        *(("audience", name) for name in audience),
        *([("scope", scope)] if scope else []),
    ]
    basic = None if secret is None else f"{client}:{secret}"
    status, body, request_id = call("POST", address + "/token", fields, basic, Tls(ca_file, cert_file, key_file))
    answer = _json(body)
    if status != 200:
        common.console_err.print_json(json.dumps(answer), ensure_ascii=True)
        common.fail(_refused(status, answer, request_id), common.EXIT_REFUSED)
    token = answer.get("access_token")
    if not isinstance(token, str):
        common.fail("the response contains no token: is this the address of the service?", common.EXIT_UNREACHABLE)
    if raw:
        click.echo(token)
        return
    shown = {"answer": {**answer, "access_token": f"({len(token)} bytes)"}, **_decoded(token)}
    common.console.print_json(json.dumps(shown), ensure_ascii=True)


def _refused(status: int, answer: Mapping[str, Any], request_id: str) -> str:
    """Return the message for a refusal. The response contains no facts, so the message names the audit event."""
    told = f"refused with {status}: {answer.get('error_reason', 'no reason given')}"
    return f"{told}; see the audit log, request_id {request_id}" if request_id else told


def _secret(file: BinaryIO | None, *, needed: bool) -> str | None:
    if file is not None:
        return common.read_text(file, "the secret")
    if not needed:
        return None
    if not _has_terminal():
        common.fail("--secret-file is required without a terminal", common.EXIT_USAGE)
    return str(click.prompt("Client secret", hide_input=True, err=True))


def _has_terminal() -> bool:
    """Return whether a hidden prompt is possible: at the session's terminal, even if standard input is a pipe."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin.isatty()
    return True


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        common.fail("the response is not a JSON object: is this the address of the service?", common.EXIT_UNREACHABLE)
    return answer


def _decoded(token: str) -> dict[str, Any]:
    """Return header and claims of a JWT, only the header of an encrypted one, and {} for another token."""
    try:
        if token.count(".") == 4:
            header = json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))
            return {"header": header, "claims": "encrypted: only the backend can read them"}
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    except ValueError:
        return {}
    return {"header": header, "claims": claims}
