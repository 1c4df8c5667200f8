"""Certificates of a CA outside, its leaves and its revocation list."""

from __future__ import annotations

import datetime as dt
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Extensions = list[tuple[x509.ExtensionType, bool]]


def _usage(*names: str) -> x509.KeyUsage:
    known = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    known += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: name in names for name in known})


CA_EXTENSIONS: Final[Extensions] = [(x509.BasicConstraints(ca=True, path_length=None), True)]
CA_EXTENSIONS.append((_usage("key_cert_sign", "crl_sign"), True))


def leaf_extensions(uri: str) -> Extensions:
    """What a good client certificate with this one name says."""
    return [
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (_usage("digital_signature"), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
    ]


def _now(days: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, extensions: Extensions
) -> x509.Certificate:
    """A certificate that is good this week, signed with `key` whoever the issuer is; None: by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(subject if issuer is None else issuer.subject)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_now(-1)).not_valid_after(_now(7))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(key, hashes.SHA256())


def revocation_list(ca: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.CertificateRevocationList:
    """A list that is good this week, with one number on it."""
    one = x509.RevokedCertificateBuilder().serial_number(77).revocation_date(_now(-1)).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(ca.subject).add_revoked_certificate(one)
    return builder.last_update(_now(-1)).next_update(_now(7)).sign(key, hashes.SHA256())
