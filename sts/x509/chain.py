"""Certificates as received: parsed within limits and in order, but not verified here (RFC 5280)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sts.errors import MALFORMED, TOO_LARGE, Refusal

MAX_CERTIFICATES: Final = 6
"""A leaf and the intermediates sent with it; the paths of client certificates have one or two intermediates."""
MAX_CERTIFICATE_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class UnverifiedChain:
    """A leaf and the intermediates sent with it, each the issuer of the certificate before. The sender chose them."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """The DER names of the issuers, from the leaf's issuer upwards: they show which CA the chain claims."""
        return tuple(one.issuer.public_bytes() for one in (self.leaf, *self.intermediates))

    def ders(self) -> tuple[bytes, ...]:
        """Each certificate in DER, the leaf first."""
        return tuple(one.public_bytes(Encoding.DER) for one in (self.leaf, *self.intermediates))


def read_chain(ders: Sequence[bytes]) -> UnverifiedChain:
    """Parse a chain in DER: the leaf first, then each certificate's issuer (RFC 9440 §2.3).

    Raises TOO_LARGE beyond MAX_CERTIFICATES or MAX_CERTIFICATE_BYTES. Raises MALFORMED for bytes that are not a
    certificate, for a duplicate certificate and for another order.
    """
    if not ders:
        raise Refusal(MALFORMED, why="no certificate")
    if len(ders) > MAX_CERTIFICATES:
        raise Refusal(TOO_LARGE, why="too many certificates", max_certificates=MAX_CERTIFICATES)
    if max(map(len, ders)) > MAX_CERTIFICATE_BYTES:
        raise Refusal(TOO_LARGE, why="a certificate", max_bytes=MAX_CERTIFICATE_BYTES)
    if len(set(ders)) < len(ders):
        raise Refusal(MALFORMED, why="the chain contains a certificate twice")
    certificates = [_read(der) for der in ders]
    for below, above in itertools.pairwise(certificates):
        if below.issuer != above.subject:
            raise Refusal(MALFORMED, why="the chain is not in order, each certificate followed by its issuer's")
    return UnverifiedChain(certificates[0], tuple(certificates[1:]))


def thumbprint(der: bytes) -> bytes:
    """Return the SHA-256 of a certificate's DER (RFC 8705 §3.1)."""
    return hashlib.sha256(der).digest()


def _read(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The library parses names, extensions and key at first use. Read them here, so that faults show here.
        certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
        if certificate.version is not x509.Version.v3:
            raise ValueError("not version 3")  # noqa: TRY301 - handled like the other faults
    except Exception as error:  # noqa: BLE001 - ValueError, TypeError, UnsupportedAlgorithm, InvalidVersion and others
        raise Refusal(MALFORMED, why="a certificate cannot be read", fault=type(error).__name__) from None
    return certificate
