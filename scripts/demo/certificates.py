"""Mutual TLS in the demo: a partner's certificate becomes an internal JWT, in real handshakes with the service."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import ssl
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self

import jwt
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scripts.demo.service import CLIENT, GATEWAY, GRANT_TYPE, ISSUER, SECRET
from scripts.demo.show import Stage
from scripts.nginx import PATIENCE_S, await_port, free_port, stop

CERTIFICATE: Final = "urn:sts:token-type:client_certificate"
PARTNER: Final = "spiffe://partners.example/billing"
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_HOUR: Final = dt.timedelta(hours=1)
_CONFIGURATION: Final = (
    """\
issuer: {issuer}
listen: {{address: "127.0.0.1:{port}", tls: {{cert_file: server.pem, key_file: server.pem}}}}
workers: 1
audit: {{file: audit.jsonl}}
"""
    + GATEWAY
    + """\
sources:
  partners:
    type: client_certificate
    ca_file: partner-ca.pem
    san_prefix: spiffe://partners.example/
    crl_file: partner.crl.pem
    identity: {{subject: certificate.uri, scopes: "['orders:read']"}}
audiences:
  orders: {{ttl: 5m, scopes: [orders:read]}}
"""
)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """Both, as TLS wants them in a file."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.certificate.public_bytes(Encoding.PEM) + key

    @property
    def text(self) -> str:
        """As `subject_token`: the DER in base64url."""
        return base64.urlsafe_b64encode(self.certificate.public_bytes(Encoding.DER)).rstrip(b"=").decode()


class Ca:
    """A certification authority."""

    def __init__(self, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        built = self._builder(self._name, self._key.public_key(), "key_cert_sign", "crl_sign")
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = built.sign(self._key, hashes.SHA256())

    def issue(self, name: str, san: x509.GeneralName, purpose: x509.ObjectIdentifier) -> Certificate:
        """A certificate for one name and one purpose."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._builder(subject, key.public_key(), "digital_signature")
        built = built.add_extension(x509.SubjectAlternativeName([san]), critical=False)
        built = built.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return Certificate(built.sign(self._key, hashes.SHA256()), key)

    def partner(self, uri: str = PARTNER) -> Certificate:
        """A partner's certificate."""
        return self.issue("partner", x509.UniformResourceIdentifier(uri), ExtendedKeyUsageOID.CLIENT_AUTH)

    def crl(self, *revoked: Certificate) -> bytes:
        """The list of what it has taken back, in PEM."""
        now = dt.datetime.now(dt.UTC)
        built = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        built = built.last_update(now).next_update(now + _HOUR)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(now)
            built = built.add_revoked_certificate(entry.build())
        return built.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *usages: str) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        ours = self._key.public_key()
        return (
            x509.CertificateBuilder(issuer_name=self._name, subject_name=subject, public_key=key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _HOUR)
            .not_valid_after(now + _HOUR)
            # Python verifies strictly by RFC 5280 from 3.13 on, where these three must not be missing.
            .add_extension(x509.KeyUsage(**{name: name in usages for name in _USAGES}), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ours), critical=False)
        )


class TlsService(AbstractContextManager["TlsService"]):
    """A service of its own that speaks TLS and believes `ca` for partners, but for `revoked`."""

    def __init__(self, directory: Path, ca: Ca, revoked: Certificate) -> None:
        directory.mkdir()
        self._directory, self._port = directory, free_port()
        server_ca = Ca("Server CA")
        server = server_ca.issue("sts", x509.IPAddress(ip_address("127.0.0.1")), ExtendedKeyUsageOID.SERVER_AUTH)
        self._server_ca = server_ca.certificate.public_bytes(Encoding.PEM).decode()
        (directory / "server.pem").write_bytes(server.pem)
        (directory / "partner-ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
        (directory / "partner.crl.pem").write_bytes(ca.crl(revoked))
        (directory / "sts.yaml").write_text(_CONFIGURATION.format(issuer=ISSUER, port=self._port), encoding="utf-8")
        # Nothing of the caller's own service may get in.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STS_")}
        log = directory / "serve.log"
        with log.open("wb") as out:
            command = [str(Path(sys.executable).with_name("sts")), "serve"]
            self._process = subprocess.Popen(
                command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            await_port(self._port, self._process, log)
        except RuntimeError:
            stop(self._process)
            raise

    def __enter__(self) -> Self:
        """Running already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and wait for its end."""
        stop(self._process)

    def exchange(self, own: Certificate | None, presented: Certificate) -> tuple[int, dict[str, Any]]:
        """Present a certificate on a connection whose handshake was made with `own`; status 0 if there was none."""
        fields = [("grant_type", GRANT_TYPE), ("subject_token", presented.text)]
        fields += [("subject_token_type", CERTIFICATE), ("audience", "orders")]
        headers = urllib3.make_headers(basic_auth=f"{CLIENT}:{SECRET}")
        with self._pool(own) as pool:
            try:
                reply = pool.request("POST", "/token", headers=headers, fields=fields, encode_multipart=False)
            except urllib3.exceptions.HTTPError:
                return 0, {}
        return reply.status, json.loads(reply.data)

    def claims(self, token: str) -> dict[str, Any]:
        """What a backend makes of a token, by our JWKS, with PyJWT."""
        with self._pool(None) as pool:
            keys = jwt.PyJWKSet.from_json(pool.request("GET", "/.well-known/jwks.json").data.decode())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        found: dict[str, Any] = jwt.decode(token, key, algorithms=["ES256"], audience="orders", issuer=ISSUER)
        return found

    def _pool(self, own: Certificate | None) -> urllib3.HTTPSConnectionPool:
        context = ssl.create_default_context(cadata=self._server_ca)
        if own is not None:
            file = self._directory / "partner.pem"
            file.write_bytes(own.pem)
            context.load_cert_chain(file)
        return urllib3.HTTPSConnectionPool(
            "127.0.0.1", self._port, ssl_context=context, retries=False, timeout=PATIENCE_S
        )


def mutual_tls(stage: Stage, directory: Path) -> None:
    """A partner's certificate becomes an internal JWT; a stranger's, a stolen and a revoked one do not."""
    stage.step("Mutual TLS: a partner's certificate becomes an internal JWT")
    ca = Ca("Partner CA")
    partner, other, revoked = ca.partner(), ca.partner("spiffe://partners.example/other"), ca.partner()
    stranger = Ca("Partner CA").partner()
    with TlsService(directory / "mutual", ca, revoked) as service:
        status, body = service.exchange(partner, partner)
        holds = status == 200
        claims = service.claims(body["access_token"]) if holds else {}
        stage.check("the caller's own certificate is its credential", holds=holds, found=body)
        stage.table(
            ("claim", "internal, as the backend verified it"), [(k, claims.get(k)) for k in ("sub", "scope", "act")]
        )
        stage.check("the token is about the name in the certificate", holds=claims.get("sub") == PARTNER, found=claims)
        cases = (
            ("somebody else's certificate, which is no secret", partner, other, "binding_failed"),
            ("a certificate without its handshake", None, partner, "binding_failed"),
            ("a revoked certificate", revoked, revoked, "revoked"),
        )
        for what, own, presented, reason in cases:
            status, body = service.exchange(own, presented)
            stage.check(f"{what}: {reason}", holds=(status, body.get("error_reason")) == (400, reason), found=body)
        status, body = service.exchange(stranger, stranger)
        stage.check("a CA of the same name, with another key: not even a handshake", holds=status == 0, found=body)
