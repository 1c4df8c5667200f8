"""A worker's copy of a namespace, which follows the store: reading the copy needs no round trip and no lock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from sts.state.continuity import Continuity
from sts.state.state import Cursor, Record, State, StateUnavailableError, apply

POLL_S: Final = 1.0
WHOLE_S: Final = 60.0
"""Seconds between two complete reads: a store that was restored and then changed may look as if it had only grown."""
LIMIT: Final = 200_000
"""The maximum number of records in a copy; a store with more records counts as an outage."""


class Follower:
    """A copy of the records of one namespace. Call `start` after the fork: it starts a thread.

    Args:
        state: The store.
        namespace: The namespace.
        on_change: Called with all records after each change, in the thread that read the store. If it raises
            StateUnavailableError, that counts as an outage.
        on_fault: Called when reading begins to fail, or fails for another reason.
        poll: Seconds between two reads.
        monotonic: A monotonic clock in seconds.
        continuity: Detects a store that was emptied or restored; with a file, also across restarts.
    """

    def __init__(
        self,
        state: State,
        namespace: str,
        on_change: Callable[[Mapping[str, Record]], None] = lambda _: None,
        on_fault: Callable[[str], None] = lambda _: None,
        *,
        poll: float = POLL_S,
        monotonic: Callable[[], float] = time.monotonic,
        continuity: Continuity | None = None,
    ) -> None:
        self._state = state
        self._namespace = namespace
        self._on_change = on_change
        self._on_fault = on_fault
        self._poll = poll
        self._monotonic = monotonic
        self._known: dict[str, Record] = {}
        self._cursor: Cursor | None = None
        self._whole_at = -math.inf
        self._seen_at = -math.inf
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._continuity = continuity or Continuity(state, namespace)
        self.fault = ""
        self.lost = ""

    @property
    def records(self) -> Mapping[str, Record]:
        """The records of the last read, by key; expired ones may be among them. Do not change the mapping."""
        return self._known

    @property
    def age(self) -> float:
        """Seconds since the store was last read successfully; infinite before the first time."""
        return self._monotonic() - self._seen_at

    def refresh(self) -> bool:
        """Read the store now; returns whether anything changed. Raises StateUnavailableError.

        A store that was emptied or restored (`lost` contains the reason) counts as unreachable. The known records stay,
        and the records of the store are added: a revocation applies although it was made in an emptied store.
        """
        with self._looking:
            return self._refresh()

    def _refresh(self) -> bool:
        seen = self._continuity.known()
        started = self._monotonic()
        whole = started - self._whole_at >= WHOLE_S
        known, cursor, whole = self._read(whole=whole)
        if not seen and not cursor.epoch:  # no worker has ever read it
            self._continuity.begin()
            known, cursor, whole = self._read(whole=True)
        self._cursor, self._whole_at = cursor, started if whole else self._whole_at
        lost = self._continuity.judge(seen, cursor)
        if lost:
            self.lost = lost
            self._take({**self._known, **(known or {})})
            raise StateUnavailableError(lost)
        self._continuity.saw(cursor)
        if self.lost:  # an operator accepted the store: from now on only its records count
            self.lost, self._whole_at = "", -math.inf
            return self._refresh()
        changed = known is not None and self._take(known)
        self._seen_at = started
        self.fault = ""
        return changed

    def _read(self, *, whole: bool) -> tuple[dict[str, Record] | None, Cursor, bool]:
        """Return the records (None if there is no change), the cursor, and whether everything was read."""
        cursor = None if whole else self._cursor
        known: dict[str, Record] | None = {} if whole else None
        while True:
            changes = self._state.changes(self._namespace, cursor)
            if changes.reset:
                known, whole = {}, True
            elif changes.records and known is None:
                known = dict(self._known)
            if known is not None:
                apply(known, changes)
                if len(known) > LIMIT:
                    raise StateUnavailableError(f"there are more than {LIMIT} {self._namespace} in the store")
            cursor = changes.cursor
            if not changes.more:
                return known, cursor, whole

    def _take(self, known: dict[str, Record]) -> bool:
        changed = known != self._known
        if changed:
            self._on_change(known)
            self._known = known
        return changed

    def look(self) -> None:
        """Read the store; a fault is reported once, and stays in `fault` until the next successful read."""
        try:
            self.refresh()
        except StateUnavailableError as error:
            self._report(str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours: the thread continues, the read counts as failed
            self._report(f"the look at the state failed: {type(error).__name__}")

    def start(self) -> None:
        """Read the store now, and start the thread that reads it every `poll` seconds."""
        self.look()
        self._thread = threading.Thread(target=self._run, name=f"follow-{self._namespace}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for a read in progress."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._poll):
            self.look()

    def _report(self, fault: str) -> None:
        known, self.fault = self.fault, fault
        if fault != known:
            self._on_fault(fault)
