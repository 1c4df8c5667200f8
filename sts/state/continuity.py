"""Whether a store is still the one that was seen before: an emptied one must not look like one of few records.

Each namespace has a random name, its epoch, and a number that grows with each change. A store whose epoch is gone or
another one was emptied or replaced; one whose number is lower was put back from a copy, or a failover lost its last
writes. What was seen is kept in memory and, for the next start, in a file in `var`. An operator who meant it says so
with `sts state accept`, which leaves a record in the store itself: every machine finds it there.

What this does not prove: that the store was not put back to a copy and then changed at least as often as before. A
machine that sees a store for the first time cannot know what it held. Marks have no number: they are believed as long
as the namespaces are.
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
"""How old the time in the file may be where nothing else has changed."""

_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Sight:
    """What a namespace was when it was last found good, at `at` (Unix seconds)."""

    epoch: str
    sequence: int
    at: float


_DAMAGED: Final = Sight("", 0, 0.0)
"""Read from a file that cannot be read: no store is the one that it spoke of."""


class Continuity:
    """What was seen of one namespace. `path` is the file for it, None keeps it in memory only.

    `clock` gives Unix seconds: an acceptance younger than the last good look counts, without it every one.
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
        """What was seen, here and by others on this machine; to be read before the store is looked at.

        What another worker sees meanwhile may well be newer.
        """
        return tuple(one for one in (self._seen, self._written()) if one is not None)

    def begin(self) -> None:
        """Give the namespace a name; where that cannot be written (the store is full), the next look tries it again."""
        with contextlib.suppress(StateUnavailableError):
            self._state.begin(self._namespace)

    def judge(self, known: Sequence[Sight], found: Cursor) -> str:
        """Why the store is not the one that is `known`, "" if it is. Raises StateUnavailableError."""
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
        """Keep what was found good. A file that cannot be written (a full disk) costs only the next start's memory."""
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
        """When an operator accepted this very store, 0 if none did."""
        record = self._state.get(NAMESPACE, KEY)
        if record is None:
            return 0.0
        _, content = decode(record.value or b"", FORM)
        at, epochs = content.get("at"), content.get("epochs")
        if not isinstance(at, int | float) or not isinstance(epochs, dict):
            raise StateUnavailableError("the record of `sts state accept` in the store is damaged")
        return float(at) if found.epoch and epochs.get(self._namespace) == found.epoch else 0.0


def seen_file(var: Path, store: str, namespace: str) -> Path:
    """Where a machine keeps what it has seen of a namespace in its store of this kind."""
    return var / f"state.{store}.{namespace}.seen"


def accept(state: State, namespaces: Sequence[str], now: float) -> None:
    """Let every machine take the store as it is now. Raises StateUnavailableError."""
    for namespace in namespaces:
        state.begin(namespace)
    epochs = {namespace: state.changes(namespace, None).cursor.epoch for namespace in namespaces}
    state.put(NAMESPACE, KEY, encode(FORM, {"at": now, "epochs": epochs}), expected=None)
