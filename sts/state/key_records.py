"""The records of API keys in the state store.

A record contains the SHA-256 of its key and the permissions of the key. A MAC with a key of the deployment prevents
that an attacker who can write to the store creates a record or extends its permissions. What the MAC does not prove:
that the record is the newest one. Records count their changes, so that a worker that has seen a newer record refuses an
older one. A worker that starts on a restored store cannot detect it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from sts.state.state import ABSENT, FOREVER, ConflictError, Record, State, Write, decode, encode, records

LABEL: Final = "api key records"
"""The label for the derivation of the MAC key from the deployment secret."""
NAMESPACE: Final = "api_keys"
FORM: Final = 1
KEEP_ENDED_S: Final = 30 * 86400.0
"""How long the record of an ended key of ours stays, so that its refusal has the reason, and operators see the key."""
LATEST: Final = 253402300799
"""The last second of the year 9999: later times cannot be printed."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret. Times are Unix seconds. `audiences` (): all audiences of its source.

    `replaced_by` is the id of its successor. `change` counts the writes of its record. `mac` and `version` are those of
    the record from which the key was read, "" and `ABSENT` for a key that was never written.
    """

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
    replaced_by: str | None = None
    imported: bool = False
    change: int = 0
    mac: str = field(default="", repr=False)
    version: int = ABSENT

    @property
    def proof(self) -> str:
        """The state of the record on which a cached token depends. The version is not used: a restore repeats it."""
        return f"{self.id}:{self.mac}"

    @property
    def reach(self) -> frozenset[str] | None:
        """The names of the audiences that the key may reach, None for all audiences of its source."""
        return frozenset(self.audiences) or None

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes that mappings read as `key`, without missing ones."""
        found = {"id": self.id, "owner": self.owner, "tenant": self.tenant, "tier": self.tier}
        lists = {"scopes": list(self.scopes), "audiences": list(self.audiences)}
        return {name: value for name, value in found.items() if value is not None} | lists

    @property
    def rank(self) -> tuple[bool, int]:
        """The order of records of one key: the newer one has the higher rank, and a revoked one ranks above others."""
        return self.revoked_at is not None, self.change


_KEPT: Final = tuple(one.name for one in fields(ApiKey) if one.name not in ("id", "mac", "version"))


class KeyRecords:
    """Reads and writes the records.

    `secrets` are the deployment's MAC keys for `LABEL`, of the present and the previous secret: each verifies, and the
    first one signs.
    """

    def __init__(self, state: State, secrets: Sequence[bytes]) -> None:
        self.state = state
        self._secrets = tuple(secrets)

    def all(self) -> list[ApiKey]:
        """Return every authentic record, oldest first. Raises StateUnavailableError."""
        return self.judged()[0]

    def judged(self) -> tuple[list[ApiKey], list[str]]:
        """Return every authentic record, oldest first, and the ids of the others. Raises StateUnavailableError."""
        found = {record.key: self.read(record) for record in self.state.list(NAMESPACE)}
        keys = [key for key in found.values() if key is not None]
        strange = [key_id for key_id, key in found.items() if key is None]
        return sorted(keys, key=lambda key: (key.created_at, key.id)), strange

    def get(self, key_id: str) -> ApiKey | None:
        """Return one key, None if it has no authentic record. Raises StateUnavailableError."""
        record = self.state.get(NAMESPACE, key_id)
        return None if record is None else self.read(record)

    def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey | None]:
        """The records that are there of at most `BATCH` keys, by id; None for one that is not authentic.

        Raises StateUnavailableError.
        """
        return {record.key: self.read(record) for record in self.state.get_many(NAMESPACE, key_ids)}

    def by_age(self) -> tuple[str, ...]:
        """The ids of all records, oldest first, unproven. Memory holds the ids alone. Raises StateUnavailableError."""
        found = [_created_at(record.value or b"") + record.key for record in records(self.state, NAMESPACE)]
        found.sort()
        return tuple(one[_CREATED_CHARS:] for one in found)

    def put(self, key: ApiKey) -> ApiKey:
        """Write a record over the version that was read; returns the key as its record is now.

        The record of an imported key stays permanently: a repeated import must not reactivate the key. Raises
        ConflictError, StateUnavailableError.
        """
        (written,) = self.put_many((key,))
        if written is None:
            raise ConflictError("the record was changed by another process")
        return written

    def put_many(self, keys: Sequence[ApiKey]) -> tuple[ApiKey | None, ...]:
        """Write at most `BATCH` records as `put` does, in one step; None for each that another process changed.

        Raises StateUnavailableError; then none or all of them are written.
        """
        sealed = [self._sealed(key) for key in keys]
        versions = self.state.put_many(NAMESPACE, [write for _, write in sealed])
        return tuple(
            None if version is None else replace(key, version=version)
            for (key, _), version in zip(sealed, versions, strict=True)
        )

    def _sealed(self, key: ApiKey) -> tuple[ApiKey, Write]:
        """A key with its next change counted, and its record."""
        key = replace(key, change=key.change + 1)
        content = {name: getattr(key, name) for name in _KEPT}
        mac = _mac(self._secrets[0], key.id, content)
        ends = [at for at in (key.expires_at, key.revoked_at) if at is not None]
        until = min(ends) + KEEP_ENDED_S if ends and not key.imported else FOREVER
        value = encode(FORM, {**content, "mac": mac})
        return replace(key, mac=mac), Write(key.id, value, key.version, until)

    def read(self, record: Record) -> ApiKey | None:
        """Return the key of a record, None if the record is not authentic. Raises StateUnavailableError."""
        _, content = decode(record.value or b"", FORM)
        mac = content.pop("mac", "")
        if self._written_with(record.key, content, mac) is None:
            return None
        given = {**content, "scopes": tuple(content["scopes"]), "audiences": tuple(content["audiences"])}
        return ApiKey(id=record.key, mac=mac, version=record.version, **given)

    def reseal(self) -> int:
        """Write the records of the previous secret again with the present one; returns their number.

        Afterwards the previous secret is not needed. Raises ConflictError if another writer changes a record at the
        same time, StateUnavailableError.
        """
        old = []
        for record in self.state.list(NAMESPACE):
            _, content = decode(record.value or b"", FORM)
            if self._written_with(record.key, content, content.pop("mac", "")) not in (None, self._secrets[0]):
                old.append(self.read(record))
        for key in old:
            if key is not None:
                self.put(key)
        return len(old)

    def _written_with(self, key_id: str, content: Mapping[str, Any], mac: object) -> bytes | None:
        """Return the secret with which a record was written, None if the record is not authentic."""
        given = str(mac).encode("utf-8", "surrogatepass")
        for secret in self._secrets:
            if hmac.compare_digest(given, _mac(secret, key_id, content).encode()):
                return secret
        return None


