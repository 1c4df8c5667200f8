"""Common parts of the commands: loading the configuration, printing faults, exit statuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

import click
from rich.console import Console
from rich.text import Text

from sts import settings
from sts.settings import Fault, Settings, SettingsError
from sts.state.state import BATCH

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


limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")


def page_of(ids: Sequence[str], after: str | None, limit: int | None) -> Sequence[str]:
    """The part of `ids` behind the id `after`, at most `limit` of them; ends the command where there is no `after`."""
    if after is not None:
        if after not in ids:
            fail(f"--after: there is no {after}")
        ids = ids[ids.index(after) + 1 :]
    return ids[:limit]


def write_json_list(objects: Iterable[Mapping[str, object]], indent: int = 1) -> None:
    """Write a JSON list piece by piece, as `json.dumps(…, indent=1)` writes the whole one."""
    space = " " * indent
    before = "["
    for one in objects:
        text = json.dumps(one, indent=1).replace("\n", f"\n{space}")
        click.echo(f"{before}\n{space}{text}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else f"\n{space[1:]}]", nl=False)


def write_columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Write many rows as plain columns, as wide as in the first rows; returns how many there were.

    A table that rich lays out costs a millisecond a row and holds every row in memory.
    """
    rows = iter(rows)
    first = [tuple(titles), *islice(rows, BATCH)]
    widths = [max(len(row[at]) for row in first) for at in range(len(titles))]
    count = -1
    for row in chain(first, rows):
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        count += 1
    return count
