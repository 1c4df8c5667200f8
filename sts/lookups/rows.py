"""Identity mapping by lookup: rows are fetched outside the evaluation, so that rules stay pure.

An evaluation that needs a row raises `RowsWanted`. The row is fetched here, outside of CEL, and the evaluation starts
again with all rows fetched so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from sts.errors import NO_MAPPING, Refusal
from sts.expressions import RowsWanted
from sts.model import Row

MAX_ROWS: Final = 4
"""Maximum rows that one request may look up: each may need a request to another server."""

Result = TypeVar("Result")


class Table(Protocol):
    """A table in use. `in_memory` is true if its rows never need to be waited for."""

    in_memory: bool

    def row(self, key: str, now: float) -> Row | None:
        """Return the row with this key, None if there is none. May wait. Raises SOURCE_UNREACHABLE on a failure."""

    @property
    def trouble(self) -> str:
        """Why the last request failed, "" if it succeeded; for operators."""


class Rows:
    """The rows of one request: those fetched so far, and the tables that have the others."""

    __slots__ = ("_at_hand", "_clock", "_tables", "fresh_until")

    def __init__(self, tables: Mapping[str, Table], clock: Callable[[], float]) -> None:
        self._tables, self._clock = tables, clock
        self._at_hand: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.fresh_until = float("inf")
        """When the first of the fetched rows expires (Unix seconds)."""

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        """Return the values of the row (table, key), None if it is not fetched yet."""
        return self._at_hand.get(pair)

    def given(self, evaluate: Callable[[], Result]) -> Result:
        """Return the result of `evaluate`, after fetching all rows that it needs. May wait for tables.

        Raises all errors of `evaluate`; NO_MAPPING if a row does not exist or more than MAX_ROWS are needed; and
        SOURCE_UNREACHABLE, which a rule cannot catch.
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
        except Refusal as refusal:  # the table does not know its own name: add it
            raise Refusal(refusal.reason, **refusal.facts, table=table) from None
        if row is None:
            raise Refusal(NO_MAPPING, why="there is no such row", table=table)
        self._at_hand[(table, key)] = row.values
        self.fresh_until = min(self.fresh_until, row.fresh_until)
