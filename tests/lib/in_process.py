"""A service in the test's own process, on a clock of the test's own; its issuer answers real HTTP."""

import json
import secrets
import time
import urllib.parse

import yaml
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Idp, minimal
from state_stores import state_at_work

from keys.keyring import Keyring
from sts.app import App
from sts.audit.log import LABEL, AuditLog
from sts.mint.keystore import prepare
from sts.model import Incoming, Peer
from sts.settings import load

PEER = Peer("127.0.0.1")


def _posted(path, form):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return Incoming("POST", path, headers, PEER, secrets.token_hex(16), urllib.parse.urlencode(form).encode())


class World:
    """A service in this process, and its issuer. `later` moves the clock of both; `change` edits the configuration."""

    def __init__(self, folder, change=lambda _document: None):
        self.ahead = 0.0
        self.idp = Idp()
        document = yaml.safe_load(minimal(self.idp))
        change(document)
        self.file = folder / "sts.yaml"
        self.file.write_text(json.dumps(document), encoding="utf-8")
        settings = load(self.file)
        secret, store, _, _ = prepare(
            settings.keys, settings.var, settings.given_secret(), self.clock, settings.wanted()
        )
        self.secret, self.audit_key = secret, secret.key(LABEL)
        self.keyring = Keyring(store, settings.keys.schedule(), self.clock, lambda _: None)
        self.keyring.refresh()
        self.events = []
        audit = AuditLog(self.audit_key, self.events.append, self.clock, time.monotonic)
        self.state = state_at_work(settings, secret)
        self.app = App(settings, secret, self.keyring, audit, self.state, self.clock)

    def close(self):
        self.idp.close()
        self.state.store.close()

    def clock(self):
        return time.time() + self.ahead

    def later(self, seconds):
        self.ahead += seconds
        self.keyring.refresh()

    def fresh(self):
        """A token that nobody has sent before."""
        now = int(self.clock())
        return self.idp.token(iat=now, exp=now + 600, jti=secrets.token_hex(8))

    def exchange(self, token=None, **changes):
        """The answer of the token door; `changes` are parameters."""
        form = {"grant_type": GRANT, "subject_token": token or self.fresh(), "subject_token_type": ACCESS_TOKEN}
        form |= {"audience": "orders", "client_id": CLIENT, "client_secret": SECRET, **changes}
        return self.app.current.exchange.answer(self.app.current.token_door, _posted("/token", form))

    def minted(self, token=None, **changes):
        """The token that is handed out."""
        reply = self.exchange(token, **changes)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)["access_token"]

    def introspect(self, token, client, secret):
        """What a backend is told of a token."""
        form = {"token": token, "client_id": client, "client_secret": secret}
        return json.loads(self.app.current.introspection.answer(_posted("/introspect", form)).body)

    def forward(self, token=None):
        """The answer of the forward-auth door."""
        headers = {"x-gateway-secret": SECRET, "authorization": f"Bearer {token or self.fresh()}"}
        asked = {"x-original-method": "GET", "x-original-uri": "/orders/1", "x-original-host": "api.example.com"}
        incoming = Incoming("GET", f"/forward-auth/{CLIENT}", headers | asked, PEER, secrets.token_hex(16))
        return self.app.current.exchange.answer(self.app.current.forward_auth_door, incoming)

    def ask(self, token=None):
        """Exchange a token, one that nobody has sent before unless it is given; status, reason, how long it took."""
        began = time.monotonic()
        reply = self.exchange(token)
        return reply.status, json.loads(reply.body).get("error_reason"), time.monotonic() - began
