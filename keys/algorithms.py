"""The JWS algorithms: how to generate a key, sign, verify, and write the public half.

This module calls `cryptography` directly; joserfc does not take part in signing a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from keys.jwks import base64url, from_base64url

RSA_BITS: Final = 2048
"""The size of a generated RSA key, and the minimum size of an imported one (RFC 7518 §3.3)."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_PKCS1: Final = padding.PKCS1v15()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm.

    - `generate` makes a private key.
    - `unfit` returns why a private key does not fit the algorithm, "" if it fits.
    - `public` returns the public JWK members of a key that fits.
    - `sign` returns the raw JWS signature.
    - `verify` takes the public JWK members, data and signature. Raises InvalidSignature, KeyError or ValueError.
    """

    name: str
    generate: Callable[[], PrivateKey]
    unfit: Callable[[Any], str]
    public: Callable[[Any], dict[str, str]]
    sign: Callable[[Any, bytes], bytes]
    verify: Callable[[Mapping[str, str], bytes, bytes], None]


def _ecdsa(name: str, curve: ec.EllipticCurve, crv: str, digest: hashes.HashAlgorithm) -> Algorithm:
    """ECDSA. The signature is R and S, each as long as a coordinate of the curve (RFC 7518 §3.4, §6.2.1)."""
    size, ecdsa = (curve.key_size + 7) // 8, ec.ECDSA(digest)

    def unfit(key: object) -> str:
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return f"{name} needs an EC key"
        return "" if key.curve.name == curve.name else f"{name} needs a key on {crv}"

    def public(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
        numbers = key.public_key().public_numbers()
        x, y = (base64url(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": crv, "x": x, "y": y}

    def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ecdsa))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def verify(jwk: Mapping[str, str], data: bytes, signature: bytes) -> None:
        key = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve).public_key()
        r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
        key.verify(encode_dss_signature(r, s), data, ecdsa)

    return Algorithm(name, lambda: ec.generate_private_key(curve), unfit, public, sign, verify)


def _rsa(name: str, with_padding: padding.AsymmetricPadding) -> Algorithm:
    """RSA with SHA-256 (RFC 7518 §3.3, §3.5, §6.3.1)."""
    digest = hashes.SHA256()

    def unfit(key: object) -> str:
        if not isinstance(key, rsa.RSAPrivateKey):
            return f"{name} needs an RSA key"
        return "" if key.key_size >= RSA_BITS else f"an RSA key needs {RSA_BITS} bits or more, this one has fewer"

    def public(key: rsa.RSAPrivateKey) -> dict[str, str]:
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}

    def sign(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
        return key.sign(data, with_padding, digest)

    def verify(jwk: Mapping[str, str], data: bytes, signature: bytes) -> None:
        key = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        key.verify(signature, data, with_padding, digest)

    return Algorithm(name, lambda: rsa.generate_private_key(65537, RSA_BITS), unfit, public, sign, verify)


def _ed25519() -> Algorithm:
    """Ed25519 under its own name (RFC 9864 §2.2), as an OKP key (RFC 8037 §2)."""

    def unfit(key: object) -> str:
        return "" if isinstance(key, ed25519.Ed25519PrivateKey) else "Ed25519 needs an Ed25519 key"

    def public(key: ed25519.Ed25519PrivateKey) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().public_bytes_raw())}

    def sign(key: ed25519.Ed25519PrivateKey, data: bytes) -> bytes:
        return key.sign(data)

    def verify(jwk: Mapping[str, str], data: bytes, signature: bytes) -> None:
        ed25519.Ed25519PublicKey.from_public_bytes(from_base64url(jwk["x"])).verify(signature, data)

    return Algorithm("Ed25519", ed25519.Ed25519PrivateKey.generate, unfit, public, sign, verify)


def _number(text: str) -> int:
    return int.from_bytes(from_base64url(text), "big")


def _integer(number: int) -> str:
    """Encode as Base64urlUInt: the minimum number of bytes (RFC 7518 §2)."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    one.name: one
    for one in (
        _ecdsa("ES256", ec.SECP256R1(), "P-256", hashes.SHA256()),
        _ecdsa("ES384", ec.SECP384R1(), "P-384", hashes.SHA384()),
        _rsa("RS256", _PKCS1),
        _rsa("PS256", padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)),
        _ed25519(),
    )
}
"""Every supported algorithm, by name."""
