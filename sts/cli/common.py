"""Common parts of the commands: loading the configuration, printing faults, exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

import click
from rich.console import Console
from rich.text import Text

from sts import settings
from sts.settings import Fault, Settings, SettingsError

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3

_LONGEST_TEXT: Final = 1_000_000

_WIDE: Final = 200


def _console(*, stderr: bool) -> Console:
    """Return a console. On a pipe it uses no colours and wraps no lines, because a program may read the output."""
    on_a_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if on_a_terminal else _WIDE
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False, width=width)


console: Final = _console(stderr=False)
console_err: Final = _console(stderr=True)

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """Add the option `-c/--config FILE` to a command, which receives it as `config: Path`."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, readable=False),
        default=settings.default_config,
        metavar="FILE",
        help="The configuration; default: $STS_CONFIG, else ./sts.yaml.",
    )(command)


def load(config: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Load the configuration, or print its faults to standard error and end the command with exit status 1."""
    try:
        return settings.load(config, environment)
    except SettingsError as error:
        show_faults(error.faults, console_err)
        fail(summary(error.faults), EXIT_REFUSED)


def read_text(file: BinaryIO, what: str) -> str:
    """Read a credential or a secret; end the command with exit status 1 if it is not UTF-8 text, or too long."""
    found = file.read(_LONGEST_TEXT + 1)
    if len(found) > _LONGEST_TEXT:
        fail(f"{what} is longer than {_LONGEST_TEXT} bytes", EXIT_REFUSED)
    try:
        return found.decode().strip()
    except UnicodeDecodeError:
        fail(f"{what} is not UTF-8 text", EXIT_REFUSED)


def show_faults(faults: tuple[Fault, ...], to: Console, what: str = "") -> None:
    """Print faults grouped by file: `file:line  path  problem`, and below each the correct value.

    `what` is a prefix of each problem, such as "warning: ".
    """
    for number, (_, group) in enumerate(groupby(faults, key=lambda fault: fault.file)):
        if number:
            to.print()
        for fault in group:
            to.print(Text.assemble(*_fault_line(fault, what)))
            if fault.hint:
                to.print(Text(f"    → {settings.printable(fault.hint)}", style="dim"))


def _fault_line(fault: Fault, what: str) -> Iterator[tuple[str, str]]:
    yield settings.printable(fault.place), "bold"
    if fault.path:
        yield f"  {settings.printable(fault.path)}", "cyan"
    yield f"  {what}{settings.printable(fault.problem)}", "yellow" if what else ""


def summary(faults: tuple[Fault, ...]) -> str:
    """Return the number of faults and of files as text."""
    files = len({fault.file for fault in faults})
    count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
    return f"{count} in {files} files" if files > 1 else count


def fail(text: str, status: int = EXIT_REFUSED) -> NoReturn:
    """End the command with one line on standard error and this exit status."""
    console_err.print(Text(f"sts: {settings.printable(text)}", style="red"))
    sys.exit(status)
