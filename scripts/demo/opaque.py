"""Opaque tokens in the demo: a server that has to be asked, a backend that asks us, and a revocation that is felt."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
import urllib.parse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Self

import urllib3

from scripts.demo.service import CLIENT, GATEWAY, GRANT_TYPE, SECRET, Service
from scripts.demo.show import Stage

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
BACKEND: Final = "orders-service"
TTL_S: Final = 3.0
_TRIES: Final = 20  # a slow machine may take longer than that for two requests
_OURS: Final = "Basic " + base64.b64encode(b"sts:demo-secret").decode()
# The braces stay double: `Service` formats the text once more.
_CONFIGURATION: Final = (
    """\
issuer: {{issuer}}
listen: 127.0.0.1:{{port}}
workers: 1
audit: {{{{file: audit.jsonl}}}}
"""
    + GATEWAY
    + """\
  orders-service:               # a backend that cannot verify JWTs by itself
    auth: secret
    secrets: ["sha256:{digest}"]
    backend_of: [orders]
    audiences: []
    sources: []
sources:
  legacy-as:
    type: introspection
    endpoint: {endpoint}
    client_id: sts
    client_secret: demo-secret
    audience: api-gateway
    match: {{{{prefix: op_}}}}
    cache_ttl: 3s
    identity: {{{{subject: claims.sub, scopes: claims.scope}}}}
audiences:
  orders: {{{{ttl: 5m, scopes: ["orders:read"]}}}}
"""
)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = self.headers["Authorization"] == _OURS
        self.server.asked += 1
        body = json.dumps(self.server.tokens.get(form["token"][0], {"active": False}) if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The demo speaks for itself."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    tokens: dict[str, dict[str, Any]]
    asked: int = 0


class AuthorizationServer(AbstractContextManager["AuthorizationServer"]):
    """Issues opaque tokens and says to the service what they mean (RFC 7662)."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tokens = {}
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/introspect"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        """Serving already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def asked(self) -> int:
        """How many questions there were."""
        return self._server.asked

    def token(self, **claims: object) -> str:
        """A fresh token, of which it will say this."""
        value = "op_" + secrets.token_urlsafe(24)
        said = {"sub": "bob", "aud": "api-gateway", "scope": "orders:read", "exp": int(time.time()) + 600, **claims}
        self._server.tokens[value] = {"active": True, **said}
        return value

    def revoke(self, token: str) -> None:
        """Take a token back."""
        del self._server.tokens[token]


def opaque(stage: Stage, directory: Path) -> None:
    """An opaque token becomes an internal JWT; we explain that one to its backend; a revocation ends it all."""
    stage.step("Opaque tokens: a server that has to be asked (RFC 7662), and a backend that asks us")
    backend_secret = secrets.token_urlsafe(32)
    folder = directory / "opaque"
    folder.mkdir()
    with AuthorizationServer() as server:
        configuration = _CONFIGURATION.format(endpoint=server.endpoint, digest=_digest(backend_secret))
        with Service(folder, "", configuration) as service:
            token, (status, body), again, asked = _twice(service, server)
            inner = body.get("access_token", "")
            stage.check("an opaque token is exchanged for an internal JWT", holds=status == 200, found=body)
            holds = (again.get("access_token"), asked) == (inner, 1)
            stage.check("the same again asks nobody: the server was asked once", holds=holds, found=asked)
            said = _introspect(service, inner, BACKEND, backend_secret)
            shown = ("active", "sub", "aud", "scope", "client_id", "token_type")
            stage.table(("POST /introspect, for the backend", "value"), [(name, said.get(name)) for name in shown])
            stage.check("the backend is told what its token says", holds=said.get("sub") == "bob", found=said)
            other = _introspect(service, inner, CLIENT, SECRET)
            stage.check("anybody else: not active, and no more", holds=other == {"active": False}, found=other)
            cases = ((server.token(aud="elsewhere"), "audience_mismatch"), ("op_made-up", "revoked"))
            for bad, reason in cases:
                found = _exchange(service, bad)[1].get("error_reason")
                stage.check(f"a bad opaque token: {reason}", holds=found == reason, found=found)
            server.revoke(token)
            time.sleep(TTL_S + 0.1)
            found = _exchange(service, token)[1].get("error_reason")
            stage.check("revoked at the server, refused here within `cache_ttl`", holds=found == "revoked", found=found)


def _twice(
    service: Service, server: AuthorizationServer
) -> tuple[str, tuple[int, dict[str, Any]], dict[str, Any], int]:
    """Exchange one token twice within its `cache_ttl`: the token, both answers, and how often the server was asked."""
    for _ in range(_TRIES):
        token, before, began = server.token(), server.asked, time.monotonic()
        first, again = _exchange(service, token), _exchange(service, token)[1]
        if time.monotonic() - began < TTL_S:
            break
    return token, first, again, server.asked - before


def _exchange(service: Service, token: str) -> tuple[int, dict[str, Any]]:
    form = {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
    return _post(service, "/token", form, CLIENT, SECRET)


def _introspect(service: Service, token: str, client: str, secret: str) -> dict[str, Any]:
    return _post(service, "/introspect", {"token": token}, client, secret)[1]


def _post(service: Service, path: str, form: dict[str, str], client: str, secret: str) -> tuple[int, dict[str, Any]]:
    headers = urllib3.make_headers(basic_auth=f"{client}:{secret}")
    reply = service.connection.request("POST", path, headers=headers, fields=form, encode_multipart=False)
    body: dict[str, Any] = json.loads(reply.data)
    return reply.status, body


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
