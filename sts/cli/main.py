"""The command `sts`. A sub-command's module is imported when it is called, so that `sts --help` answers at once."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any, Final

import click

from sts.errors import StartError
from sts.server.prctl import forbid_core_dumps

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("sts.cli.init:init", "Write a first configuration with fresh secrets."),
    "serve": ("sts.cli.serve:serve", "Run the service."),
    "check": ("sts.cli.check:check", "List everything that is wrong in a configuration."),
    "explain": (
        "sts.cli.explain.command:explain",
        "Walk one request through the service and say what each step made of it.",
    ),
    "exchange": ("sts.cli.exchange:exchange", "Ask a running service for a token and show what it holds."),
    "keys": ("sts.cli.keys.commands:keys", "Make, list, rotate and revoke the signing keys."),
    "revoke": ("sts.cli.revoke:revoke", "Refuse at once what was proven or minted up to now."),
    "revocations": ("sts.cli.revoke:revocations", "List what is revoked."),
    "api-keys": ("sts.cli.api_keys.commands:api_keys", "Make, list, revoke, rotate and import API keys."),
    "state": ("sts.cli.state:state", "Accept a state store that was emptied or put back on purpose."),
    "clients": ("sts.cli.clients:clients", "Make the secrets that gateways call with."),
    "shadow": ("sts.cli.shadow:shadow", "Sum up what rules on trial would have done."),
    "backends": ("sts.cli.backends:backends", "Make the key pairs that tokens are encrypted to."),
    "health": ("sts.cli.health:health", "Ask the service on this machine how it is."),
    "version": ("sts.cli.main:version", "Print the version."),
}
"""Command, where it is, and its line in `sts --help`."""


class Commands(click.Group):
    """Sub-commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which a newcomer needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the command; None for an unknown one."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        _keep_lines(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command; what cannot start says so on one line, never with a traceback."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            from sts.cli.common import fail  # noqa: PLC0415 - `sts --help` must not wait for it

            fail(str(error))


def _keep_lines(command: click.Command) -> None:
    """Docstrings are raw texts; click's mark for "leave these lines as they are" is a backspace."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _keep_lines(below)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sts", message="sts %(version)s", help="Print the version and exit.")
def cli() -> None:
    r"""Token service beside an API gateway: any credential in, a short-lived internal JWT out.

    \b
    A first start:
      sts init            writes sts.yaml and prints the gateway's secret, once
      sts check           says what is wrong in it, if anything
      sts serve           runs the service

    \b
    Exit status of every command: 0 done, 1 refused or faulty, 2 usage, 3 unreachable.
    """


@click.command()
def version() -> None:
    r"""Print the version.

    \b
    Example:  sts version

    \b
    Exit status: 0 done, 2 usage.
    """
    click.echo(f"sts {metadata.version('sts')}")


_keep_lines(cli)


def main() -> None:
    """Run the command line."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # the next file to be opened would take its place, and its output
        sys.exit("sts: standard input, output and error must be open; /dev/null will do")
    forbid_core_dumps()
    cli(prog_name="sts")
