"""Certificates, CRLs and OCSP answers of every shape, good ones by default, made with `cryptography` alone."""

import datetime as dt
import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DAY = 86400.0
URI = "spiffe://partners.example/billing"
PARTNERS = {
    "type": "client_certificate",
    "ca_file": "partner-ca.pem",
    "san_prefix": "spiffe://partners.example/",
    "crl_file": "partner.crl.pem",
    "audiences": ["orders"],
    "namespace": "partner",
    "identity": {"subject": "certificate.uri", "scopes": "['orders:read']"},
}
"""The configuration of a source of certificates like URI; its two files are written by whoever uses it."""
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


def at(seconds):
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def key_usage(*names):
    known = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    known += ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in names for name in known})


def name(common, **more):
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    parts += [x509.NameAttribute(getattr(NameOID, key), value) for key, value in more.items()]
    return x509.Name(parts)


class Holder:
    """A certificate with its key."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key
        self.der = certificate.public_bytes(Encoding.DER)
        self.pem = certificate.public_bytes(Encoding.PEM).decode()
        self.subject = certificate.subject

    @property
    def key_pem(self):
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Authority(Holder):
    """A CA. `now` is the time around which all that it makes is valid."""

    _numbers = itertools.count(1000)

    def __init__(self, common="Partner CA", now=1_000_000.0, parent=None, key=None, extensions=None, life=(-DAY, DAY)):
        self.now = now
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = common if isinstance(common, x509.Name) else name(common)
        if extensions is None:
            extensions = [(x509.BasicConstraints(True, None), True), (key_usage("key_cert_sign", "crl_sign"), True)]
            extensions.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
        signer, issuer = (key, subject) if parent is None else (parent.key, parent.subject)
        super().__init__(self._make(subject, key, issuer, signer, extensions, life), key)

    def _make(self, subject, key, issuer, signer, extensions, life):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(next(self._numbers))
            .not_valid_before(at(self.now + life[0]))
            .not_valid_after(at(self.now + life[1]))
        )
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        no_hash = hasattr(signer, "private_bytes_raw")
        return builder.sign(signer, None if no_hash else hashes.SHA256())

    def issue(
        self, common="billing", *, uris=(URI,), dns=(), emails=(), ips=(), purposes=CLIENT,
        usage=("digital_signature",), key=None, subject=None, life=(-DAY, DAY), responder=None, extra=(),
    ):  # fmt: skip
        """A client's certificate; leave a part out with None."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(one) for one in dns] + [x509.RFC822Name(one) for one in emails]
        names += [x509.IPAddress(one) for one in ips]
        extensions = list(extra)
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        if purposes is not None:
            extensions.append((x509.ExtendedKeyUsage(purposes), False))
        if usage is not None:
            extensions.append((key_usage(*usage), True))
        if responder is not None:
            location = x509.UniformResourceIdentifier(responder)
            access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
            extensions.append((x509.AuthorityInformationAccess([access]), False))
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        return Holder(self._make(subject or name(common), key, self.subject, self.key, extensions, life), key)

    def crl(self, *revoked, life=(-60.0, 3600.0), extensions=(), entry=(), key=None, issuer=None, algorithm=None):
        """A CRL in PEM that names the serials of `revoked`."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer or self.subject)
        builder = builder.last_update(at(self.now + life[0])).next_update(at(self.now + life[1]))
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        for holder in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(holder.certificate.serial_number)
            one = one.revocation_date(at(self.now))
            for value, critical in entry:
                one = one.add_extension(value, critical)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(key or self.key, algorithm or hashes.SHA256()).public_bytes(Encoding.PEM)

    def ocsp(
        self, holder, status="good", *, signer=None, life=(-60.0, 3600.0), issuer=None, send=(), by_name=False,
        algorithm=None, extensions=(),
    ):  # fmt: skip
        """An OCSP answer in DER about `holder`."""
        good = ocsp.OCSPCertStatus[status.upper()]
        signer = signer or self
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=holder.certificate,
            issuer=(issuer or self).certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 - it only names the issuer
            cert_status=good,
            this_update=at(self.now + life[0]),
            next_update=None if life[1] is None else at(self.now + life[1]),
            revocation_time=at(self.now - 5) if status == "revoked" else None,
            revocation_reason=None,
        )
        how = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
        builder = builder.responder_id(how, signer.certificate)
        if send:
            builder = builder.certificates([one.certificate for one in send])
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        return builder.sign(signer.key, algorithm or hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(scope="session")
def partner_ca():
    """A CA whose certificates are valid a day around second 1 000 000."""
    return Authority()


def hostile(ca):
    """Certificates that prove nothing to whoever believes `ca`, by what is wrong, and the refusal's reason."""
    return {
        "of another CA": (Authority("Partner CA", now=ca.now).issue(), "bad_signature"),
        "of a CA nobody knows": (Authority("Other CA", now=ca.now).issue(), "unknown_issuer"),
        "expired": (ca.issue(life=(-DAY, -60)), "expired"),
        "for servers only": (ca.issue(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), "bad_type"),
        "a CA's": (ca.issue(extra=[(x509.BasicConstraints(True, None), True)]), "bad_type"),
        "with two SANs": (ca.issue(uris=[URI, URI + "2"]), "malformed"),
        "beyond the prefix": (ca.issue(uris=["spiffe://partners.example.evil/x"]), "requirement_failed"),
        "with a weak key": (ca.issue(key=rsa.generate_private_key(65537, 1024)), "bad_algorithm"),  # noqa: S505
        "self-signed": (Authority("Partner CA", now=ca.now), "bad_type"),
    }
