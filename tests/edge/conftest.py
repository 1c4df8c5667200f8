"""Requests as they stand on the wire, and a way through a door that stops at the exchange itself."""

from __future__ import annotations

import hashlib

import pytest

from sts.clients.failures import Failures
from sts.clients.registry import Clients
from sts.clients.secret import SecretClient
from sts.errors import Refusal
from sts.model import Incoming, Issued, Peer

CLIENT = "edge-gateway"
SECRET = "edge-gateway-secret-for-tests-only"
NOW = 1_900_000_000.0


@pytest.fixture
def client_id():
    return CLIENT


@pytest.fixture
def secret():
    return SECRET


@pytest.fixture
def now():
    return NOW


@pytest.fixture(scope="session")
def request_to():
    """Make an `Incoming`; header names as a server hands them on."""

    def make(method, target, headers=None, body=b"", *, fault=""):
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return Incoming(method, target, lower, Peer("127.0.0.1"), "0123456789abcdef" * 2, body, fault)

    return make


@pytest.fixture
def issued():
    return Issued(
        subject="alice",
        token="eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl",
        token_type="Bearer",
        expires_at=int(NOW) + 300,
        jti="jti-1",
        kid="kid-1",
        scopes=("orders:read",),
        headers={"X-User-ID": "alice"},
    )


@pytest.fixture
def clients():
    digest = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
    settings = SecretClient(auth="secret", secrets=(digest,), audiences=("orders",), profile="nginx")
    bare = SecretClient(auth="secret", secrets=(digest,), audiences=("orders",))
    return Clients({CLIENT: settings, "no-profile": bare}, Failures(lambda: NOW))


@pytest.fixture
def answer(clients, issued):
    """Answer a request at a door as the way does, up to the exchange; `asks` keeps what was asked for."""

    class Way:
        def __init__(self):
            self.asks = []
            self.refusals = []
            self.issued = issued
            self.refuse = None

        def __call__(self, door, incoming):
            try:
                caller = door.caller(incoming)
                client = clients.prove(caller)
                ask = door.ask(incoming, caller, client)
                self.asks.append(ask)
                if self.refuse is not None:
                    raise self.refuse
                return door.allowed(incoming, ask, self.issued if ask.credential else None, NOW)
            except Refusal as refusal:
                self.refusals.append(refusal)
                return door.refused(incoming, refusal.reason, refusal.facts)

    return Way()
