"""Public keys of issuers: imports the usable keys of a JWK set, and decides what each may verify."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, get_args

from joserfc import jwk as joserfc_jwk
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from sts.jose.strict import UnfitError, strict_json

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""The algorithms accepted for inbound tokens. Never `none`, HMAC or ES256K (RFC 8725 §3.1, §3.2)."""

SUPPORTED: Final[frozenset[str]] = frozenset(get_args(Algorithm))

MAX_DOCUMENT: Final = 262_144
"""Maximum bytes of a JWK set."""
MAX_KEYS: Final = 100
"""Maximum number of keys in a JWK set."""
MAX_KID: Final = 256

_MIN_RSA_BITS: Final = 2048  # RFC 7518 §3.3
_MAX_RSA_BITS: Final = 8192  # with a longer key one verification takes milliseconds
_MAX_RSA_EXPONENT: Final = 2**32  # for the same reason; the usual exponent is 65537
PUBLIC_MEMBERS: Final = {"RSA": ("e", "n"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})

_QUICK_RSA_BITS: Final = 3072
_QUICK_EC_BITS: Final = 256

PublicKey = RSAKey | ECKey | OKPKey
_CLASSES: Final[dict[str, type[PublicKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

Imported = TypeVar("Imported")

_registry: Final = JWSRegistry(algorithms=sorted(SUPPORTED))
# "EdDSA" does not name the curve; here it means only Ed25519 (RFC 9864 §2.2).
_VERIFIERS: Final = {name: _registry.get_alg("Ed25519" if name == "EdDSA" else name) for name in SUPPORTED}


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key of an issuer and the algorithms it may verify.

    `thumbprint` is that of RFC 7638, canonical form. `algorithms` is never empty: the issuer's configured list, reduced
    to those that fit the key's type, curve and own `alg` (RFC 8725 §3.1, RFC 7517 §4.4).
    """

    thumbprint: str
    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey = field(repr=False, compare=False)

    @property
    def is_quick(self) -> bool:
        """Whether the key verifies in some tens of microseconds: RSA of at most 3072 bits, P-256, Ed25519."""
        size = getattr(self.public.raw_value, "key_size", 0)  # Ed25519 has none
        return size <= (_QUICK_RSA_BITS if isinstance(self.public, RSAKey) else _QUICK_EC_BITS)

    def proves(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Return whether this key made `signature`. The caller checks `algorithms`. May raise any error (LIB-J08)."""
        return _VERIFIERS[algorithm].verify(signing_input, signature, self.public) is True


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a JWK set, a reason for each skipped key, and the `kid`s of skipped keys."""

    keys: tuple[VerifyKey, ...]
    skipped: tuple[str, ...] = ()
    skipped_kids: frozenset[str] = frozenset()


def import_jwks(document: bytes | Mapping[str, Any], algorithms: Collection[str]) -> KeySet:
    """Import an issuer's JWK set, key by key: an unusable key does not affect the others (RFC 7517 §5).

    Two keys with one `kid` are both kept and tried in turn. RFC 7517 §4.5 allows them, and both are the issuer's, so
    this adds no trust; to drop one would refuse good tokens. Raises UnfitError if the document is not a JWK set, is too
    large, or has no usable key.
    """
    kids: set[str] = set()

    def import_entry(entry: object) -> VerifyKey:
        try:
            return import_jwk(entry, algorithms)
        except UnfitError:
            kid = entry.get("kid") if isinstance(entry, Mapping) else None
            kids.update([kid] if isinstance(kid, str) else [])
            raise

    found, skipped = import_each(document, import_entry)
    keys: dict[tuple[str | None, str], VerifyKey] = {}
    for key in found:
        keys.setdefault((key.kid, key.thumbprint), key)
    return KeySet(tuple(keys.values()), skipped, frozenset(kids))


def import_each(
    document: bytes | Mapping[str, Any], importer: Callable[[object], Imported]
) -> tuple[list[Imported], tuple[str, ...]]:
    """Import the entries of a JWK set with `importer`; each entry with an UnfitError is skipped, with a reason.

    Raises UnfitError if the document is not a JWK set, is too large, or has no usable key.
    """
    if isinstance(document, bytes):
        if len(document) > MAX_DOCUMENT:
            raise UnfitError("the JWK set is too large")
        document = strict_json(document)
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise UnfitError('it is not a JWK set, an object with an array "keys"')
    if len(entries) > MAX_KEYS:
        raise UnfitError("the JWK set holds too many keys")
    keys: list[Imported] = []
    skipped = []
    for number, entry in enumerate(entries, start=1):
        try:
            keys.append(importer(entry))
        except UnfitError as error:
            skipped.append(f"key {number}: {error}")
    if not keys:
        raise UnfitError("; ".join(["the JWK set holds no usable key", *skipped[:5]]))
    return keys, tuple(skipped)


def import_jwk(jwk: object, algorithms: Collection[str]) -> VerifyKey:
    """Import one public key that may verify with `algorithms`. Raises UnfitError with the reason if it is not usable.

    A private or symmetric key is refused, not reduced to its public part: its publisher has disclosed it (RFC 7517
    §9.2).
    """
    jwk, kid = check_members(jwk)
    _check_purpose(jwk)
    public = import_public(jwk)
    fitting = frozenset(
        name for name in SUPPORTED.intersection(algorithms) if jwk.get("alg", name) == name and _fits(name, public)
    )
    if not fitting:
        raise UnfitError("no configured algorithm fits it")
    return VerifyKey(public.thumbprint(), kid, fitting, public)


def check_members(jwk: object) -> tuple[Mapping[str, Any], str | None]:
    """Return the members of a public JWK, and its kid. Raises UnfitError if it is not a public RSA, EC or OKP key."""
    if not isinstance(jwk, Mapping):
        raise UnfitError("it is not an object")
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if not isinstance(kty, str) or kty not in PUBLIC_MEMBERS:
        raise UnfitError("its kty is not RSA, EC or OKP")
    if PRIVATE_MEMBERS & jwk.keys():
        raise UnfitError("it holds private members")
    if kid is not None and not is_kid(kid):
        raise UnfitError("its kid is not a short printable text")
    return jwk, kid


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a JWK as written. Raises UnfitError if a member is missing."""
    kty = jwk.get("kty")
    required = PUBLIC_MEMBERS.get(kty, ()) if isinstance(kty, str) else ()
    if not required or not all(isinstance(jwk.get(name), str) for name in required):
        raise UnfitError("it is not an RSA, EC or OKP key with all its members")
    return joserfc_jwk.thumbprint({name: jwk[name] for name in ("kty", *required)})


def is_kid(value: object) -> bool:
    """Return whether a key id can safely be compared and logged: a short text of printable ASCII."""
    return isinstance(value, str) and 0 < len(value) <= MAX_KID and value.isascii() and value.isprintable()


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    """Check the purpose that the issuer states for its key (RFC 7517 §4.2, §4.3)."""
    if jwk.get("use", "sig") != "sig":
        raise UnfitError("its use is not sig")
    if "key_ops" in jwk and not (isinstance(jwk["key_ops"], list) and "verify" in jwk["key_ops"]):
        raise UnfitError("its key_ops do not name verify")


def import_public(jwk: Mapping[str, Any]) -> PublicKey:
    """Import only the public members, in the key's canonical form, so that one key has one thumbprint."""
    kty = jwk["kty"]
    members = {name: jwk[name] for name in PUBLIC_MEMBERS[kty] if isinstance(jwk.get(name), str)}
    if len(members) != len(PUBLIC_MEMBERS[kty]):
        raise UnfitError("a member is missing or not a text")
    kind = _CLASSES[kty]
    try:
        native = kind.binding.import_from_dict({"kty": kty, **members})
        if kty == "RSA":
            _check_rsa(native.key_size, native.public_numbers().e)
        return kind.import_key(native)
    except UnfitError:
        raise
    except Exception:  # noqa: BLE001 - off the curve, unknown curve, bad base64: several exceptions (LIB-J06)
        raise UnfitError("it cannot be read") from None


def _check_rsa(bits: int, exponent: int) -> None:
    if not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
        raise UnfitError(f"its modulus has {bits} bits")
    if exponent > _MAX_RSA_EXPONENT:
        raise UnfitError("its exponent is too large")


def _fits(name: str, key: PublicKey) -> bool:
    """Return whether the key has the algorithm's type and curve."""
    try:
        _VERIFIERS[name].check_key(key)
    except Exception:  # noqa: BLE001 - joserfc raises several exceptions for a key that does not fit
        return False
    return True