_CREATED: Final = re.compile(rb'"created_at":(\d{1,12})[,}]')
"""A quotation mark within a text is escaped, so that this is found as a name of the record only."""
_CREATED_CHARS: Final = 12


def _created_at(value: bytes) -> str:
    """When the key of a record was made, as the record says, unproven, to sort by; zeros where it says nothing."""
    found = _CREATED.search(value)
    return (found[1].decode() if found else "").rjust(_CREATED_CHARS, "0")


def _mac(secret: bytes, key_id: str, content: Mapping[str, Any]) -> str:
    text = json.dumps([FORM, key_id, content], separators=(",", ":"), sort_keys=True)
    return hmac.digest(secret, text.encode(), "sha256").hex()


def is_over(key: ApiKey, now: float) -> str:
    """Return why a key is no longer valid: "revoked", "expired", or "" for a valid key."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else ""


ID_CHARS: Final = 12
"""71 random bits: two keys of one deployment never share an id."""
SECRET_CHARS: Final = 32
"""190 random bits."""
CHECK_CHARS: Final = 6
MAX_CHARS: Final = 256
"""The maximum length of a key in characters, also of an imported one."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY: Final = ID_CHARS + SECRET_CHARS + CHECK_CHARS
_OURS: Final = re.compile(rf"[0-9A-Za-z]{{{_BODY}}}")
_IMPORTED: Final = re.compile(r"[!-+\--~]{8,}")  # visible ASCII without the comma, which joins doubled headers


def make(prefix: str) -> tuple[str, str]:
    """Generate a key that begins with `prefix`; returns its id and its text, which cannot be recovered later."""
    key_id, secret = _random(ID_CHARS), _random(SECRET_CHARS)
    return key_id, f"{prefix}{key_id}{secret}{_checksum(prefix + key_id + secret)}"


def id_of(prefix: str, text: str) -> str:
    """Return the id of a key that begins with `prefix`, generated or imported; "" for a text that cannot be a key.

    A text in the format of our own keys must have a correct checksum. The id of an imported key comes from its hash.
    """
    body = text[len(prefix) :]
    if _OURS.fullmatch(body):
        return body[:ID_CHARS] if body[-CHECK_CHARS:] == _checksum(text[:-CHECK_CHARS]) else ""
    return imported_id(digest(text)) if len(text) <= MAX_CHARS and _IMPORTED.fullmatch(body) else ""


def is_ours(prefix: str, text: str) -> bool:
    """Return whether a text has the format of a key that this service generates."""
    return text.startswith(prefix) and _OURS.fullmatch(text[len(prefix) :]) is not None


def digest(text: str) -> str:
    """Return the SHA-256 of a key in hex, which is stored. It is sufficient only for keys of high entropy."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def imported_id(key_digest: str) -> str:
    """Return the id of an imported key; `-` distinguishes it from our own ids."""
    return f"i-{key_digest[:20]}"


def _random(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _checksum(text: str) -> str:
    """Return the CRC-32 in base 62. It proves nothing, because every attacker can compute it."""
    value, written = zlib.crc32(text.encode("ascii", "replace")), ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(_ALPHABET))
        written = _ALPHABET[digit] + written
    return written
