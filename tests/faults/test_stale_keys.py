"""The last good keys of an issuer that has gone: the whole way, real HTTP to the issuer, a clock of the test's own."""

import json
import secrets
import time
import urllib.parse

import pytest
import yaml
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Idp, minimal
from state_stores import state_at_work

from keys.keyring import Keyring
from sts.app import App
from sts.audit import LABEL, AuditLog
from sts.mint.keystore import prepare
from sts.model import Incoming, Peer
from sts.settings import load

STALE = 1800.0
LIFE = 300.0  # the provider says nothing of it


class World:
    """A service in this process, and its issuer. `later` moves the clock of both."""

    def __init__(self, folder):
        self.ahead = 0.0
        self.idp = Idp()
        document = yaml.safe_load(minimal(self.idp))
        document["sources"]["corporate-idp"]["stale_jwks"] = f"{STALE:.0f}s"
        document["audiences"]["orders"]["ttl"] = "1h"  # so that a token outlives the issuer's keys
        file = folder / "sts.yaml"
        file.write_text(json.dumps(document), encoding="utf-8")
        settings = load(file)
        secret, store, _, _ = prepare(
            settings.keys, settings.var, settings.given_secret(), self.clock, settings.wanted()
        )
        self.keyring = Keyring(store, settings.keys.schedule(), self.clock, lambda _: None)
        self.keyring.refresh()
        self.events = []
        audit = AuditLog(secret.key(LABEL), self.events.append, self.clock, time.monotonic)
        self.app = App(settings, secret, self.keyring, audit, state_at_work(settings, secret), self.clock)

    def clock(self):
        return time.time() + self.ahead

    def later(self, seconds):
        self.ahead += seconds
        self.keyring.refresh()

    def ask(self, token=None):
        """Exchange a token that nobody has sent before; status, reason and how long it took."""
        now = int(self.clock())
        token = token or self.idp.token(iat=now, exp=now + 600, jti=secrets.token_hex(8))
        form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
        form.update({"client_id": CLIENT, "client_secret": SECRET})
        headers = {"content-type": "application/x-www-form-urlencoded"}
        peer = Peer("127.0.0.1")
        incoming = Incoming(
            "POST", "/token", headers, peer, secrets.token_hex(16), urllib.parse.urlencode(form).encode()
        )
        began = time.monotonic()
        reply = self.app.current.exchange.answer(self.app.current.token_door, incoming)
        took = time.monotonic() - began
        return reply.status, json.loads(reply.body).get("error_reason"), took


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.idp.close()


def gone(handler):
    handler.reply(b"", 503)


def hang(world):
    return lambda _: world.idp.stop.wait(30)


def test_the_last_good_keys_serve_for_stale_jwks_and_not_longer(world):
    """JK-09."""
    assert world.ask()[:2] == (200, None)
    world.idp.answer = gone
    world.later(LIFE - 30)
    assert world.ask()[:2] == (200, None)
    for _ in range(5):
        world.later((STALE - 60) / 5)
        assert world.ask()[:2] == (200, None)
    world.later(200)
    assert world.ask()[:2] == (503, "source_unreachable")
    assert "corporate-idp" in world.app.readiness().detail["degraded"]
    world.idp.answer = None
    world.later(60)
    assert world.ask()[:2] == (200, None)
    assert world.app.readiness().detail["degraded"] == {}


def test_an_issuer_that_hangs_is_waited_for_once_and_then_its_last_keys_serve_at_once(world):
    assert world.ask()[:2] == (200, None)
    world.idp.answer = hang(world)
    world.later(LIFE + 1)
    status, _, took = world.ask()
    assert (status, took > 2) == (200, True)
    for _ in range(5):
        status, _, took = world.ask()
        assert (status, took < 1) == (200, True)


def test_a_token_that_is_cached_is_not_served_once_its_issuers_keys_are_too_old(world):
    token = world.idp.token(exp=int(time.time()) + 7200)
    assert world.ask(token)[:2] == world.ask(token)[:2] == (200, None)
    world.idp.answer = gone
    world.later(LIFE + STALE + 1)
    assert world.ask(token)[:2] == (503, "source_unreachable")
