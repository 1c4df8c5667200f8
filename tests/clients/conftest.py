"""Certificates for callers, made to measure with `cryptography`, and a directory with one client in it."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sts.clients.failures import Failures
from sts.clients.registry import Clients, World
from sts.errors import Refusal

NOW = 1_800_000_000.0
DAY = dt.timedelta(days=1)


class Ca:
    """A CA that issues whatever it is asked for."""

    def __init__(self, name="ca", above=None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above
        signer = above or self
        self.certificate = (
            self.builder(self.name, signer.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage(key_cert_sign=True), critical=True)
            .sign(signer.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    @staticmethod
    def builder(subject, issuer, key, begins=-1, ends=30):
        now = dt.datetime.fromtimestamp(NOW, dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
        )

    def issue(self, *, subject="", uris=(), hosts=(), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,), key=None, **times):
        """A chain in DER, leaf first."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self.builder(x509.Name.from_rfc4514_string(subject), self.name, key.public_key(), **times)
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, hosts)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(usage(digital_signature=True), critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        leaf = builder.sign(self.key, hashes.SHA256())
        above = () if self.above is None else (self.certificate.public_bytes(Encoding.DER),)
        return (leaf.public_bytes(Encoding.DER), *above)


def usage(**wanted):
    every = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    return x509.KeyUsage(**(every | wanted))


@pytest.fixture(scope="session")
def ca():
    return Ca()


@pytest.fixture(scope="session")
def make_ca():
    return Ca


@pytest.fixture
def proven():
    """Prove a caller to a directory with the one client `gateway`; gives the `Client`, or the facts of the refusal."""

    def proven(settings, caller, **world):
        clients = Clients({"gateway": settings}, Failures(lambda: 0.0), World(clock=lambda: NOW, **world))
        try:
            return clients.prove(caller)
        except Refusal as refusal:
            if refusal.reason.name != "client_refused":
                raise
            return refusal.facts

    return proven
