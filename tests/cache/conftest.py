"""A token cache with a clock, keys and a maker that a test can turn as it likes."""

import secrets
from types import SimpleNamespace

import pytest

from sts.cache.memory import Memory
from sts.cache.tokens import Causes, TokenCache, cache_key
from sts.model import TYPE_ACCESS_TOKEN, Ask, Client, Credential, Issued, Revocable

NOW = 1_800_000_000.0


class Keys:
    """Issuers' keys and our own, both in force until a test takes one away."""

    def __init__(self):
        self.gone = set()

    def key_current(self, source, proof_key):
        return (source, proof_key) not in self.gone

    def published(self, kid, _now):
        return kid not in self.gone

    def unrevoked(self, revocable, _now):
        return not self.gone & {name for _, names in revocable.groups for name in names}

    def recipient_current(self, audience, thumbprint):
        return (audience, thumbprint) not in self.gone


@pytest.fixture
def request_of():
    """Make (client, ask, credential) with any of their fields replaced."""

    def request_of(client_id="edge-gateway", value="header.payload.signature", token_type=TYPE_ACCESS_TOKEN, **fields):
        credential = Credential(token_type, value)
        client = Client(client_id, frozenset({"*"}), frozenset({"*"}), None, None)
        ask = {"door": "token", "audiences": ("orders",), "scopes": ("read",), "route": None}
        return client, Ask(credential=credential, **(ask | fields)), credential

    return request_of


@pytest.fixture
def key_of(request_of):
    def key_of(*, secret=b"s" * 32, facts=(), **fields):
        return cache_key(secret, *request_of(**fields), facts)

    return key_of


@pytest.fixture
def issue():
    """Make a token of its own and its causes, as the minter and `Causes.of` would."""

    def issue(
        *, subject="user", until=NOW + 270, kid="kid-1", proof_key="proof-1", keep=True, exp=NOW + 300, recipient=None
    ):
        issued = Issued(
            subject=subject,
            token=f"{secrets.token_urlsafe(200)}",
            token_type="Bearer",
            expires_at=int(exp),
            jti=secrets.token_urlsafe(16),
            kid=kid,
            scopes=("read",),
            headers={"X-User-ID": subject},
        )
        proofs = (("idp", proof_key),) if proof_key else ()
        revocable = Revocable(((NOW, ("source:idp", f"subject:{subject}")),))
        return issued, Causes(proofs, kid, until, keep, revocable, recipient)

    return issue


@pytest.fixture
def world():
    """The cache and all that it asks; `now` is the clock."""
    world = SimpleNamespace(now=NOW, keys=Keys(), memory=Memory(1_000_000), parts=("client", "source", "audience"))
    world.clock = lambda: world.now
    world.cache = TokenCache(
        *(b"s" * 32, world.memory, world.keys.published),
        max_waiters=100,
        patience=60,  # as long as a busy machine may take to get all of them there
        recipient_current=world.keys.recipient_current,
        unrevoked=world.keys.unrevoked,
    )

    def find(key=b"k" * 32):
        return world.cache.find(key, world.parts, world.keys, world.now)

    def fill(make, key=b"k" * 32):
        return world.cache.fill(key, world.parts, world.keys, world.clock, make)

    world.find, world.fill = find, fill
    return world
