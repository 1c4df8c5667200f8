"""Certificates that tests of our TLS share, and how a caller speaks with them."""

import json
import ssl

import pytest
import trustme
import yaml
from harness import Service, minimal


class Pki:
    """A CA with our certificate, and callers' certificates of it; `other` is a CA that nobody configured."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.other = trustme.CA(), trustme.CA()
        self.ours = self.ca.issue_cert("localhost", "127.0.0.1")
        self.write_ours(self.ours)
        (folder / "ca.pem").write_bytes(self.ca.cert_pem.bytes())

    def write_ours(self, certificate, key=None):
        (self.folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
        (self.folder / "key.pem").write_bytes((key or certificate).private_key_pem.bytes())

    @property
    def listen(self):
        return {"cert_file": str(self.folder / "cert.pem"), "key_file": str(self.folder / "key.pem")}

    def context(self, certificate=None, version=None):
        """How a caller speaks to us: it trusts our CA, and may have a certificate."""
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        if certificate is not None:
            certificate.configure_cert(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def own_pki(tmp_path):
    """One whose files a test may change."""
    folder = tmp_path / "pki"
    folder.mkdir()
    return Pki(folder)


@pytest.fixture(scope="session")
def with_tls():
    """A configuration with a TLS listener, and changed keys at the top."""

    def with_tls(text, listen, **changes):
        document = yaml.safe_load(text)
        document["listen"] = {"address": "127.0.0.1:0", "tls": listen}
        return json.dumps(document | changes, indent=1)

    return with_tls


@pytest.fixture(scope="session")
def tls_service(pki, with_tls, idp, tmp_path_factory):
    """A service with TLS that takes certificates of our CA in handshakes."""
    listen = pki.listen | {"ca_file": str(pki.folder / "ca.pem")}
    running = Service(
        tmp_path_factory.mktemp("tls"), with_tls(minimal(idp), listen, workers=1, threads=4), tls=pki.context()
    )
    yield running
    assert running.stop() == 0, running.log()
