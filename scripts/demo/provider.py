"""A demo identity provider: keys of its own, its JWKS over HTTP, and signed JWTs as a real one would issue them."""

from __future__ import annotations

import http.server
import json
import threading
import time
import uuid
from contextlib import AbstractContextManager
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER: Final = "https://idp.example.com"
AUDIENCE: Final = "api-gateway"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.fetched += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(self.server.jwks)))
        self.end_headers()
        self.wfile.write(self.server.jwks)

    def log_message(self, *_: object) -> None:
        """The demo speaks for itself."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    jwks: bytes
    fetched: int = 0


class Provider(AbstractContextManager["Provider"]):
    """The provider: `jwks_uri` is where its keys are, `token` what it issues. It listens on `port`; 0 is any."""

    def __init__(self, port: int = 0) -> None:
        self.keys: dict[str, tuple[str, Key]] = {
            "idp-rsa": ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "idp-ec": ("ES256", ec.generate_private_key(ec.SECP256R1())),
        }
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.jwks = json.dumps({"keys": [self._jwk(kid) for kid in self.keys]}).encode()
        self.jwks_uri = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        """Serving already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def fetched(self) -> int:
        """How often anybody asked for the keys."""
        return self._server.fetched

    def token(self, kid: str = "idp-rsa", *, key: Key | None = None, algorithm: str = "", **claims: object) -> str:
        """Issue a token for Alice; `claims` replace or add, None takes one away; `key` signs in place of `kid`'s."""
        now = int(time.time())
        whole: dict[str, object] = {
            "iss": ISSUER,
            "sub": "alice",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 3600,
            "jti": str(uuid.uuid4()),
            "scope": "orders:read orders:write profile",
            "roles": ["orders-clerk"],
            "agency_id": "agency-7",
            "email": "alice@example.com",
        }
        whole |= claims
        whole = {name: value for name, value in whole.items() if value is not None}
        own_algorithm, own_key = self.keys[kid]
        chosen = algorithm or own_algorithm
        signer = None if chosen == "none" else key or own_key
        return jwt.encode(whole, signer, algorithm=chosen, headers={"kid": kid})  # type: ignore[arg-type]

    def _jwk(self, kid: str) -> dict[str, Any]:
        algorithm, key = self.keys[kid]
        public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        return {**public, "kid": kid, "use": "sig", "alg": algorithm}
