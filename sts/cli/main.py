"""The command `sts`. The module of a sub-command is imported when it is called, so that `sts --help` is fast."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any, Final

import click

from sts.errors import StartError
from sts.server.prctl import forbid_core_dumps

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("sts.cli.init:init", "Write a first configuration with a new client secret."),
    "serve": ("sts.cli.serve:serve", "Run the service."),
    "check": ("sts.cli.check:check", "List the faults of a configuration."),
    "explain": (
        "sts.cli.explain.command:explain",
        "Process one request without a service and print the result of each step.",
    ),
    "exchange": ("sts.cli.exchange:exchange", "Request a token from a running service and print its content."),
    "keys": ("sts.cli.keys.commands:keys", "Create, list, rotate and revoke the signing keys."),
    "revoke": ("sts.cli.revoke:revoke", "Revoke credentials and tokens that were issued up to now."),
    "revocations": ("sts.cli.revoke:revocations", "List the revocations."),
    "api-keys": ("sts.cli.api_keys.commands:api_keys", "Create, list, revoke, rotate and import API keys."),
    "state": ("sts.cli.state:state", "Accept a state store that was emptied or restored on purpose."),
    "clients": ("sts.cli.clients:clients", "Generate secrets for gateways."),
    "shadow": ("sts.cli.shadow:shadow", "Report what rules on trial would have decided."),
    "backends": ("sts.cli.backends:backends", "Generate key pairs for encrypted tokens."),
    "health": ("sts.cli.health:health", "Check the health of the service on this machine."),
    "version": ("sts.cli.main:version", "Print the version."),
}
"""Each command with its function and its line in `sts --help`."""


class Commands(click.Group):
    """Sub-commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order in which a new user needs them."""
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
        """Run the command; a StartError ends it with one line, without a traceback."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            from sts.cli.common import fail  # noqa: PLC0415 - `sts --help` must not wait for it

            fail(str(error))


def _keep_lines(command: click.Command) -> None:
    """Translate the escape of raw docstrings to a backspace, which is the mark of click for unwrapped lines."""
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _keep_lines(below)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sts", message="sts %(version)s", help="Print the version and exit.")
def cli() -> None:
    r"""Token service for API gateways: exchanges an external credential for a short-lived internal JWT.

    \b
    A first start:
      sts init            writes sts.yaml and prints the gateway's secret, once
      sts check           lists its faults
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
    if None in (sys.stdin, sys.stdout, sys.stderr):  # the next opened file would get its descriptor, and its output
        sys.exit("sts: standard input, output and error must be open; /dev/null will do")
    forbid_core_dumps()
    cli(prog_name="sts")
