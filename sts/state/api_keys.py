"""API keys: their records in the state store, and each worker's copy, which proves a key without a round trip.

A record holds the SHA-256 of its key and what the key may do; a MAC under the deployment's own key keeps whoever can
write to the store from making one or widening it. What the MAC does not prove: that the record is the newest one. A
worker that has seen a key revoked never takes it again; one that starts afresh on a store that was put back cannot
know.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from sts.errors import MALFORMED, REVOKED, STATE_UNAVAILABLE, UNKNOWN_KEY, Refusal
from sts.state.follower import Follower
from sts.state.key_text import digest, id_of
from sts.state.settings import StateSettings
from sts.state.state import ABSENT, FOREVER, Record, State, decode, encode

LABEL: Final = "api key records"
"""The label under which the key of the records' MAC is derived from the deployment secret."""
NAMESPACE: Final = "api_keys"
FORM: Final = 1
KEEP_ENDED_S: Final = 30 * 86400.0
"""How long the record of a key that is over stays, so that its last user is told why and operators see it."""

_NOBODY: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret. Times are Unix seconds; `audiences` () is all that its source may reach."""

    id: str
    source: str
    owner: str
    digest: str = field(repr=False)
    created_at: int
    tenant: str | None = None
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    tier: str | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    imported: bool = False
    version: int = ABSENT

    @property
    def proof(self) -> str:
        """What a cached token depends on: this very record."""
        return f"{self.id}:{self.version}"

    @property
    def reach(self) -> frozenset[str] | None:
        """The names of the audiences that it may reach, None for all of its source's."""
        return frozenset(self.audiences) or None

    @property
    def attributes(self) -> dict[str, Any]:
        """What mappings read as `key`; what a key does not have is not there."""
        found = {"id": self.id, "owner": self.owner, "tenant": self.tenant, "tier": self.tier}
        lists = {"scopes": list(self.scopes), "audiences": list(self.audiences)}
        return {name: value for name, value in found.items() if value is not None} | lists


_KEPT: Final = tuple(one.name for one in fields(ApiKey) if one.name not in ("id", "version"))


class KeyRecords:
    """Reads and writes the records.

    `secrets` are the deployment's keys for `LABEL`: the present secret's, which records are written with, and the
    previous one's.
    """

    def __init__(self, state: State, secrets: Sequence[bytes]) -> None:
        self.state = state
        self._secrets = tuple(secrets)

    def all(self) -> list[ApiKey]:
        """Every authentic record, oldest first. Raises StateUnavailableError."""
        found = [self.read(record) for record in self.state.list(NAMESPACE)]
        return sorted([key for key in found if key is not None], key=lambda key: (key.created_at, key.id))

    def get(self, key_id: str) -> ApiKey | None:
        """The record of one key. Raises StateUnavailableError."""
        record = self.state.get(NAMESPACE, key_id)
        return None if record is None else self.read(record)

    def put(self, key: ApiKey) -> None:
        """Write a record over the version that was read. Raises ConflictError, StateUnavailableError."""
        content = {name: getattr(key, name) for name in _KEPT}
        content["mac"] = _mac(self._secrets[0], key.id, content)
        ends = [at for at in (key.expires_at, key.revoked_at) if at is not None]
        until = min(ends) + KEEP_ENDED_S if ends else FOREVER
        self.state.put(NAMESPACE, key.id, encode(FORM, content), expected=key.version, until=until)

    def read(self, record: Record) -> ApiKey | None:
        """The key of a record, None where the record is not authentic. Raises StateUnavailableError."""
        _, content = decode(record.value or b"", FORM)
        if self._written_with(record.key, content) is None:
            return None
        del content["mac"]
        given = {**content, "scopes": tuple(content["scopes"]), "audiences": tuple(content["audiences"])}
        return ApiKey(id=record.key, version=record.version, **given)

    def reseal(self) -> int:
        """Write anew what was written with the previous secret, which may go then; returns how many records that were.

        Raises ConflictError where somebody else changes one meanwhile, StateUnavailableError.
        """
        old = []
        for record in self.state.list(NAMESPACE):
            _, content = decode(record.value or b"", FORM)
            if self._written_with(record.key, content) not in (None, self._secrets[0]):
                old.append(self.read(record))
        for key in old:
            if key is not None:
                self.put(key)
        return len(old)

    def _written_with(self, key_id: str, content: Mapping[str, Any]) -> bytes | None:
        """Which of the secrets a record was written with, None where it is not authentic."""
        given = str(content.get("mac", "")).encode("utf-8", "surrogatepass")
        signed = {name: value for name, value in content.items() if name != "mac"}
        for secret in self._secrets:
            if hmac.compare_digest(given, _mac(secret, key_id, signed).encode()):
                return secret
        return None


