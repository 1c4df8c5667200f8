"""When each API key was last used: recorded in memory at every use, written periodically.

The time helps operators to find unused keys. It is neither exact nor authentic, and no decision depends on it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from sts.state.key_records import LATEST
from sts.state.state import Record, State, StateUnavailableError, decode, encode

NAMESPACE: Final = "api_keys_used"
FORM: Final = 1
EVERY_S: Final = 60.0
AT_ONCE: Final = 500
"""The maximum number of keys per write; the others follow at the next one."""
KEEP_S: Final = 400 * 86400.0


class LastUsed:
    """Writes the times in `used` (id -> Unix seconds) every `every` seconds in a thread; start it after the fork."""

    def __init__(self, state: State, used: Mapping[str, float], every: float = EVERY_S, at_once: int = AT_ONCE) -> None:
        self._state, self._used, self._every, self._at_once = state, used, every, at_once
        self._written: dict[str, float] = {}
        self.trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def flush(self) -> int:
        """Write the new times; returns their number. After a failure the next call writes them.

        `trouble` contains the reason of the last failure, "" after a success.
        """
        new = [(key_id, at) for key_id, at in list(self._used.items()) if at - self._written.get(key_id, 0.0) >= 1]
        new.sort(key=lambda one: self._written.get(one[0], 0.0))  # the longest waiting first
        count = 0
        try:
            for key_id, at in new[: self._at_once]:
                value = encode(FORM, {"at": int(at)})
                self._state.put(NAMESPACE, key_id, value, expected=None, until=at + KEEP_S)
                self._written[key_id] = at
                count += 1
        except StateUnavailableError as error:
            self.trouble = str(error)
        else:
            self.trouble = ""
        return count

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="api-keys-used", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write once more and stop the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            self.flush()
        self.flush()


def read_last_used(state: State, key_ids: Sequence[str] | None = None) -> dict[str, int]:
    """When each key was last used, by id; what is no time counts as not known. Raises StateUnavailableError.

    `key_ids` are at most `BATCH` keys to look at; None for all.
    """
    there = state.list(NAMESPACE) if key_ids is None else state.get_many(NAMESPACE, key_ids)
    found = {record.key: _time_in(record) for record in there}
    return {key_id: at for key_id, at in found.items() if at is not None}


def _time_in(record: Record) -> int | None:
    try:
        at = decode(record.value or b"", FORM)[1].get("at")
    except StateUnavailableError:
        return None
    return at if type(at) is int and 0 <= at <= LATEST else None
