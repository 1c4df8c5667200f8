"""One rule of the configuration at a time: compiled, looked at, and tried on made-up data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sts.errors import StartError
from sts.expressions import Expression, ExpressionError, check_condition, check_reads, check_use, compile_rule
from sts.policy.table_files import FileTable
from sts.settings.checks import Parts
from sts.settings.faults import Finding, Trail, near, quote

Read = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class _Samples:
    """An example for every row: some row of its table."""

    files: Mapping[str, FileTable]

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        return self.files[pair[0]].sample()


@dataclass(frozen=True, slots=True)
class Compiler:
    """Compiles rules over `variables`, of which `known` says what some of them hold."""

    parts: Parts
    variables: frozenset[str]
    known: Mapping[str, frozenset[str]]
    _files: dict[str, FileTable | None] = field(default_factory=dict)

    def __call__(self, path: Trail, rule: str, read: Read | None = None, *, trial: bool = False) -> Iterator[Finding]:
        """Yield what is wrong with the rule at `path`, whose value is for `read`; without it, it is a condition.

        `trial`: it is judged beside the decision, and may not make anybody wait.
        """
        try:
            expression = compile_rule(rule, self.variables)
            check_reads(expression, self.known)
            if read is None:
                check_condition(expression)
        except ExpressionError as error:
            yield self._fault(path, error)
            return
        if trial and expression.lookups:
            hint = "map it to an attribute of the identity, and let the rule read that"
            yield Finding(path, "cannot look anything up: a table that is down would change the answer", hint)
            return
        looks_up = list(self._looks_up(path, expression))
        yield from looks_up
        if looks_up:
            return
        try:
            check_use(expression, read, self._samples(expression))
        except ExpressionError as error:
            yield self._fault(path, error)

    def _fault(self, path: Trail, error: ExpressionError) -> Finding:
        return Finding(path, f"is no valid rule: {error}", f"CEL over {', '.join(sorted(self.variables))}")

    def _looks_up(self, path: Trail, expression: Expression) -> Iterator[Finding]:
        tables = self.parts.entries("tables")
        for table, column in sorted(expression.lookups):
            file = self._file(table)
            if table not in tables:
                yield Finding(path, f"there is no table {quote(table)}", near(table, tables))
            elif column and file is not None and column not in file.columns:
                yield Finding(path, f"the table {table} has no column {quote(column)}", near(column, file.columns))

    def _samples(self, expression: Expression) -> _Samples | None:
        """Rows to try the rule on; None where one comes from elsewhere, and nobody knows what it may hold."""
        files = {table: self._file(table) for table, _ in expression.lookups}
        known = {table: file for table, file in files.items() if file is not None}
        return _Samples(known) if len(known) == len(files) else None

    def _file(self, table: str) -> FileTable | None:
        """The table, if it is one of a file that can be used."""
        if table not in self._files:
            settings = self.parts.tables.get(table)
            try:
                self._files[table] = settings.at_file() if settings is not None else None
            except StartError:
                self._files[table] = None  # told as a fault of the file
        return self._files[table]
