"""Tables from files (CSV, JSON, YAML), as read with the configuration. A reload reads them again."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml

from sts.errors import StartError
from sts.jose import UnfitError, strict_json
from sts.model import Row
from sts.options import KeptFile

MAX_BYTES: Final = 8_000_000
MAX_ROWS: Final = 100_000
MAX_COLUMNS: Final = 64
MAX_TEXT: Final = 4096
"""Maximum characters of one value."""
MAX_KEY: Final = 1024
"""Maximum characters of a key."""
MAX_NAMES: Final = 8
MAX_NAME: Final = 40
"""How many columns an error message lists, and how many characters of each."""

_LOADER: Final = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_DEEPEST: Final = 4  # the list, a row, a list of texts, and one level so that a fault can be reported
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}


class FileTable:
    """A `Table` of one file: read once, checked as a whole.

    `columns` are the columns of all rows. Raises StartError; its message names the row, never a value.
    """

    trouble: str = ""
    in_memory = True

    def __init__(self, file: KeptFile, key: str) -> None:
        try:
            self.columns, self._rows = _read(file, key)
        except ValueError as error:
            raise StartError(f"the table {file} cannot be used: {error}") from None

    def row(self, key: str, now: float) -> Row | None:  # noqa: ARG002 - as Table says
        """Return the row with this key; never waits. It is valid until the file is read again."""
        values = self._rows.get(key)
        return None if values is None else Row(values, float("inf"))

    def sample(self) -> Mapping[str, Any]:
        """Return a row to try rules on; an empty row if the table has none."""
        return next(iter(self._rows.values()), {})


def _read(file: KeptFile, key: str) -> tuple[frozenset[str], dict[str, dict[str, Any]]]:
    reader = _READERS.get(file.path.suffix.lower())
    if reader is None:
        raise ValueError("its name must end in .csv, .json, .yaml or .yml")
    content = file.read()
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    rows: dict[str, dict[str, Any]] = {}
    columns: set[str] = set()
    for place, row in reader(content):
        if len(rows) == MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS} rows")
        if len(row) > MAX_COLUMNS:
            raise ValueError(f"{place} has more than {MAX_COLUMNS} columns")
        if key not in row:
            raise ValueError(f'{place} has no key column "{key}"; it has {_names(row)}')
        found = {name: _value(value, f"{place}, {name}") for name, value in row.items() if value not in ("", None)}
        own = found.get(key)
        if not isinstance(own, str) or len(own) > MAX_KEY:
            quotes = "; put it between quotes" if isinstance(own, int) else ""
            raise ValueError(f'{place} has no text as its key, "{key}"{quotes}')
        if own in rows:
            raise ValueError(f"{place} has the same key as a row above it")
        rows[own] = found
        columns.update(found)
    return frozenset(columns), rows


def _names(row: Mapping[str, object]) -> str:
    """Return the first names of a row's columns for a message."""
    shown = ", ".join(f'"{name[:MAX_NAME]}"' for name in list(row)[:MAX_NAMES])
    return (shown or "none") + (", …" if len(row) > MAX_NAMES else "")


def _value(value: object, place: str) -> object:
    """Check that a value is a text, an integer, a boolean or a list of texts."""
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str) and (isinstance(value, list) or not isinstance(value, bool | int)):
            raise ValueError(f"{place}: neither a text, a whole number, true or false nor a list of texts")  # noqa: TRY004
        if isinstance(text, str) and (len(text) > MAX_TEXT or "\0" in text):
            raise ValueError(f"{place}: a text is longer than {MAX_TEXT} characters or holds NUL")
    return value


def _csv(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read CSV with a header row (RFC 4180). An empty cell counts as absent."""
    reader = csv.reader(io.StringIO(_text(content), newline=""), strict=True)
    try:
        header = next(reader, [])
        if not header or not all(header):
            raise ValueError("its first row must name every column")
        if len(set(header)) < len(header):
            raise ValueError("its first row names a column twice")
        for cells in reader:
            place = f"line {reader.line_num}"
            if cells and len(cells) != len(header):
                raise ValueError(f"{place} has {len(cells)} columns, the first row {len(header)}")
            if cells:  # skip an empty line
                yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not valid CSV: {error}") from None


def _json(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        found = strict_json(content)
    except UnfitError as error:
        raise ValueError(str(error)) from None
    return _list_of_rows(found)


def _yaml(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    events = iter(yaml.parse(_text(content), Loader=_LOADER))
    try:
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return _list_of_rows(None)
        found = _node(next(events), events, _DEEPEST)
        next(events)  # the document's end
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise ValueError("it holds a second YAML document")  # noqa: TRY004
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ValueError(f"line {line} is not valid YAML") from None
    except yaml.YAMLError:
        raise ValueError("it is not valid YAML") from None
    return _list_of_rows(found)


def _node(event: Any, events: Iterator[Any], depth: int) -> Any:  # noqa: ANN401 - PyYAML's events have no types
    """Read plain values as in YAML 1.2, like the configuration; no aliases, no duplicate names, limited nesting."""
    line = event.start_mark.line + 1
    if depth == 0 or isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag not in {None, "!"}:
        raise ValueError(f"line {line}: tags, anchors, aliases and deeper nesting are not read")
    if isinstance(event, yaml.ScalarEvent):
        text = str(event.value)
        if not event.implicit[0]:
            return text
        return _WORDS[text] if text in _WORDS else int(text) if _INTEGER.fullmatch(text) else text
    if isinstance(event, yaml.SequenceStartEvent):
        values: list[Any] = []
        while not isinstance(one := next(events), yaml.SequenceEndEvent):
            values.append(_node(one, events, depth - 1))
        return values
    found: dict[str, Any] = {}
    while not isinstance(name := next(events), yaml.MappingEndEvent):
        if not isinstance(name, yaml.ScalarEvent) or name.value in found:
            raise ValueError(f"line {name.start_mark.line + 1}: a name is not a text, or is a duplicate")
        found[str(name.value)] = _node(next(events), events, depth - 1)
    return found


def _list_of_rows(found: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(found, list):
        raise ValueError("it must be a list of rows, each a mapping of columns to values")  # noqa: TRY004
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not a mapping of columns to values")  # noqa: TRY004
        yield f"row {number}", row


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 text") from None


_READERS: Final[Mapping[str, Callable[[bytes], Iterator[tuple[str, dict[str, Any]]]]]] = {
    ".csv": _csv,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}
