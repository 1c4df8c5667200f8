"""Servers that issue opaque tokens: a real one, and one whose every answer a test may bend.

`AuthorizationServer` is authlib's, with token, introspection and revocation endpoints over real sockets (RFC 6749,
RFC 7662, RFC 7009). None of our own code has a part in it.
"""

import base64
import contextlib
import http.client
import http.server
import json
import logging
import secrets
import threading
import time
import urllib.parse

import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer as Authlib
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask
from web import Web
from werkzeug.serving import WSGIRequestHandler, make_server

OUR_ID, OUR_SECRET = "sts", "a secret: with +, % and /"
AS_ISSUER = "https://as.example.com"
SCOPES = "orders:read orders:write billing:read"


class Client(ClientMixin):
    def __init__(self, client_id, secret):
        self.client_id, self.secret = client_id, secret

    def get_client_id(self):
        return self.client_id

    def check_client_secret(self, client_secret):
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic" and endpoint in ("token", "introspection", "revocation")

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope):
        return " ".join(one for one in scope.split() if one in SCOPES.split())


class Token(TokenMixin):
    def __init__(self, client, value, scope, life):
        self.client, self.value, self.scope = client, value, scope
        self.issued_at = int(time.time())
        self.expires_at = self.issued_at + life
        self.revoked = False
        self.changes = {}

    def check_client(self, client):
        return client is self.client

    def is_expired(self):
        return self.expires_at < time.time()

    def is_revoked(self):
        return self.revoked


class AuthorizationServer:
    """Issues opaque tokens to `batch`, and says to `sts` what they mean."""

    def __init__(self, prefix="op_", life=600):
        self.prefix, self.life, self.asked = prefix, life, []
        self.clients = {one.client_id: one for one in (Client(OUR_ID, OUR_SECRET), Client("batch", "batch secret"))}
        self.tokens = {}
        app = Flask("as")
        self.oauth = Authlib(app, query_client=self.clients.get, save_token=self._save)
        self.oauth.register_grant(type("Grant", (ClientCredentialsGrant,), {}))
        self.oauth.register_token_generator("default", self._generate)
        self.oauth.register_endpoint(self._introspection())
        self.oauth.register_endpoint(self._revocation())
        app.post("/token", endpoint="token")(self.oauth.create_token_response)
        for name, path in (("introspection", "/introspect"), ("revocation", "/revoke")):
            app.post(path, endpoint=name)(lambda name=name: self.oauth.create_endpoint_response(name))
        self._serve(app)

    def _serve(self, app, port=0):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

        self.app = app
        self.server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Handler)
        self.server.daemon_threads = True
        self.port = self.server.port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _generate(self, *, scope, **_):
        value = self.prefix + secrets.token_urlsafe(24)
        return {"token_type": "Bearer", "access_token": value, "expires_in": self.life, "scope": scope}

    def _save(self, token, request):
        value = token["access_token"]
        self.tokens[value] = Token(request.client, value, token["scope"], self.life)

    def _introspection(self):
        owner = self

        class Introspection(IntrospectionEndpoint):
            def query_token(self, token_string, token_type_hint):
                owner.asked.append((token_string, token_type_hint))
                return owner.tokens.get(token_string)

            def check_permission(self, token, client, request):  # noqa: ARG002 - authlib's signature
                return client.client_id == OUR_ID

            def introspect_token(self, token):
                return owner.claims(token)

        return Introspection

    def _revocation(self):
        owner = self

        class Revocation(RevocationEndpoint):
            def query_token(self, token_string, token_type_hint):  # noqa: ARG002
                return owner.tokens.get(token_string)

            def revoke_token(self, token, request):  # noqa: ARG002
                token.revoked = True

        return Revocation

    def claims(self, token):
        """What there is to say of an active token; a member that the test changed to None is left out."""
        said = {
            "active": True,
            "iss": AS_ISSUER,
            "sub": token.client.client_id,
            "client_id": token.client.client_id,
            "aud": "api-gateway",
            "scope": token.scope,
            "token_type": "Bearer",
            "exp": token.expires_at,
            "iat": token.issued_at,
        }
        return {name: value for name, value in {**said, **token.changes}.items() if value is not None}

    def _post(self, path, form):
        basic = base64.b64encode(b"batch:batch%20secret").decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", path, urllib.parse.urlencode(form), headers)
            answer = connection.getresponse()
            assert answer.status == 200
            return json.load(answer)

    def token(self, scope=SCOPES, **changes):
        """A fresh opaque token by the client_credentials grant; `changes` are to what is said of it."""
        value = self._post("/token", {"grant_type": "client_credentials", "scope": scope})["access_token"]
        self.tokens[value].changes = changes
        return value

    def revoke(self, value):
        """Revoke it as its owner does (RFC 7009)."""
        self._post("/revoke", {"token": value})

    def times(self, value):
        """How many times it was asked about."""
        return sum(asked == value for asked, _ in self.asked)

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def again(self):
        """Come back at the same address after `close`."""
        self._serve(self.app, self.port)


class Bent(Web):
    """A server whose answer is a function of the request's handler; it keeps what was asked."""

    def __init__(self):
        super().__init__(lambda handler: handler.reply({"active": False}))
        self.asked, self.heads = [], []

    def handle(self, handler):
        self.heads.append((handler.path, dict(handler.headers)))
        self.asked.append(dict(urllib.parse.parse_qsl(handler.body.decode())))
        self.answer(handler)

    def says(self, body, status=200, headers=()):
        self.answer = lambda handler: handler.reply(body, status, headers)


def source(server, **changes):
    """The configuration of a source that asks `server`; a key that is None is left out."""
    written = {
        "type": "introspection",
        "endpoint": f"{server.url}/introspect",
        "client_id": OUR_ID,
        "client_secret": OUR_SECRET,
        "issuer": AS_ISSUER,
        "audience": "api-gateway",
        "audiences": ["*"],
        "namespace": "op",
        "identity": {"subject": "claims.sub", "scopes": "claims.scope"},
        **changes,
    }
    return {name: value for name, value in written.items() if value is not None}


@pytest.fixture
def authorization_server():
    """A real authorization server of the test's own."""
    server = AuthorizationServer()
    yield server
    server.close()


@pytest.fixture
def bent():
    """Make servers that a test may bend."""
    made = []

    def make():
        made.append(Bent())
        return made[-1]

    yield make
    for server in made:
        server.close()
