"""The ring at rest: encrypted private keys, and a MAC over the whole ring.

Each private key is encrypted with AES-256-GCM. The associated data are all other fields of its record and the version
of the ring, so an attacker cannot move a private key to other times, to another `kid`, or into another version. A MAC
over the whole ring with its version prevents that an attacker adds, drops or un-retires a key.

What this does not prove: that the ring is the newest one. An attacker who can write to the store can restore an older
ring as a whole. A replica that has seen a newer ring refuses it (`rollback_guard`); a new replica cannot detect it.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keys.errors import SelfTestFailed, StoreUnauthentic
from keys.jwks import base64url, from_base64url
from keys.record import KeyRecord, Ring
from keys.signer import signer_of

FORMAT: Final = 1
KEY_BYTES: Final = 32
MAX_BYTES: Final = 1 << 20

_NONCE_BYTES: Final = 12
_TIMES: Final = ("published_at", "ready_at", "active_at", "retired_at", "leaves_at", "revoked_at")
_NUMBERS: Final = ("longest_ttl", "keep", "guard")


@dataclass(frozen=True, slots=True)
class _SealKey:
    """The values derived from one seal key: its name in the file, the AEAD for private keys, the keys of both MACs."""

    name: str
    aead: AESGCM = field(repr=False)
    mac_key: bytes = field(repr=False)
    note_key: bytes = field(repr=False)

    def mac(self, body: Mapping[str, Any]) -> str:
        return base64url(hmac.digest(self.mac_key, _canonical(body), "sha256"))

    def note_mac(self, body: Mapping[str, Any]) -> str:
        return base64url(hmac.digest(self.note_key, _canonical(body), "sha256"))


class Sealer:
    """Seals with the first of `seal_keys` and opens with any of them, so that a seal key can be replaced.

    Each seal key has at least 32 bytes; each purpose has its own derived key. Raises ValueError for a shorter key, or
    if there is none.
    """

    def __init__(self, seal_keys: Sequence[bytes]) -> None:
        if not seal_keys or any(len(key) < KEY_BYTES for key in seal_keys):
            raise ValueError(f"at least one seal key of {KEY_BYTES} bytes or more is needed")
        self._keys = [_seal_key(key) for key in seal_keys]

    def seal(self, ring: Ring) -> bytes:
        """Return `ring` as the JSON text that a store keeps."""
        with_key = self._keys[0]
        body: dict[str, Any] = {"format": FORMAT, "version": ring.version, "seal": with_key.name}
        body |= {name: getattr(ring, name) for name in _NUMBERS} | {"default": ring.default}
        body["keys"] = [_seal_record(record, ring.version, with_key) for record in ring.keys]
        return json.dumps({**body, "mac": with_key.mac(body)}, indent=1).encode() + b"\n"

    def open(self, data: bytes) -> Ring:
        """Read the output of `seal`.

        Raises StoreUnauthentic for other data: another secret, a changed byte, a private key that does not belong to
        its `kid`. One bad key makes the whole ring invalid: a store that was tampered with is not trusted in part.
        """
        body = _parse(data)
        mac = body.pop("mac", None)
        with_key = next((key for key in self._keys if key.name == body.get("seal")), None)
        if with_key is None:
            raise StoreUnauthentic("the ring was sealed with a secret that is not among those given")
        if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), with_key.mac(body).encode()):
            raise StoreUnauthentic("the ring is not authentic: another writer changed it in the store")
        try:
            return Ring(
                version=body["version"],
                default=body.get("default", ""),
                keys=tuple(_open_record(entry, body["version"], with_key) for entry in body["keys"]),
                **{name: body[name] for name in _NUMBERS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreUnauthentic(f"the ring is authentic but damaged: {type(error).__name__}") from None

    def write_note(self, kind: str, facts: Mapping[str, Any]) -> bytes:
        """Return a note that is public but authentic; `kind` separates the uses, so that one cannot replace another."""
        body = {"kind": kind, "seal": self._keys[0].name, **facts}
        return json.dumps({**body, "mac": self._keys[0].note_mac(body)}).encode() + b"\n"

    def read_note(self, kind: str, data: bytes) -> dict[str, Any]:
        """Read the output of `write_note` for `kind`. Raises StoreUnauthentic for other data."""
        try:
            body = json.loads(data) if len(data) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            body = None
        facts = body if isinstance(body, dict) else {}
        mac = facts.pop("mac", None)
        with_key = next((key for key in self._keys if key.name == facts.get("seal")), None)
        written = with_key is not None and isinstance(mac, str) and facts.get("kind") == kind
        if with_key is None or not written or not hmac.compare_digest(mac.encode(), with_key.note_mac(facts).encode()):
            raise StoreUnauthentic(f"the note on {kind} was not written with our seal keys")
        return {name: value for name, value in facts.items() if name not in {"seal", "kind"}}


def _seal_key(material: bytes) -> _SealKey:
    def derive(label: bytes, length: int) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=b"sts keys " + label).derive(material)

    return _SealKey(
        name=base64url(derive(b"seal name", 9)),
        aead=AESGCM(derive(b"private half", KEY_BYTES)),
        mac_key=derive(b"ring", KEY_BYTES),
        note_key=derive(b"note", KEY_BYTES),
    )


def _canonical(value: Mapping[str, Any]) -> bytes:
    """Return one byte string per value, independent of white space and order in the file."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _facts(record: KeyRecord) -> dict[str, Any]:
    """Return all fields of a record except its private key."""
    facts: dict[str, Any] = {"kid": record.kid, "algorithm": record.algorithm, "public": dict(record.public)}
    return facts | {name: getattr(record, name) for name in _TIMES}


def _associated(facts: Mapping[str, Any], version: int) -> bytes:
    return _canonical({"format": FORMAT, "version": version, "key": facts})


def _seal_record(record: KeyRecord, version: int, with_key: _SealKey) -> dict[str, Any]:
    facts = _facts(record)
    if record.private is None:
        return {**facts, "sealed": None}
    nonce = os.urandom(_NONCE_BYTES)
    box = with_key.aead.encrypt(nonce, record.private, _associated(facts, version))
    return {**facts, "sealed": base64url(nonce + box)}


def _open_record(entry: Mapping[str, Any], version: int, with_key: _SealKey) -> KeyRecord:
    """Unseal one record, and verify that its public half, private half and `kid` belong together."""
    facts = {name: value for name, value in entry.items() if name != "sealed"}
    sealed = entry["sealed"]
    if sealed is None:
        return KeyRecord(private=None, **facts)
    box = from_base64url(sealed)
    try:
        private = with_key.aead.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _associated(facts, version))
    except InvalidTag:
        raise StoreUnauthentic("a private half of the ring does not belong to its record") from None
    record = KeyRecord(private=private, **facts)
    try:
        signer_of(record)
    except SelfTestFailed as error:
        raise StoreUnauthentic(str(error)) from None
    return record


def _parse(data: bytes) -> dict[str, Any]:
    """Read JSON that is not yet authenticated: limited size, an object, finite numbers, our format."""
    if len(data) > MAX_BYTES:
        raise StoreUnauthentic(f"the store holds more than {MAX_BYTES} bytes; that is no ring")
    try:
        body = json.loads(data)
        _canonical(body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise StoreUnauthentic("the store holds something that is not a ring")
    if body.get("format") != FORMAT:
        raise StoreUnauthentic(f"the ring has a format that this release does not read; it reads {FORMAT}")
    return body
