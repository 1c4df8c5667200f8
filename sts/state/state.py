"""The interface of the state store, with its values and errors.

The store keeps two kinds of data. A *mark* means that a proof was used; it is set once and expires. A *record* is a
small value by namespace and key, changed by compare-and-swap. Every change has a sequence number, so that each worker
can read the changes since its last read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from sts.errors import StsError

Item = TypeVar("Item")

PAGE: Final = 1000
"""How many changes come at once at most."""
BATCH: Final = 500
"""How many records are read or written by key at once at most."""
KEEP_DELETED_S: Final = 3600.0
"""Seconds for which a deletion is recorded; a reader whose last read is older must read everything again."""
ABSENT: Final = 0
"""The version of a missing record."""
FOREVER: Final = math.inf


class StateUnavailableError(StsError):
    """The store did not answer, or contains data that this release cannot read. A write may have happened.

    The message contains the reason, and no content of the store.
    """


class AlreadyMarkedError(StsError):
    """The proof was used before."""


class ConflictError(StsError):
    """The record has changed since it was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value under its key; it expires at `until` (Unix seconds). `version` changes with every write and is unique.

    `value` is None for a deleted record.
    """

    key: str
    value: bytes | None = field(repr=False)
    version: int
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class Write:
    """A record to be written, as the arguments of `State.put`. `value` None deletes."""

    key: str
    value: bytes | None = field(repr=False)
    expected: int | None
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position of a reader: the random id of the store (another id: another store), and the last change's number.

    A namespace without any write may have no id yet: "".
    """

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes since a cursor, oldest first, and the next cursor.

    `reset`: the reader must drop its records; these changes start from the beginning. `more`: there are more changes.
    """

    cursor: Cursor
    records: tuple[Record, ...]
    reset: bool = False
    more: bool = False


class State(Protocol):
    """A store. Threads may share it; open it after a fork. Every method may raise StateUnavailableError."""

    def check(self) -> None:
        """Check that the store can be used; creates a missing file. Also raises StartError."""

    def mark(self, key: bytes, until: float) -> None:
        """Mark `key` as used until `until` (Unix seconds). Raises AlreadyMarkedError if an unexpired mark exists.

        Of concurrent calls with the same key, in all processes, exactly one succeeds. Prove first, then mark: a forged
        proof must not consume a mark.
        """

    def get(self, namespace: str, key: str) -> Record | None:
        """Return the record, None if it is missing or has expired."""

    def put(self, namespace: str, key: str, value: bytes, *, expected: int | None, until: float = FOREVER) -> int:
        """Write a record if its version is still `expected` (`ABSENT`: it is missing; None: any version).

        Returns the new version. Raises ConflictError.
        """

    def put_many(self, namespace: str, writes: Sequence[Write]) -> tuple[int | None, ...]:
        """Write several records in one step, at most `BATCH`; returns each new version, None where `put` had raised.

        Where the store fails, none or all of them may be written: each may be written again.
        """

    def keys(self, namespace: str) -> tuple[str, ...]:
        """The keys of a namespace, in order. Records that were deleted or have ended may be among them."""

    def get_many(self, namespace: str, keys: Sequence[str]) -> tuple[Record, ...]:
        """Those of at most `BATCH` records that are there and have not ended, in the order of `keys`."""

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> None:
        """Delete a record, if there is one and its version is still `expected`. Raises ConflictError."""

    def list(self, namespace: str) -> tuple[Record, ...]:
        """Return all unexpired records of a namespace, by key."""

    def changes(self, namespace: str, since: Cursor | None) -> Changes:
        """Return the changes of a namespace since `since`; None: from the beginning."""

    def begin(self, namespace: str) -> None:
        """Give a namespace its epoch, if it has none yet; a missing epoch later reveals a loss of all records."""

    def close(self) -> None:
        """Close the store; the next use opens it again."""


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in parts of at most `BATCH`."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def records(state: State, namespace: str) -> Iterator[Record]:
    """Every record of a namespace in the order of keys, read in batches, so that memory holds one batch at a time."""
    for keys in batches(state.keys(namespace)):
        yield from state.get_many(namespace, keys)


def read_all(state: State, namespace: str) -> dict[str, Record]:
    """Return all records of a namespace by key, read in pages; expired ones may be among them."""
    found: dict[str, Record] = {}
    changes = state.changes(namespace, None)
    while True:
        if changes.reset:
            found.clear()
        apply(found, changes)
        if not changes.more:
            return found
        changes = state.changes(namespace, changes.cursor)


def apply(known: dict[str, Record], changes: Changes) -> None:
    """Apply `changes` to the known records of a namespace."""
    for record in changes.records:
        if record.value is None:
            known.pop(record.key, None)
        else:
            known[record.key] = record


def encode(form: int, content: Mapping[str, Any]) -> bytes:
    """Return the value of a record: the number of its format, then JSON."""
    return b"%d %s" % (form, json.dumps(content, separators=(",", ":"), sort_keys=True).encode())


def decode(value: bytes, form: int) -> tuple[int, dict[str, Any]]:
    """Read the output of `encode` in the format `form` or the previous one; returns the format and the content.

    Raises StateUnavailableError for other data: a record of a newer release must not count as missing.
    """
    number, _, text = value.partition(b" ")
    try:
        found, content = int(number), json.loads(text)
    except (ValueError, RecursionError):
        raise StateUnavailableError("a record in the store is damaged") from None
    if found not in (form, form - 1) or not isinstance(content, dict):
        raise StateUnavailableError(
            f"a record in the store has format {found}; this release reads {form - 1} and {form}"
        )
    return found, content
