"""When each API key was last used: noted in memory with every use, written once in a while.

It serves people who ask whether a key can go, and decides nothing: it is neither exact nor authentic.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final

from sts.state.key_records import LATEST
from sts.state.state import Record, State, StateUnavailableError, decode, encode

NAMESPACE: Final = "api_keys_used"
FORM: Final = 1
EVERY_S: Final = 60.0
AT_ONCE: Final = 500
"""How many keys are written at one time at most; the others have their turn the next time."""
KEEP_S: Final = 400 * 86400.0


class LastUsed:
    """Writes what is in `used` (id, Unix seconds) every `every` seconds, in a thread of its own after the fork."""

    def __init__(self, state: State, used: Mapping[str, float], every: float = EVERY_S, at_once: int = AT_ONCE) -> None:
        self._state, self._used, self._every, self._at_once = state, used, every, at_once
        self._written: dict[str, float] = {}
        self.trouble = ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def flush(self) -> int:
        """Write what is new; returns how many. A store that takes no writes loses nothing: the next time will do.

        `trouble` says why the last time failed, "" if it did not.
        """
        new = [(key_id, at) for key_id, at in list(self._used.items()) if at - self._written.get(key_id, 0.0) >= 1]
        new.sort(key=lambda one: self._written.get(one[0], 0.0))  # who waits longest comes first
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
        """Write from now on."""
        self._thread = threading.Thread(target=self._run, name="api-keys-used", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write a last time and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            self.flush()
        self.flush()


def read_last_used(state: State) -> dict[str, int]:
    """When each key was last used, by id; what is no time counts as not known. Raises StateUnavailableError."""
    found = {record.key: _time_in(record) for record in state.list(NAMESPACE)}
    return {key_id: at for key_id, at in found.items() if at is not None}


def _time_in(record: Record) -> int | None:
    try:
        at = decode(record.value or b"", FORM)[1].get("at")
    except StateUnavailableError:
        return None
    return at if type(at) is int and 0 <= at <= LATEST else None
