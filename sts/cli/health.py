"""`sts health`: check whether the service is alive or ready."""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from sts.settings import OptionError, SettingsError, default_config, listening, listening_at, printable
from sts.settings.listen import Listen

_TIMEOUT_S = 3.0

# The same values as in `common`, which is not imported: this command runs every few seconds, and the import is slow.
_EXIT_REFUSED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_UNREACHABLE: Final = 3


@click.command()
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=default_config,
    metavar="FILE",
    help="The configuration; default: $STS_CONFIG, else ./sts.yaml.",
)
@click.option("--listen", metavar="ADDR", help="Use this address, as for `sts serve --listen`; no file is read.")
@click.option("--tls", is_flag=True, help="With --listen: use TLS.")
@click.option("--ready", is_flag=True, help="Check /readyz (ready for traffic) instead of /healthz (alive).")
def health(*, config: Path, listen: str | None, tls: bool, ready: bool) -> None:
    r"""Check the health of the service of this configuration on this machine; for container health checks.

    Only the `listen` section is read, so that a fault elsewhere in the file does not make a running service unhealthy.

    \b
    Example:  sts health -c /etc/sts/sts.yaml --ready

    \b
    Exit status: 0 healthy, 1 unhealthy, or the address is not configured, 2 usage, 3 the service does not answer.
    """
    try:
        at = listening(config) if listen is None else listening_at(listen)
    except SettingsError as error:
        status = _EXIT_USAGE if isinstance(error, OptionError) else _EXIT_REFUSED
        _fail("\n".join(f"sts: {fault}" for fault in error.faults), status)
    path = "/readyz" if ready else "/healthz"
    try:
        status = _ask(at, path, tls=tls or at.tls is not None)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        _fail(f"sts: {printable(f'{at.bind} does not answer: {why}')}", _EXIT_UNREACHABLE)
    if status != http.HTTPStatus.OK:
        _fail(f"sts: {path} answered {status}", _EXIT_REFUSED)
    click.echo("ready" if ready else "alive")


def _fail(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)


def _ask(listen: Listen, path: str, *, tls: bool) -> int:
    """Send the request with the standard library, because the import of another HTTP client is slow."""
    connection: http.client.HTTPConnection
    bind = listen.bind
    if listen.is_unix:
        connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_TIMEOUT_S)
    else:
        host, _, port = bind.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - not bound here
        if tls:
            connection = http.client.HTTPSConnection(host, int(port), timeout=_TIMEOUT_S, context=_any_certificate())
        else:
            connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
    try:
        if listen.is_unix:
            connection.sock.connect(bind.removeprefix("unix:"))
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _any_certificate() -> ssl.SSLContext:
    """Return a context that verifies no certificate: the request contains no secret, and the file may be newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
