"""Dummy keys without a private half, for the dummy verification of an unknown client's assertion.

Without it, the refusal of an unknown client would be faster than that of a known one, and reveal which ids exist.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import shake_256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sts.jose import SUPPORTED, VerifyKey, import_jwk


def _text(number: bytes) -> str:
    return urlsafe_b64encode(number).rstrip(b"=").decode("ascii")


def _rsa() -> dict[str, str]:
    """Return a modulus of the right size with unknown factors; the generation of a key would take too long."""
    modulus = int.from_bytes(shake_256(b"nobody").digest(256)) | 1 << 2047 | 1
    return {"kty": "RSA", "n": _text(modulus.to_bytes(256)), "e": "AQAB"}


def _ec(curve: ec.EllipticCurve, name: str) -> dict[str, str]:
    public = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    return {"kty": "EC", "crv": name, "x": _text(public.x.to_bytes(size)), "y": _text(public.y.to_bytes(size))}


def _okp() -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _text(ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()),
    }


class DummyKeys:
    """A `KeySource` with one dummy key for every algorithm."""

    trouble = ""

    def __init__(self) -> None:
        made = (
            _rsa(),
            _ec(ec.SECP256R1(), "P-256"),
            _ec(ec.SECP384R1(), "P-384"),
            _ec(ec.SECP521R1(), "P-521"),
            _okp(),
        )
        keys = [import_jwk(one, SUPPORTED) for one in made]
        self._by_algorithm = {name: key for key in keys for name in key.algorithms}

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:  # noqa: ARG002 - KeySource
        """Return the dummy key of the algorithm."""
        return (self._by_algorithm[algorithm],)

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:  # noqa: ARG002 - KeySource
        """Return False: a verification with these keys takes as long as with other keys."""
        return False

    def current(self, thumbprint: str) -> bool:  # noqa: ARG002 - KeySource
        """Return False: these keys never prove a token."""
        return False


DUMMY_KEYS: Final = DummyKeys()