def _mac(secret: bytes, key_id: str, content: Mapping[str, Any]) -> str:
    text = json.dumps([FORM, key_id, content], separators=(",", ":"), sort_keys=True)
    return hmac.digest(secret, text.encode(), "sha256").hex()


class ApiKeys:
    """A worker's copy of all keys. `clock` gives Unix seconds, `monotonic` steady ones.

    As `settings` say, a copy older than `max_stale` counts as an outage, since a revocation may have been missed.
    `on_fault` hears when the store begins to be out of reach, and of records that are not authentic.
    """

    def __init__(
        self,
        records: KeyRecords,
        clock: Callable[[], float],
        settings: StateSettings,
        on_fault: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.used: dict[str, float] = {}
        self._records = records
        self._clock = clock
        self._on_fault = on_fault
        self._keys: Mapping[str, ApiKey] = {}
        self._gone: dict[str, ApiKey] = {}
        self._unauthentic: frozenset[str] = frozenset()
        self.follower = Follower(records.state, NAMESPACE, self._changed, on_fault, monotonic=monotonic)

    @property
    def trouble(self) -> str:
        """Why the store could not be seen the last time, "" if it could."""
        return self.follower.fault

    def __len__(self) -> int:
        return len(self._keys)

    def prove(self, source: str, prefix: str, text: str) -> ApiKey:
        """The key whose whole text this is.

        Raises Refusal: MALFORMED for what cannot be a key or has a wrong checksum, UNKNOWN_KEY, REVOKED, and
        STATE_UNAVAILABLE where the copy is too old to say. Its expiry is for the pipeline to judge.
        """
        key_id = id_of(prefix, text)
        if not key_id:
            raise Refusal(MALFORMED, why="not an API key, or its checksum is wrong")
        self._check_fresh()
        key = self._keys.get(key_id)
        same = hmac.compare_digest(digest(text), _NOBODY if key is None else key.digest)
        if key is None or not same or key.source != source:
            raise Refusal(UNKNOWN_KEY, why="no such API key at this source", key=key_id if key else None)
        if key.revoked_at is not None:
            raise Refusal(REVOKED, why="the API key was revoked", key=key_id)
        self.used[key_id] = self._clock()
        return key

    def current(self, proof: str) -> bool:
        """Whether a cached token may go on standing for this key; takes no lock and asks nobody."""
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
        """Take over what the store holds; a key that was seen revoked stays so."""
        found = dict(self._read(records))
        for key_id, key in found.items():
            if key.revoked_at is not None:
                self._gone[key_id] = key
            elif key_id in self._gone:
                self._on_fault(f"the record of API key {key_id} was put back to before its revocation")
                found[key_id] = self._gone[key_id]
        self._keys = found

    def _read(self, records: Mapping[str, Record]) -> Iterator[tuple[str, ApiKey]]:
        known, unauthentic = self._keys, set()
        for key_id, record in records.items():
            same = known.get(key_id)
            key = same if same is not None and same.version == record.version else self._records.read(record)
            if key is None:
                unauthentic.add(key_id)
            else:
                yield key_id, key
        for key_id in unauthentic - self._unauthentic:
            self._on_fault(f"the record of API key {key_id} is not authentic: somebody else wrote to the store")
        self._unauthentic = frozenset(unauthentic)


def is_over(key: ApiKey, now: float) -> str:
    """Why a key is of no use any more: "revoked", "expired", or "" for a living one."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else ""
