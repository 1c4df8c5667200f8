"""A worker's own copy of a namespace, which follows the store: a look at it costs no round trip and takes no lock."""

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
"""How often everything is read anew: a store that was put back from a copy and changed since may look as if it grew."""
LIMIT: Final = 200_000
"""How many records a copy holds; beyond that the store counts as out of order."""


class Follower:
    """The records of one namespace. `monotonic` gives steady seconds; `on_fault` hears when looking begins to fail.

    `on_change` is called with all records after each change, in the thread that looked, and what it raises as
    StateUnavailableError counts as an outage. `continuity` outlives the process where it has a
    file. `start` runs a thread that looks every `poll` seconds: after the fork.
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
        """What was last seen, by key; those that are over may be among them. Not to be changed."""
        return self._known

    @property
    def age(self) -> float:
        """Seconds since the store was last seen; infinite before the first time."""
        return self._monotonic() - self._seen_at

    def refresh(self) -> bool:
        """Look at the store now; returns whether anything changed. Raises StateUnavailableError.

        A store that is not the one seen before (`lost` says why) counts as out of reach. What was known stays, and what
        the store holds now is added: a revocation counts although it was made in an emptied store.
        """
        with self._looking:
            return self._refresh()

    def _refresh(self) -> bool:
        seen = self._continuity.known()
        started = self._monotonic()
        whole = started - self._whole_at >= WHOLE_S
        known, cursor, whole = self._read(whole=whole)
        if not seen and not cursor.epoch:  # no worker has ever looked at it
            self._continuity.begin()
            known, cursor, whole = self._read(whole=True)
        self._cursor, self._whole_at = cursor, started if whole else self._whole_at
        lost = self._continuity.judge(seen, cursor)
        if lost:
            self.lost = lost
            self._take({**self._known, **(known or {})})
            raise StateUnavailableError(lost)
        self._continuity.saw(cursor)
        if self.lost:  # an operator accepted it: from now on what it holds counts, and nothing else
            self.lost, self._whole_at = "", -math.inf
            return self._refresh()
        changed = known is not None and self._take(known)
        self._seen_at = started
        self.fault = ""
        return changed

    def _read(self, *, whole: bool) -> tuple[dict[str, Record] | None, Cursor, bool]:
        """What the store holds, None if nothing is new; how far it was read, and whether from the beginning."""
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
        """Look at the store; a fault is told once, and kept in `fault` until the next look that succeeds."""
        try:
            self.refresh()
        except StateUnavailableError as error:
            self._report(str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours: the thread lives on, the store counts as unseen
            self._report(f"the look at the state failed: {type(error).__name__}")

    def start(self) -> None:
        """Look now, and from now on in a thread of its own."""
        self.look()
        self._thread = threading.Thread(target=self._run, name=f"follow-{self._namespace}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; waits until a look that is going on is over."""
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
