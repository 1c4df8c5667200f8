"""How the demo speaks: one heading and a few tables a step, and whether each thing was as promised."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPED_WIDTH: Final = 118


class Stage:
    """Prints the steps and remembers what failed. Colours and the terminal's width only where there is a terminal."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self._console = Console(width=width, highlight=False, markup=False, emoji=False)
        self._steps = 0
        self.failed: list[str] = []

    def step(self, title: str) -> None:
        """Begin a step."""
        self._steps += 1
        self._console.print()
        self._console.print(Text(f"{self._steps}. {title}", style="bold cyan"))

    def say(self, text: str) -> None:
        """Say something that is no check."""
        self._console.print(Text(f"   {text}", style="dim"), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Show rows under column names; None shows as a dash, and values that are no text as JSON."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_text(value)) for value in row))
        self._console.print(table)

    def check(self, promise: str, *, holds: bool, found: object = "") -> None:
        """Show whether `promise` holds; where it does not, show what was found, and remember it."""
        mark, style = ("ok", "green") if holds else ("FAILED", "bold red")
        self._console.print(Text.assemble("   ", (mark, style), f"  {promise}"), soft_wrap=True)
        if not holds:
            self.failed.append(promise)
            self._console.print(Text(f"       found: {_text(found)}", style="red"), soft_wrap=True)

    def fault(self, text: str) -> None:
        """Show that the demo itself broke off."""
        self.failed.append(text)
        self._console.print(Text(text, style="bold red"), soft_wrap=True)

    def end(self, seconds: float) -> int:
        """Say how it went; returns the exit status."""
        self._console.print()
        if self.failed:
            self._console.print(Text(f"{len(self.failed)} of the promises above did not hold", style="bold red"))
            return 1
        self._console.print(Text(f"Everything did what it says, in {seconds:.0f} s.", style="bold green"))
        return 0


def _text(value: Any) -> str:  # noqa: ANN401 - anything that JSON has
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, default=str)
