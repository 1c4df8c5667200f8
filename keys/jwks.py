"""The public half of a key: its JWK, built from an allow-list, and its thumbprint."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from keys.lifecycle import is_published
from keys.record import KeyRecord, Ring


def base64url(data: bytes) -> str:
    """Encode as base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Decode the output of `base64url`. Raises ValueError for other text."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not base64url")
    return data


# The required members by RFC 7638 §3.2 and RFC 8037 §2. They are also all the public members (RFC 7518 §6).
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}


def thumbprint(public: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint of a public key (RFC 7638 §3), which is its `kid`.

    Raises KeyError for an unknown `kty` or a missing member.
    """
    members = {name: public[name] for name in MEMBERS[public["kty"]]}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64url(hashlib.sha256(canonical).digest())


def public_jwk(record: KeyRecord) -> dict[str, str]:
    """Return a key as the JWKS shows it (RFC 7517 §4).

    The members come from an allow-list; excluding the private members could let a new private member leak.
    """
    jwk = {name: record.public[name] for name in MEMBERS[record.public["kty"]]}
    return {**jwk, "kid": record.kid, "use": "sig", "alg": record.algorithm}


def jwks(ring: Ring, now: float) -> dict[str, Any]:
    """Return the JWK Set of a ring at `now` in Unix seconds (RFC 7517 §5), in the order of publication."""
    return {"keys": [public_jwk(key) for key in ring.keys if is_published(key, now)]}
