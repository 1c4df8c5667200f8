"""The public side of a key: its JWK by allow-list, and its name."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from keys.lifecycle import is_published
from keys.record import KeyRecord, Ring


def base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Decode what `base64url` wrote. Raises ValueError for anything else."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not base64url")
    return data


# RFC 7638 §3.2 and RFC 8037 §2 name exactly these as required; they are also all that is public (RFC 7518 §6).
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}


def thumbprint(public: Mapping[str, str]) -> str:
    """Name a public key by the SHA-256 of its required members (RFC 7638 §3), so that nobody ever types a `kid`.

    Raises KeyError for a `kty` that is not known here or a member that is missing.
    """
    members = {name: public[name] for name in MEMBERS[public["kty"]]}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64url(hashlib.sha256(canonical).digest())


def public_jwk(record: KeyRecord) -> dict[str, str]:
    """Write a key as the JWKS shows it (RFC 7517 §4): a list of what may go out, never "all but the private ones"."""
    jwk = {name: record.public[name] for name in MEMBERS[record.public["kty"]]}
    return {**jwk, "kid": record.kid, "use": "sig", "alg": record.algorithm}


def jwks(ring: Ring, now: float) -> dict[str, Any]:
    """The JWK Set of a ring at `now` (RFC 7517 §5), in the order of publication."""
    return {"keys": [public_jwk(key) for key in ring.keys if is_published(key, now)]}
