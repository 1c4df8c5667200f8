"""The minter: a token never outlives its causes, and goes out encrypted or not at all where its grant says so."""

from types import SimpleNamespace

import pytest
from recipient import Pair

from sts.errors import EXPIRED, SOURCE_UNREACHABLE, TOKEN_TOO_LARGE, Refusal
from sts.jose import import_encryption_jwk
from sts.mint.minter import Minter
from sts.model import Grant

NOW = 1_800_000_000.0
PAIR = Pair()


class World:
    """A minter with a clock, and a backend whose keys take their time or cannot be had."""

    def __init__(self):
        self.now, self.takes, self.fault = NOW, 0.0, None
        self.sealed = []
        signer = SimpleNamespace(algorithm="ES256", kid="our-kid", sign=lambda _: bytes(64))
        keyring = SimpleNamespace(signer=lambda _algorithm, _now: signer)
        self.minter = Minter("https://sts.example.internal", keyring, {"billing": self})

    def key(self, _now):
        self.now += self.takes
        if self.fault is not None:
            raise self.fault
        return import_encryption_jwk(PAIR.jwk, "ECDH-ES")

    def mint(self, **changed):
        wanted = {
            "client_id": "gateway",
            "subject": "alice",
            "aud": ("billing",),
            "scopes": None,
            "claims": {},
            "headers": {},
            "act": {"sub": "gateway"},
            "typ": "at+jwt",
            "algorithm": "ES256",
            "ttl": 300.0,
            "not_after": NOW + 600,
            "fresh_until": NOW + 600,
            "min_remaining": 30.0,
            "max_token_bytes": 3000,
            "keep": True,
            "recipient": "billing",
        }
        return self.minter.mint(Grant(**wanted | changed), lambda: self.now)


@pytest.fixture
def world():
    return World()


def test_a_signed_token_asks_for_no_backends_keys(world):
    world.fault = AssertionError("they were asked for")
    issued = world.mint(recipient=None)
    assert (issued.token.count("."), issued.recipient) == (2, None)


def test_an_encrypted_token_names_the_key_that_it_depends_on(world):
    issued = world.mint()
    assert PAIR.decrypt(issued.token)[1].count(".") == 2
    assert issued.recipient == import_encryption_jwk(PAIR.jwk, "ECDH-ES").thumbprint


def test_without_the_backends_keys_there_is_no_token(world, refused):
    world.fault = Refusal(SOURCE_UNREACHABLE, why="it is down")
    with refused(SOURCE_UNREACHABLE):
        world.mint()


def test_a_credential_that_ends_while_the_keys_are_waited_for_gives_no_token(world, refused):
    world.takes = 5.0
    assert world.mint(not_after=NOW + 10).expires_at == NOW + 10
    world.now = NOW
    with refused(EXPIRED):
        world.mint(not_after=NOW + 5)


def test_the_limit_is_on_what_goes_out(world):
    plain = len(world.mint(recipient=None).token)
    with pytest.raises(Refusal) as caught:
        world.mint(max_token_bytes=plain + 100)
    assert caught.value.reason is TOKEN_TOO_LARGE
    assert caught.value.facts["token_bytes"] > plain + 300
