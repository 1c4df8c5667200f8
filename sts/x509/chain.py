"""Certificates as they came in: parsed within bounds, in order, and not proven by anything here (RFC 5280)."""

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
"""A leaf and the intermediates that came with it; the paths of client certificates have one or two."""
MAX_CERTIFICATE_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class UnverifiedChain:
    """A leaf and what came along to lead to a CA, each the issuer of the one before; all of it chosen by the sender."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """The DER names of those who issued, from the leaf's issuer upwards: which CA this claims to come from."""
        return tuple(one.issuer.public_bytes() for one in (self.leaf, *self.intermediates))

    def ders(self) -> tuple[bytes, ...]:
        """Each certificate in DER, the leaf first."""
        return tuple(one.public_bytes(Encoding.DER) for one in (self.leaf, *self.intermediates))


def read_chain(ders: Sequence[bytes]) -> UnverifiedChain:
    """Parse a chain in DER, leaf first, each following certificate the issuer of the one before it (RFC 9440 §2.3).

    Raises TOO_LARGE beyond MAX_CERTIFICATES or MAX_CERTIFICATE_BYTES, MALFORMED for what is no certificate, for a
    certificate that stands twice and for another order.
    """
    if not ders:
        raise Refusal(MALFORMED, why="no certificate")
    if len(ders) > MAX_CERTIFICATES:
        raise Refusal(TOO_LARGE, why="too many certificates", max_certificates=MAX_CERTIFICATES)
    if max(map(len, ders)) > MAX_CERTIFICATE_BYTES:
        raise Refusal(TOO_LARGE, why="a certificate", max_bytes=MAX_CERTIFICATE_BYTES)
    if len(set(ders)) < len(ders):
        raise Refusal(MALFORMED, why="a certificate stands twice in the chain")
    certificates = [_read(der) for der in ders]
    for below, above in itertools.pairwise(certificates):
        if below.issuer != above.subject:
            raise Refusal(MALFORMED, why="the chain is not in order, each certificate followed by its issuer's")
    return UnverifiedChain(certificates[0], tuple(certificates[1:]))


def thumbprint(der: bytes) -> bytes:
    """The SHA-256 of a certificate's DER (RFC 8705 §3.1)."""
    return hashlib.sha256(der).digest()


def _read(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Names, extensions and key are parsed at first use only: whatever is wrong with them has to show here.
        certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
        if certificate.version is not x509.Version.v3:
            raise ValueError("not version 3")  # noqa: TRY301 - as malformed as the rest
    except Exception as error:  # noqa: BLE001 - ValueError, TypeError, UnsupportedAlgorithm, InvalidVersion and others
        raise Refusal(MALFORMED, why="a certificate cannot be read", fault=type(error).__name__) from None
    return certificate
