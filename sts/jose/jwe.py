"""Nested JWTs: a signed token, encrypted for the one backend that may read it (RFC 7519 §5.2, RFC 7516 §7.1).

Only algorithms of current best practice can be configured (RFC 8725 §3.2): no RSA1_5, no PBES2, no `dir`, no
compression, and only A256GCM for the content. Encryption hides the token; only the inner signature proves its issuer.
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
"""How the backend's key encrypts the content key (RFC 7518 §4.1)."""
ContentEncryption = Literal["A256GCM"]
"""How the content is encrypted (RFC 7518 §5.1)."""
Curve = Literal["P-256", "X25519"]

RSA_BITS: Final = 3072
"""Bits of the pairs made here; a backend's own key may be shorter, within the limits for all RSA keys."""

_ENC: Final = "A256GCM"
# joserfc takes an empty list as "all recommended algorithms" (LIB-J01): each registry lists its two algorithms.
_REGISTRIES: Final = {name: JWERegistry(algorithms=[name, _ENC]) for name in get_args(KeyManagement)}
_CURVES: Final = frozenset(get_args(Curve))
_OPERATIONS: Final = {
    "RSA": ("encrypt", "wrapKey"),
    "EC": ("deriveKey", "deriveBits"),
    "OKP": ("deriveKey", "deriveBits"),
}


@dataclass(frozen=True, slots=True)
class EncryptKey:
    """A backend's public key. `kid` is the backend's name for it; `thumbprint` is that of RFC 7638, canonical form."""

    kid: str
    thumbprint: str
    algorithm: KeyManagement
    public: PublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EncryptKeys:
    """The usable keys of a backend's JWK set, at least one, in the set's order; and a reason for each skipped key."""

    keys: tuple[EncryptKey, ...]
    skipped: tuple[str, ...] = ()

    def holds(self, thumbprint: str) -> bool:
        """Return whether the key with this RFC 7638 thumbprint is in the set."""
        return any(key.thumbprint == thumbprint for key in self.keys)


def import_encryption_jwks(document: bytes | Mapping[str, Any], algorithm: KeyManagement) -> EncryptKeys:
    """Import a backend's JWK set, key by key. Raises UnfitError if it is not a JWK set, or has no usable key.

    Of two keys with one `kid` the first is used: the backend could not know which of them decrypts.
    """
    seen: dict[str, str] = {}

    def import_entry(entry: object) -> EncryptKey:
        key = import_encryption_jwk(entry, algorithm)
        if seen.setdefault(key.kid, key.thumbprint) != key.thumbprint:
            raise UnfitError("its kid is also an earlier key's")
        return key

    keys, skipped = import_each(document, import_entry)
    return EncryptKeys(tuple(dict.fromkeys(keys)), skipped)


def import_encryption_jwk(jwk: object, algorithm: KeyManagement) -> EncryptKey:
    """Import one public key that encrypts with `algorithm`. Raises UnfitError with the reason if it is not usable.

    A key for signatures is refused (RFC 7517 §4.2). A private key is refused too: its publisher has disclosed it.
    """
    members, kid = check_members(jwk)
    if kid is None:
        raise UnfitError("it has no kid, by which the backend would find its private key")
    _check_purpose(members)
    if members.get("alg", algorithm) != algorithm:
        raise UnfitError(f"its alg is not {algorithm}")
    public = import_public(members)
    if not _fits(algorithm, public):
        raise UnfitError(f"its type or curve does not fit {algorithm}")
    key = EncryptKey(kid, public.thumbprint(), algorithm, public)
    try:
        encrypt("", key)
    except Exception:  # noqa: BLE001 - a point of low order shows only here (RFC 7748 §6.1), as one of several exceptions
        raise UnfitError("it cannot be used for encryption") from None
    return key


def encrypt(token: str, key: EncryptKey) -> str:
    """Encrypt a signed token for a backend, as a nested JWT with `cty: JWT` and the backend's `kid` in the header."""
    header = {"alg": key.algorithm, "enc": _ENC, "kid": key.kid, "cty": "JWT"}
    return encrypt_compact(header, token, key.public, registry=_REGISTRIES[key.algorithm])


def make_pair(algorithm: KeyManagement, curve: Curve = "P-256") -> tuple[dict[str, Any], dict[str, Any]]:
    """Make a key pair for a backend: the private and the public JWK, with `use`, `alg`, and the thumbprint as `kid`.

    `curve` is ignored for RSA, whose keys have RSA_BITS.
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
    """Check the purpose that the backend states for its key (RFC 7517 §4.2, §4.3)."""
    if jwk.get("use", "enc") != "enc":
        raise UnfitError("its use is not enc")
    operations = jwk.get("key_ops", [])
    # The public key of a key agreement has no operation of its own: WebCrypto writes an empty list.
    if not isinstance(operations, list) or (
        operations and not any(name in operations for name in _OPERATIONS[jwk["kty"]])
    ):
        raise UnfitError("its key_ops do not allow encryption")


def _fits(algorithm: KeyManagement, key: PublicKey) -> bool:
    if algorithm == "RSA-OAEP-256":
        return isinstance(key, RSAKey)
    return isinstance(key, ECKey | OKPKey) and key.curve_name in _CURVES
