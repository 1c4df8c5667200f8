"""Identity mapping by look-up: rows are fetched before the decision, so that rules stay pure.

An evaluation that needs a row says which (`RowsWanted`); the row is fetched here, outside of CEL, and the evaluation
begins anew with what is at hand by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from sts.errors import NO_MAPPING, Refusal
from sts.expressions import RowsWanted
from sts.model import Row

MAX_ROWS: Final = 4
"""Rows that one request may look up: each may be a question to somebody else."""

Result = TypeVar("Result")


class Table(Protocol):
    """A table at work. `in_memory` says that its rows are never waited for."""

    in_memory: bool

    def row(self, key: str, now: float) -> Row | None:
        """The row with this key, None if there is none. May wait. Raises SOURCE_UNREACHABLE if it cannot be known."""

    @property
    def trouble(self) -> str:
        """Why the last question was not answered, "" if it was; for operators."""


class Rows:
    """The rows of one request: what is at hand, and how the rest is fetched."""

    __slots__ = ("_at_hand", "_clock", "_tables", "fresh_until")

    def __init__(self, tables: Mapping[str, Table], clock: Callable[[], float]) -> None:
        self._tables, self._clock = tables, clock
        self._at_hand: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.fresh_until = float("inf")
        """Until when every row that was fetched may be used."""

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        """The values of the row (table, key), None if it is not at hand."""
        return self._at_hand.get(pair)

    def given(self, evaluate: Callable[[], Result]) -> Result:
        """What `evaluate` comes to once all rows that it wants are at hand. May wait for tables.

        Raises what `evaluate` does, NO_MAPPING where there is no such row or more than MAX_ROWS are wanted, and
        SOURCE_UNREACHABLE, whatever a rule would make of it.
        """
        while True:
            try:
                return evaluate()
            except RowsWanted as wanted:
                pairs = wanted.pairs
            for table, key in pairs:
                self._fetch(table, key)

    def _fetch(self, table: str, key: str) -> None:
        if len(self._at_hand) == MAX_ROWS:
            raise Refusal(NO_MAPPING, why=f"more than {MAX_ROWS} rows are looked up", table=table)
        try:
            row = self._tables[table].row(key, self._clock())
        except Refusal as refusal:  # whose answer it is that was missed, no table knows
            raise Refusal(refusal.reason, **refusal.facts, table=table) from None
        if row is None:
            raise Refusal(NO_MAPPING, why="there is no such row", table=table)
        self._at_hand[(table, key)] = row.values
        self.fresh_until = min(self.fresh_until, row.fresh_until)
