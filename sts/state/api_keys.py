"""A worker's copy of the API keys, which follows the store and verifies a key without a round trip."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from typing import Final

from sts.errors import MALFORMED, REVOKED, STATE_UNAVAILABLE, UNKNOWN_KEY, Refusal
from sts.state.change_feed import Follower
from sts.state.continuity import Continuity
from sts.state.key_records import NAMESPACE, ApiKey, KeyRecords, digest, id_of
from sts.state.settings import StateSettings
from sts.state.state import FOREVER, Record

_NOBODY: Final = "0" * 64


class ApiKeys:
    """A worker's copy of all keys.

    Args:
        records: Reads the records in the store.
        clock: Returns Unix seconds.
        settings: A copy older than `max_stale` counts as an outage, because it may lack a revocation.
        on_fault: Called when the store becomes unreachable, and for records that are not authentic, or older than a
            record that was seen.
        monotonic: A monotonic clock in seconds.
        continuity: Detects a store that was emptied or restored.
    """

    def __init__(
        self,
        records: KeyRecords,
        clock: Callable[[], float],
        settings: StateSettings,
        on_fault: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        continuity: Continuity | None = None,
    ) -> None:
        self.settings = settings
        self.used: dict[str, float] = {}
        self._records = records
        self._clock = clock
        self._on_fault = on_fault
        self._keys: Mapping[str, ApiKey] = {}
        self._parsed: Mapping[str, ApiKey | None] = {}
        self._newest: dict[str, ApiKey] = {}
        self._faults: Mapping[str, str] = {}
        self.follower = Follower(
            records.state, NAMESPACE, self._changed, on_fault, monotonic=monotonic, continuity=continuity
        )

    @property
    def trouble(self) -> str:
        """Why the last read of the store failed, "" if it succeeded."""
        return self.follower.fault

    def __len__(self) -> int:
        return len(self._keys)

    def known(self, prefix: str, text: str) -> str:
        """Return the id in a key text if such a key exists, else "". This proves nothing. Never waits."""
        key_id = id_of(prefix, text)
        return key_id if key_id in self._keys else ""

    def prove(self, source: str, prefix: str, text: str) -> ApiKey:
        """Return the key with exactly this text. The pipeline checks its expiry.

        Raises:
            MALFORMED: The text cannot be a key, or its checksum is wrong.
            UNKNOWN_KEY, REVOKED: There is no such key, or it was revoked.
            STATE_UNAVAILABLE: The copy is too old, or the store has lost its content.
        """
        key_id = id_of(prefix, text)
        if not key_id:
            raise Refusal(MALFORMED, why="not an API key, or its checksum is wrong")
        self._check_fresh()
        key = self._keys.get(key_id)
        if key is None and self.follower.lost:  # it may have been lost with the store
            raise Refusal(STATE_UNAVAILABLE, why=self.follower.lost)
        same = hmac.compare_digest(digest(text), _NOBODY if key is None else key.digest)
        if key is None or not same or key.source != source:
            raise Refusal(UNKNOWN_KEY, why="no such API key at this source", key=key_id if key else None)
        if key.revoked_at is not None:
            raise Refusal(REVOKED, why="the API key was revoked", key=key_id)
        self.used[key_id] = self._clock()
        return key

    def current(self, proof: str) -> bool:
        """Return whether a cached token of this key is still valid. Takes no lock and makes no request."""
        key = self._keys.get(proof.partition(":")[0])
        if key is None or key.proof != proof or key.revoked_at is not None or self._stale():
            return False
        self.used[key.id] = self._clock()
        return True

    def _stale(self) -> bool:
        age = self.follower.age
        return age > self.settings.max_stale and (self.settings.on_outage.revocation == "deny" or age == FOREVER)

    def _check_fresh(self) -> None:
        if self._stale():
            why = self.follower.fault or "the API keys were never seen"
            raise Refusal(STATE_UNAVAILABLE, why=why, unseen_s=round(min(self.follower.age, 1e9)))

    def _changed(self, records: Mapping[str, Record]) -> None:
        """Use the records of the store; an older record never replaces a newer one that was seen before."""
        found: dict[str, ApiKey] = {}
        faults: dict[str, str] = {}
        for key_id, key in self._parse(records).items():
            newest = self._newest.get(key_id)
            if key is None:
                faults[key_id] = "is not authentic: another writer changed it in the store"
            elif newest is not None and key.rank < newest.rank:
                faults[key_id] = "was put back to before its latest change"
                found[key_id] = newest
            else:
                found[key_id] = key
                if key.rank > (False, 1):
                    self._newest[key_id] = key
        for key_id, fault in faults.items():
            if self._faults.get(key_id) != fault:
                self._on_fault(f"the record of API key {key_id} {fault}")
        self._keys, self._faults = found, faults

    def _parse(self, records: Mapping[str, Record]) -> Mapping[str, ApiKey | None]:
        """Return the key of each record, None for one that is not authentic. Unchanged records are not parsed again."""
        before, known = self.follower.records, self._parsed
        self._parsed = {
            key_id: known[key_id] if key_id in known and before.get(key_id) == record else self._records.read(record)
            for key_id, record in records.items()
        }
        return self._parsed
