"""Detect a state store that was emptied, replaced or restored: an emptied store must not look like a new one.

Each namespace has a random id, its epoch, and a sequence number that increases with each change. If the epoch is
missing or different, the store was emptied or replaced. If the number is lower, the store was restored from a copy, or
a failover lost its last writes. The last state is kept in memory and, for the next start, in a file in `var`. An
operator who did it on purpose runs `sts state accept`, which writes a record to the store that every machine reads.

What this does not prove: that the store was not restored and then changed at least as often as before. A machine that
reads a store for the first time cannot detect a loss. Replay marks have no sequence number: they are trusted as long as
the namespaces are.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from keys.files import make_folder, replace_file
from sts.state.state import Cursor, State, StateUnavailableError, decode, encode

NAMESPACE: Final = "accepted"
KEY: Final = "store"
FORM: Final = 1
KEPT_S: Final = 60.0
"""The maximum age in seconds of the time in the file, if nothing else has changed."""

_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Sight:
    """The epoch and sequence number of a namespace at the last good read, at the time `at` (Unix seconds)."""

    epoch: str
    sequence: int
    at: float


_DAMAGED: Final = Sight("", 0, 0.0)
"""The value for an unreadable file; no store matches it."""


class Continuity:
    """The last known state of one namespace. `path` is its file, None: in memory only.

    `clock` returns Unix seconds: only an acceptance after the last good read counts. Without `clock` each counts.
    """

    def __init__(
        self, state: State, namespace: str, path: Path | None = None, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._state = state
        self._namespace = namespace
        self._path = path
        self._clock = clock
        self._seen: Sight | None = None

    def known(self) -> tuple[Sight, ...]:
        """Return the last states seen by this worker and by others on this machine. Call it before reading the store.

        During the read, another worker may see a newer state.
        """
        return tuple(one for one in (self._seen, self._written()) if one is not None)

    def begin(self) -> None:
        """Give the namespace an epoch; if that cannot be written (the store is full), the next read tries again."""
        with contextlib.suppress(StateUnavailableError):
            self._state.begin(self._namespace)

    def judge(self, known: Sequence[Sight], found: Cursor) -> str:
        """Return why the store does not continue the `known` states, "" if it does. Raises StateUnavailableError."""
        strange = [one for one in known if one.epoch != found.epoch or one.sequence > found.sequence or not one.epoch]
        if not strange or self._accepted(found) > max(one.at for one in strange):
            return ""
        if any(one.epoch == found.epoch for one in strange):
            why = "is older than it was: it was put back from a copy, or a failover lost its last writes"
        else:
            why = "was emptied or replaced" if found.epoch else "was emptied"
        what = f"its {self._namespace} are not those seen before"
        return f"the state store {why} ({what}): restore it, or run `sts state accept`"

    def saw(self, found: Cursor) -> None:
        """Record a good read. If the file cannot be written (a full disk), only the next start lacks the record."""
        if not found.epoch:
            return
        self._seen = seen = Sight(found.epoch, found.sequence, self._clock())
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            there = self._written()
            same = there is not None and (there.epoch, there.sequence) == (seen.epoch, seen.sequence)
            if there is not None and same and seen.at - there.at < KEPT_S:
                return
            make_folder(self._path.parent)
            new = self._path.with_name(f"{self._path.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
            replace_file(self._path, new, json.dumps(asdict(seen)).encode() + b"\n", durable=True)

    def _written(self) -> Sight | None:
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_MAX_BYTES))
            return Sight(str(found["epoch"]), int(found["sequence"]), float(found["at"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return _DAMAGED

    def _accepted(self, found: Cursor) -> float:
        """Return when an operator accepted the store with this epoch, 0 if none did."""
        record = self._state.get(NAMESPACE, KEY)
        if record is None:
            return 0.0
        _, content = decode(record.value or b"", FORM)
        at, epochs = content.get("at"), content.get("epochs")
        if not isinstance(at, int | float) or not isinstance(epochs, dict):
            raise StateUnavailableError("the record of `sts state accept` in the store is damaged")
        return float(at) if found.epoch and epochs.get(self._namespace) == found.epoch else 0.0


def seen_file(var: Path, store: str, namespace: str) -> Path:
    """Return the file in which a machine records the last state of a namespace in this kind of store."""
    return var / f"state.{store}.{namespace}.seen"


def accept(state: State, namespaces: Sequence[str], now: float) -> None:
    """Write the record by which every machine accepts the present store. Raises StateUnavailableError."""
    for namespace in namespaces:
        state.begin(namespace)
    epochs = {namespace: state.changes(namespace, None).cursor.epoch for namespace in namespaces}
    state.put(NAMESPACE, KEY, encode(FORM, {"at": now, "epochs": epochs}), expected=None)
