"""The public side of a key: its JWK by allow-list, and its name."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Final

from keys.record import KeyRecord

# RFC 7638 §3.2 names exactly these as required; they are also all that is public (RFC 7518 §6.2.1).
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"EC": ("crv", "kty", "x", "y")}


def base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Decode what `base64url` wrote. Raises ValueError for anything else."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise ValueError("not base64url")
    return data


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
