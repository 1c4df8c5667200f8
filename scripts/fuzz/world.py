"""A configuration with every kind of source, caller and output, and what a caller there may bring: `World`, `Material`.

What the service asks (an introspection server, a table, a policy server) is one server here, `Outside`, whose every
byte may be bent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import socketserver
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from scripts.demo.provider import ISSUER as IDP
from scripts.demo.provider import Provider
from scripts.demo.service import CLIENT, CONFIGURATION, ISSUER, SECRET
from scripts.fuzz.certificates import CA_EXTENSIONS, certificate, leaf_extensions, revocation_list

URI: Final = "spiffe://partners.example/billing"
SUBJECTS: Final = frozenset({"alice", f"partner|{URI}", "key|acme", "op|bob", "people|carol"})
"""Whom anything that is minted here may be for."""
AUDIENCES: Final = frozenset({"orders", "guarded", "mapped", "billing"})
PREFIX: Final = "sk_live_"
FORMS: Final = ("nginx", "client_cert", "xfcc")

GOOD: Final[dict[str, dict[str, object]]] = {
    "introspect": {"active": True, "sub": "bob", "aud": "api-gateway", "scope": "orders:read", "exp": 4_000_000_000},
    "people": {"scopes": "orders:read", "tenant": "agency-7"},
    "opa": {"result": True},
}
"""What is said outside unless somebody bends it, by the first segment of the path."""


def secret_of(name: str) -> str:
    """The secret of a client, or of the proxy; that of each one holds the demo's own."""
    return SECRET if name == CLIENT else f"{SECRET}-{name}"


def digest(name: str) -> str:
    """What the configuration holds of that secret."""
    return "sha256:" + hashlib.sha256(secret_of(name).encode()).hexdigest()


def gateway(form: str) -> str:
    """The client that hands certificates on in `form`."""
    return f"{form.replace('_', '-')}-gateway"


# Beside the demo's own; JSON is YAML, and the demo's text is formatted, hence the doubled braces.
_MORE: Final = {
    "clients": {
        **{
            gateway(form): {
                "auth": "secret",
                "secrets": [digest(gateway(form))],
                "audiences": ["orders"],
                "profile": "nginx",
                "may_present": ["partners"],
                "certificate_header": form,
            }
            for form in FORMS
        },
        "signer": {"auth": "private_key_jwt", "jwks_file": "signer.jwks.json", "audiences": ["orders"]},
        "holder": {
            "auth": "access_token",
            "source": "corporate-idp",
            "client_id": "holder",
            "audiences": ["orders"],
        },
        "mesh": {"auth": "tls", "ca_file": "partner-ca.pem", "san_uri": URI, "audiences": ["orders"]},
        "orders-service": {
            "auth": "secret",
            "secrets": [digest("orders-service")],
            "audiences": ["billing"],
            "backend_of": ["orders"],
        },
    },
    "sources": {
        "people": {
            "type": "jwt",
            "issuer": "https://people.example.com",
            "jwks_file": "signer.jwks.json",
            "algorithms": ["ES256"],
            "audience": "api-gateway",
            "namespace": "people",
            "identity": {"subject": "claims.sub", "scopes": "lookup('hr', claims.jti).scopes"}
            | {"tenant": "lookup('hr', claims.jti).tenant"},
        },
        "opaque": {
            "type": "introspection",
            "client_id": "sts",
            "client_secret": {"file": "opaque.secret"},
            "audience": "api-gateway",
            "match": {"prefix": "op_"},
            "namespace": "op",
            "identity": {"subject": "claims.sub", "scopes": "claims.scope"},
        },
        "partners": {
            "type": "client_certificate",
            "ca_file": "partner-ca.pem",
            "crl_file": "partner.crl.pem",
            "san_prefix": "spiffe://partners.example/",
            "namespace": "partner",
            "identity": {"subject": "certificate.uri", "scopes": "['orders:read']", "tenant": "certificate.subject"},
        },
        "partner-keys": {
            "type": "api_key",
            "prefix": PREFIX,
            "namespace": "key",
            "identity": {"subject": "key.owner", "scopes": "key.scopes"},
        },
    },
    "audiences": {
        "guarded": {"opa": True, "scopes": ["orders:read"], "reuse": "unique"},
        "mapped": {"scopes": ["orders:read"], "reuse": "unique"},
        "sealed": {
            "format": "jwe",
            "scopes": ["orders:read"],
            "encryption": {"jwks_file": "sealed.jwks.json", "alg": "ECDH-ES+A256KW"},
        },
    },
}


@dataclass(frozen=True)
class Material:
    """What a caller of one place holds. `own` is a token of the place itself, for `orders`."""

    token: bytes
    world: World = field(repr=False)
    api_key: bytes = b""
    own: bytes = b""

    @property
    def needles(self) -> tuple[bytes, ...]:
        """What no answer, event and log may hold: secrets whole, and of each token the signature and the claims."""
        parts = [part for token in (self.token, self.own) if token for part in token.split(b".")[1:]]
        return tuple(one for one in (SECRET.encode(), self.api_key, *parts) if one)


