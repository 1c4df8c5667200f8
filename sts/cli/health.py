"""`sts health`: whether the service is alive, and ready."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import click

from sts.cli import common
from sts.settings import Settings

_TIMEOUT_S = 3.0


@click.command()
@common.config_option
@click.option("--ready", is_flag=True, help="Ask /readyz (may it take traffic?) instead of /healthz (is it alive?).")
def health(config: Path, ready: bool) -> None:  # noqa: FBT001 - a flag of the command line
    r"""Ask the service of this configuration on this machine how it is; for container health checks.

    \b
    Example:  sts health -c /etc/sts/sts.yaml --ready

    \b
    Exit status: 0 it is well, 1 it answers but is not, 2 usage, 3 it does not answer.
    """
    settings = common.load(config)
    path = "/readyz" if ready else "/healthz"
    try:
        status = _ask(settings, path)
    except (OSError, http.client.HTTPException) as error:
        common.fail(f"{settings.listen.bind} does not answer: {error}", common.EXIT_UNREACHABLE)
    if status != http.HTTPStatus.OK:
        common.fail(f"{path} answered {status}", common.EXIT_REFUSED)
    click.echo("ready" if ready else "alive")


def _ask(settings: Settings, path: str) -> int:
    """Ask by the standard library: a health check must not cost the start of a pooling client every few seconds."""
    bind = settings.listen.bind
    if settings.listen.is_unix:
        connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_TIMEOUT_S)
    else:
        host, _, port = bind.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - not bound here
        connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
    try:
        if settings.listen.is_unix:
            connection.sock.connect(bind.removeprefix("unix:"))
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
