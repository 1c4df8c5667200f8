"""Nested JWTs: a signed token encrypted to the one backend that may read it (RFC 7519 §5.2, RFC 7516 §7.1).

Only what is current best practice can be named (RFC 8725 §3.2): no RSA1_5, no PBES2, no `dir`, no compression, no
content encryption but A256GCM. Encryption hides the token; that it is ours, its signature inside alone proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from joserfc.jwe import JWERegistry, encrypt_compact
from joserfc.jwk import ECKey, OKPKey, RSAKey

from sts.jose.jwk import PRIVATE_MEMBERS, PUBLIC_MEMBERS, PublicKey, check_members, import_each, import_public
from sts.jose.strict import UnfitError

KeyManagement = Literal["ECDH-ES", "ECDH-ES+A256KW", "RSA-OAEP-256"]
"""How the backend's key encrypts the content's (RFC 7518 §4.1)."""
ContentEncryption = Literal["A256GCM"]
"""How the content is encrypted (RFC 7518 §5.1)."""
Curve = Literal["P-256", "X25519"]

RSA_BITS: Final = 3072
"""Of the pairs made here; those of others may be shorter, within the bounds for all RSA keys."""

_ENC: Final = "A256GCM"
# joserfc takes an empty list for "whatever is recommended" (LIB-J01): each registry names its two algorithms.
_REGISTRIES: Final = {name: JWERegistry(algorithms=[name, _ENC]) for name in get_args(KeyManagement)}
_CURVES: Final = frozenset(get_args(Curve))
_OPERATIONS: Final = {
    "RSA": ("encrypt", "wrapKey"),
    "EC": ("deriveKey", "deriveBits"),
    "OKP": ("deriveKey", "deriveBits"),
}


@dataclass(frozen=True, slots=True)
class EncryptKey:
    """A backend's public key. `kid` is what the backend calls it, `thumbprint` RFC 7638's over the canonical form."""

    kid: str
    thumbprint: str
    algorithm: KeyManagement
    public: PublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EncryptKeys:
    """The usable keys of a backend's JWK set in the set's order, at least one, and a sentence for each left out."""

    keys: tuple[EncryptKey, ...]
    skipped: tuple[str, ...] = ()

    def holds(self, thumbprint: str) -> bool:
        """Whether the key with this RFC 7638 thumbprint is among them."""
        return any(key.thumbprint == thumbprint for key in self.keys)


def import_encryption_jwks(document: bytes | Mapping[str, Any], algorithm: KeyManagement) -> EncryptKeys:
    """Import a backend's JWK set, key by key. Raises UnfitError if it is none, or leaves no usable key.

    Of two keys with one `kid` the first counts: the backend would not know which of them to decrypt with.
    """
    seen: dict[str, str] = {}

    def take(entry: object) -> EncryptKey:
        key = import_encryption_jwk(entry, algorithm)
        if seen.setdefault(key.kid, key.thumbprint) != key.thumbprint:
            raise UnfitError("its kid is also an earlier key's")
        return key

    keys, skipped = import_each(document, take)
    return EncryptKeys(tuple(dict.fromkeys(keys)), skipped)


def import_encryption_jwk(jwk: object, algorithm: KeyManagement) -> EncryptKey:
    """Import one public key to encrypt to with `algorithm`. Raises UnfitError with the reason why it cannot be used.

    A key for signatures is refused (RFC 7517 §4.2), and so is a private one: whoever publishes it has lost it.
    """
    members, kid = check_members(jwk)
    if kid is None:
        raise UnfitError("it has no kid, by which the backend would find its private half")
    _check_purpose(members)
    if members.get("alg", algorithm) != algorithm:
        raise UnfitError(f"its alg is not {algorithm}")
    public = import_public(members)
    if not _fits(algorithm, public):
        raise UnfitError(f"its type or curve does not fit {algorithm}")
    key = EncryptKey(kid, public.thumbprint(), algorithm, public)
    try:
        encrypt("", key)
    except Exception:  # noqa: BLE001 - a point of low order shows only here (RFC 7748 §6.1); joserfc says so in several ways
        raise UnfitError("nothing can be encrypted to it") from None
    return key


def encrypt(token: str, key: EncryptKey) -> str:
    """Encrypt a signed token to a backend's key, as a nested JWT: `cty: JWT`, and the backend's `kid` outside."""
    header = {"alg": key.algorithm, "enc": _ENC, "kid": key.kid, "cty": "JWT"}
    return encrypt_compact(header, token, key.public, registry=_REGISTRIES[key.algorithm])


def make_pair(algorithm: KeyManagement, curve: Curve = "P-256") -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a pair for a backend: the private JWK and its public half, with `use`, `alg`, and the thumbprint as `kid`.

    `curve` is not for RSA, whose keys have RSA_BITS.
    """
    key: RSAKey | OKPKey | ECKey
    if algorithm == "RSA-OAEP-256":
        key = RSAKey.generate_key(RSA_BITS)
    else:
        key = OKPKey.generate_key("X25519") if curve == "X25519" else ECKey.generate_key("P-256")
    said = {"use": "enc", "alg": algorithm, "kid": key.thumbprint()}
    whole = key.as_dict(private=True)
    public = {name: whole[name] for name in ("kty", *PUBLIC_MEMBERS[key.key_type])}
    private = {name: value for name, value in whole.items() if name in PRIVATE_MEMBERS}
    return {**public, **private, **said}, {**public, **said}


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    """Honour what the backend says its key is for (RFC 7517 §4.2, §4.3)."""
    if jwk.get("use", "enc") != "enc":
        raise UnfitError("its use is not enc")
    operations = jwk.get("key_ops", [])
    # The public half of a key agreement has no operation of its own: WebCrypto writes an empty list.
    if not isinstance(operations, list) or (
        operations and not any(name in operations for name in _OPERATIONS[jwk["kty"]])
    ):
        raise UnfitError("its key_ops name no encryption")


def _fits(algorithm: KeyManagement, key: PublicKey) -> bool:
    if algorithm == "RSA-OAEP-256":
        return isinstance(key, RSAKey)
    return isinstance(key, ECKey | OKPKey) and key.curve_name in _CURVES
