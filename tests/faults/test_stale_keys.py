"""The last good keys of an issuer that has gone: the whole way, real HTTP to the issuer, a clock of the test's own."""

import time

import pytest
from harness import wait_for
from in_process import World

STALE = 1800.0
LIFE = 300.0  # the provider says nothing of it


def lasting(document):
    document["sources"]["corporate-idp"]["stale_jwks"] = f"{STALE:.0f}s"
    document["audiences"]["orders"]["ttl"] = "1h"  # so that a token outlives the issuer's keys


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, lasting)
    yield made
    made.close()


def gone(handler):
    handler.reply(b"", 503)


def hang(world):
    return lambda _: world.idp.over.wait(30)


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
    wait_for(lambda: world.ask()[:2] == (200, None))
    assert world.app.readiness().detail["degraded"] == {}


def test_an_issuer_that_hangs_is_waited_for_once_and_then_its_last_keys_serve_at_once(world):
    assert world.ask()[:2] == (200, None)
    world.idp.answer = hang(world)
    world.later(LIFE + 1)
    status, _, took = world.ask()
    assert (status, took > 2) == (200, True)
    for _ in range(5):
        status, _, took = world.ask()
        assert (status, took < 2) == (200, True)


def test_a_token_that_is_cached_is_not_served_once_its_issuers_keys_are_too_old(world):
    token = world.idp.token(exp=int(time.time()) + 7200)
    assert world.ask(token)[:2] == world.ask(token)[:2] == (200, None)
    world.idp.answer = gone
    world.later(LIFE + STALE + 1)
    assert world.ask(token)[:2] == (503, "source_unreachable")
