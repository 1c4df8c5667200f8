"""OCSP: build a request and verify a responder's answer (RFC 6960). Pure functions, no fetch.

`cryptography` parses answers and does not verify them (LIB-C07). Requests have no nonce: answers are fetched in advance
and cached, and their own `nextUpdate` limits their age.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from sts.errors import StsError
from sts.x509.revocation import REVOKED, Good, Revoked

SKEW: Final = 60.0
"""Seconds that the responder's clock may be ahead of ours."""
LIFE: Final = 300.0
"""Seconds for which an answer without `nextUpdate` is used."""
MAX_LIFE: Final = 3600.0
"""Maximum seconds for which an answer is used, even if its `nextUpdate` is later: a revocation may follow it."""

_STRONG: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class UnfitAnswerError(StsError):
    """An answer that must not be used; the text gives the reason."""


def responder(certificate: x509.Certificate) -> str | None:
    """Return the URL of the first OCSP responder in a certificate, or None. The certificate must be validated."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return None
    for description in access:
        where = description.access_location
        if description.access_method == AuthorityInformationAccessOID.OCSP and isinstance(
            where, x509.UniformResourceIdentifier
        ):
            return where.value
    return None


def question(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Return the request for one certificate in DER (RFC 6960 §4.1). SHA-1 names the issuer: all responders know it."""
    built = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1()).build()  # noqa: S303
    return built.public_bytes(Encoding.DER)


def judge(answer: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Good | Revoked:
    """Verify an answer and return the status of `certificate` (RFC 6960 §3.2).

    The answer must be successful, about this certificate and issuer, signed by the issuer or its delegate, and current
    at `now` (Unix seconds). Raises UnfitAnswerError, also for the status "unknown".
    """
    try:
        return _judge(ocsp.load_der_ocsp_response(answer), certificate, issuer, now)
    except UnfitAnswerError:
        raise
    except Exception as error:  # noqa: BLE001 - ValueError, InvalidSignature, DuplicateExtension, UnsupportedAlgorithm, …
        raise UnfitAnswerError(f"the answer cannot be read: {type(error).__name__}") from None


def _judge(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate, now: float
) -> Good | Revoked:
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise UnfitAnswerError(f"the responder returned {response.response_status.name.lower()}")
    _check_signature(response, _signer(response, issuer, now))
    if any(extension.critical for extension in response.extensions):
        raise UnfitAnswerError("a critical extension")
    return _status(_about(response, certificate, issuer), now)


def _about(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse:
    """Return the single response with this certificate's CertID (RFC 6960 §4.1.1)."""
    key = _key_bits(issuer)
    name = issuer.subject.public_bytes()
    found = [
        single
        for single in response.responses
        if single.serial_number == certificate.serial_number
        and single.issuer_name_hash == _hash(single.hash_algorithm, name)
        and single.issuer_key_hash == _hash(single.hash_algorithm, key)
    ]
    if len(found) != 1:
        raise UnfitAnswerError("the answer is about another certificate")
    return found[0]


def _status(single: ocsp.OCSPSingleResponse, now: float) -> Good | Revoked:
    since = single.this_update_utc.timestamp()
    if since - SKEW > now:
        raise UnfitAnswerError("the answer's thisUpdate is in the future")
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        return REVOKED  # of any age, because a revocation is final
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise UnfitAnswerError("the responder does not know the certificate")
    ends = single.next_update_utc
    until = since + LIFE if ends is None else ends.timestamp()
    if until <= now:
        raise UnfitAnswerError("the answer is past its nextUpdate")
    return Good(min(until, now + MAX_LIFE))


def _signer(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: float) -> x509.Certificate:
    """Return the signer's certificate: the issuer, or the delegate sent with the answer (RFC 6960 §4.2.2.2).

    A delegate must be issued directly by the issuer for OCSP signing, and be valid at `now`. We do not check whether
    the delegate is revoked, so its certificate must have id-pkix-ocsp-nocheck.
    """
    for candidate in (issuer, *response.certificates[:4]):
        if not _named(response, candidate):
            continue
        if candidate != issuer:
            _check_delegate(candidate, issuer, now)
        return candidate
    raise UnfitAnswerError("the signer is not the issuer, and the answer does not contain the signer's certificate")


def _check_delegate(delegate: x509.Certificate, issuer: x509.Certificate, now: float) -> None:
    try:
        delegate.verify_directly_issued_by(issuer)
        purposes = delegate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        delegate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        raise UnfitAnswerError("the signer is not a delegate of the issuer") from None
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise UnfitAnswerError("the signer may not sign answers (OCSPSigning)")
    if not delegate.not_valid_before_utc.timestamp() <= now <= delegate.not_valid_after_utc.timestamp():
        raise UnfitAnswerError("the signer's certificate is expired or not valid yet")


def _named(response: ocsp.OCSPResponse, candidate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return candidate.subject == response.responder_name
    return response.responder_key_hash == _hash(hashes.SHA1(), _key_bits(candidate))  # noqa: S303 - RFC 6960 §4.2.1


def _check_signature(response: ocsp.OCSPResponse, signer: x509.Certificate) -> None:
    key, signature, signed = signer.public_key(), response.signature, response.tbs_response_bytes
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
        return
    algorithm = response.signature_hash_algorithm
    if not isinstance(algorithm, _STRONG):
        raise UnfitAnswerError("the signature's algorithm is not supported")
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(algorithm))
    else:
        raise UnfitAnswerError("the signer's key is not supported")


def _key_bits(certificate: x509.Certificate) -> bytes:
    """Return the bits of the subject's key without its algorithm, as a CertID hashes them."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key.public_bytes_raw()
    raise UnfitAnswerError("the issuer's key is not supported")


def _hash(algorithm: hashes.HashAlgorithm, content: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(content)
    return digest.finalize()
