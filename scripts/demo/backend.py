"""A backend as somebody else would write it: it verifies the internal token offline, by JWKS, with PyJWT alone."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import AbstractContextManager
from typing import Any, Final, Self

import jwt

NAME: Final = "orders"


class Verifier:
    """Verifies internal tokens; keeps the key set for a second, less than `verifier_refresh` allows."""

    def __init__(self, issuer: str, jwks_uri: str, audience: str = NAME) -> None:
        self._issuer, self._audience = issuer, audience
        self._jwks = jwt.PyJWKClient(jwks_uri, lifespan=1)

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a good token; raises jwt.PyJWTError for any other."""
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token (RFC 9068 §4)")
        key = self._jwks.get_signing_key_from_jwt(token)
        wanted: dict[str, Any] = {"audience": self._audience, "issuer": self._issuer}
        wanted["options"] = {"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]}
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["ES256"], **wanted)
        return claims


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = self.server.verifier.claims(token) if token else None
            status = 200
        except jwt.PyJWTError:
            claims, status = None, 401
        body = json.dumps({"target": self.path, "headers": headers, "claims": claims}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The demo speaks for itself."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    verifier: Verifier


class Backend(AbstractContextManager["Backend"]):
    """The backend on a port of the loopback; it answers with what it saw and what it could verify."""

    def __init__(self, verifier: Verifier) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.verifier = verifier
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        """Serving already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
