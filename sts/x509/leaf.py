"""Checks of a leaf that path validation does not do (LIB-C01, LIB-C02): its key, its purposes, and that it is not a CA.

The certificate states these facts about itself. They are checked before the signature: an attacker can state anything,
and a refusal here is cheap.
"""

from __future__ import annotations

from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from sts.errors import BAD_ALGORITHM, BAD_TYPE, Refusal

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Larger keys make a verification expensive without need."""
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})


def check_leaf(leaf: x509.Certificate) -> None:
    """Refuse a certificate that is not fit for client authentication (RFC 5280 §4.2.1).

    Raises BAD_ALGORITHM for a weak or unusual key. Raises BAD_TYPE for a CA, and for wrong purposes: the extended key
    usage must contain clientAuth and not "any"; the key usage, if present, must contain digitalSignature.
    """
    if not _strong(leaf.public_key()):
        raise Refusal(BAD_ALGORITHM, why="a weak or unusual key in the certificate")
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise Refusal(BAD_TYPE, why="the certificate is a CA's")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise Refusal(BAD_TYPE, why="the certificate is not for client authentication (clientAuth)")
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        raise Refusal(BAD_TYPE, why="the certificate allows any purpose")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Refusal(BAD_TYPE, why="the certificate's key may not sign (digitalSignature)")


def check_svid(leaf: x509.Certificate) -> None:
    """Refuse a SPIFFE leaf whose key may sign certificates or CRLs (X509-SVID §4.3). Raises BAD_TYPE."""
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise Refusal(BAD_TYPE, why="a SPIFFE certificate's key may sign, but no certificates and no CRLs")


def _strong(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in _CURVES
    return isinstance(key, ed25519.Ed25519PublicKey)


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
