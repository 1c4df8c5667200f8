"""The one small interface to what must not be lost, and the values and errors that pass it.

Two sorts of things are kept. A *mark* says that a proof was used; it is set once and goes by itself. A *record* is a
small value by namespace and key, changed by compare-and-swap; every change has a number, so that each worker's memory
follows the store by asking "what is new since".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sts.errors import StsError

PAGE: Final = 1000
"""How many changes come at once at most."""
KEEP_DELETED_S: Final = 3600.0
"""How long it is remembered that a record was deleted; who has not asked for longer reads everything anew."""
ABSENT: Final = 0
"""The version of a record that is not there."""
FOREVER: Final = math.inf


class StateUnavailableError(StsError):
    """The store did not answer, or holds what this release cannot read; whether it had done a write is not known.

    The text says why, and nothing of what the store holds.
    """


class AlreadyMarkedError(StsError):
    """The proof was used before."""


class ConflictError(StsError):
    """The record is no longer the one that was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A value under its key. `version` changes with every write and never comes again; `until` (Unix seconds) ends it.

    `value` is None where the change is that the record was deleted.
    """

    key: str
    value: bytes | None = field(repr=False)
    version: int
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one has read: the store's own random name (another one: another store), and the last change's number.

    A namespace to which nothing was ever written may have no name yet: "".
    """

    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new since a cursor, oldest first, and the cursor for the next question.

    `reset`: forget what you know of the namespace, this is where everything begins. `more`: ask again at once.
    """

    cursor: Cursor
    records: tuple[Record, ...]
    reset: bool = False
    more: bool = False


class State(Protocol):
    """A store. Threads may share it, a fork may not: open it after. Every method raises StateUnavailableError."""

    def check(self) -> None:
        """Look whether the store can be used at all; makes it where it is a file. Raises StartError as well."""

    def mark(self, key: bytes, until: float) -> None:
        """Mark `key` as used until `until` (Unix seconds). Raises AlreadyMarkedError if it was, and is not over.

        Of all who mark one key at the same time, in any process, exactly one is not refused. Prove first, then mark:
        a forged proof must burn no mark.
        """

    def get(self, namespace: str, key: str) -> Record | None:
        """The record, or None where there is none or it is over."""

    def put(self, namespace: str, key: str, value: bytes, *, expected: int | None, until: float = FOREVER) -> int:
        """Write a record if its version is still `expected` (`ABSENT`: it is not there; None: whatever is there).

        Returns the new version. Raises ConflictError.
        """

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> None:
        """Delete a record, if there is one and its version is still `expected`. Raises ConflictError."""

    def list(self, namespace: str) -> tuple[Record, ...]:
        """All records of a namespace that are not over, by key."""

    def changes(self, namespace: str, since: Cursor | None) -> Changes:
        """What is new in a namespace since `since`; None begins at the beginning."""

    def begin(self, namespace: str) -> None:
        """Give a namespace its epoch, if it has none yet: by that it is seen if all that it holds is gone one day."""

    def close(self) -> None:
        """Let go of the store; the next use opens it again."""


def read_all(state: State, namespace: str) -> dict[str, Record]:
    """All records of a namespace by key, page by page; those that are over may be among them."""
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
    """Bring what is known of a namespace up to `changes`."""
    for record in changes.records:
        if record.value is None:
            known.pop(record.key, None)
        else:
            known[record.key] = record


def encode(form: int, content: Mapping[str, Any]) -> bytes:
    """A record's value: JSON behind the number of its format."""
    return b"%d %s" % (form, json.dumps(content, separators=(",", ":"), sort_keys=True).encode())


def decode(value: bytes, form: int) -> tuple[int, dict[str, Any]]:
    """Read what `encode` wrote, in the format `form` or the one before it; returns which, and the content.

    Raises StateUnavailableError for anything else: what a newer release has written must not be taken for nothing.
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