class World(AbstractContextManager["World"]):
    """Keys and certificates of everybody outside, and a server for what the service asks."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.outside = Outside()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ca = certificate("Partner CA", self.key, None, CA_EXTENSIONS)
        self.leaf = certificate("billing", self.key, self.ca, leaf_extensions(URI))
        self.leaf_der = self.leaf.public_bytes(Encoding.DER)
        self.leaf_pem = self.leaf.public_bytes(Encoding.PEM)
        self.crl = revocation_list(self.ca, self.key)
        self.client_key = ec.generate_private_key(ec.SECP256R1())

    def __enter__(self) -> Self:
        """Serving already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self.outside.close()

    def configuration(self, directory: Path, **changes: object) -> str:
        """Write the files that it names into `directory`; returns what `Service` formats with issuer and port."""
        text = CONFIGURATION.format(issuer=ISSUER, port="{port}", jwks_uri=self.provider.jwks_uri)
        document: dict[str, Any] = yaml.safe_load(text)
        for section, entries in _MORE.items():
            document[section] |= json.loads(json.dumps(entries))
        for client in document["clients"].values():
            client["sources"] = ["*"]
        for source in document["sources"].values():
            source["audiences"] = ["*"]
        document["clients"][CLIENT]["actors"] = ["*"]
        document["clients"][CLIENT]["audiences"] = ["orders", "guarded", "mapped", "sealed"]
        document["sources"]["corporate-idp"]["namespace"] = ""
        document["sources"]["opaque"]["endpoint"] = f"{self.outside.url}/introspect"
        document["audiences"]["orders"] |= {"ttl": "1h", "evidence": True, "shadow": "identity.acr == 'mfa'"}
        document["audiences"]["billing"]["scopes"].append("orders:read")
        document["tables"] = {"hr": {"url": f"{self.outside.url}/people/{{key}}", "cache_ttl": "0s"}}
        document["opa"] = {"url": f"{self.outside.url}/opa/v1/data/sts/allow", "timeout": "2s"}
        document["proxies"] = [
            {
                "networks": ["127.0.0.0/8"],
                "secrets": [digest("proxy")],
                "certificate_header": "client_cert",
            }
        ]
        self._write(directory)
        written = json.dumps(document | changes, indent=1)
        return written.replace("{", "{{").replace("}", "}}").replace("{{port}}", "{port}")

    def _write(self, directory: Path) -> None:
        public = jwt.get_algorithm_by_name("ES256").to_jwk(self.client_key.public_key(), as_dict=True)
        jwk = {name: public[name] for name in ("kty", "crv", "x", "y")}
        (directory / "signer.jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k1", "use": "sig"}]}))
        (directory / "sealed.jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "e1", "use": "enc"}]}))
        (directory / "opaque.secret").write_text("secret at the other server")
        (directory / "partner-ca.pem").write_bytes(self.ca.public_bytes(Encoding.PEM))
        (directory / "partner.crl.pem").write_bytes(self.crl.public_bytes(Encoding.PEM))

    def signed(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> bytes:
        """A JWT of exactly these claims under the key of `signer` and `people`, named `k1`."""
        return _signed({"alg": "ES256", "kid": "k1", **(header or {})}, claims, self.client_key)

    def holding(self, **changes: object) -> bytes:
        """An access token of `holder`, by the demo's provider."""
        key = self.provider.keys["idp-ec"][1]
        good = {"iss": IDP, "aud": ISSUER, "sub": "holder", "client_id": "holder", "exp": 4_000_000_000}
        return _signed({"alg": "ES256", "kid": "idp-ec"}, {**good, **changes}, key)

    def person(self, **changes: object) -> bytes:
        """A fresh token of the source `people`."""
        good = {"iss": "https://people.example.com", "sub": "carol", "aud": "api-gateway", "exp": 4_000_000_000}
        return self.signed({**good, "scope": "orders:read", "jti": secrets.token_hex(8), **changes})

    def assertion(self, **changes: object) -> bytes:
        """A fresh client assertion of `signer`."""
        good = {"iss": "signer", "sub": "signer", "aud": ISSUER, "exp": int(time.time()) + 250}
        return self.signed({**good, "jti": secrets.token_hex(8), **changes})

    def odd_leaf(self, extension: str, content: bytes) -> x509.Certificate:
        """A leaf of the CA, one of whose extensions (its OID in dots) holds just these bytes."""
        oid = x509.ObjectIdentifier(extension)
        odd = (x509.UnrecognizedExtension(oid, content), False)
        others = [(value, critical) for value, critical in leaf_extensions(URI) if value.oid != oid]
        return certificate("billing", self.key, self.ca, [*others, odd])


def _signed(header: dict[str, Any], claims: dict[str, Any], key: Any) -> bytes:  # noqa: ANN401 - PyJWT knows
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signing_input = b".".join(parts)
    signature = jwt.get_algorithm_by_name("ES256").sign(signing_input, key)
    return signing_input + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


class Outside:
    """Answers each request at `url` with `says` for the first segment of its path: the bytes of a whole answer."""

    def __init__(self) -> None:
        self.says = {path: answer(json.dumps(document).encode()) for path, document in GOOD.items()}
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 5

            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    path = self.rfile.readline().split(b" ")[1].split(b"/")[1].decode()
                    length = 0
                    while (line := self.rfile.readline()).strip():
                        name, _, value = line.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                    self.rfile.read(length)
                    self.wfile.write(owner.says[path])

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def answer(body: bytes, head: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A whole HTTP answer, after which the connection ends."""
    return b"%s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (head, len(body), body)
