"""Where the way of a request stops, because from there on it may wait or compute long. The loop goes no further."""

import secrets

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Key
from in_process import World, _posted

from sts.jose import jwk


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def changed(tmp_path):
    made = []

    def change(edit):
        made.append(World(tmp_path, edit))
        return made[-1]

    yield change
    for one in made:
        one.close()


def stops(world, token=None, **changes):
    """How often the way of a request stops, and the status that it comes to."""
    form = {"grant_type": GRANT, "subject_token": token or world.fresh(), "subject_token_type": ACCESS_TOKEN}
    form |= {"audience": "orders", "client_id": CLIENT, "client_secret": SECRET, **changes}
    steps = world.app.current.exchange.steps(world.app.current.token_door, _posted("/token", form))
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return count, done.value.status
        count += 1


def test_keys_that_are_not_there_are_waited_for_and_keys_that_are_there_are_not(world):
    token = world.fresh()
    assert stops(world, token) == (1, 200)
    assert stops(world, token) == (0, 200)  # from the cache
    assert stops(world) == (0, 200)  # another token, by keys at hand


def test_an_unknown_key_is_looked_for_in_a_thread(world):
    assert world.exchange().status == 200
    assert stops(world, Key("rsa-9").sign(world.idp.claims()))[0] == 1


def test_what_is_refused_without_a_key_needs_no_thread(world):
    assert world.exchange().status == 200
    assert stops(world, client_secret="wrong") == (0, 401)
    assert stops(world, audience="nothing") == (0, 400)
    assert stops(world, world.idp.token(exp=1)) == (0, 400)
    assert stops(world, world.fresh()[:-8] + "AAAAAAAA") == (0, 400)


def test_a_large_rsa_key_verifies_in_a_thread(world, monkeypatch):
    assert world.exchange().status == 200
    assert stops(world) == (0, 200)
    monkeypatch.setattr(jwk, "_QUICK_RSA_BITS", 1024)
    assert stops(world) == (1, 200)
    assert stops(world, world.idp.token(world.idp.ec, jti=secrets.token_hex(8))) == (0, 200)


def test_an_rsa_signature_is_made_in_a_thread(changed):
    world = changed(lambda document: document["audiences"]["orders"].update(algorithm="RS256"))
    assert world.exchange().status == 200
    assert stops(world) == (1, 200)


def test_opa_is_asked_in_a_thread(changed):
    def ask(document):
        document["opa"] = {"url": "http://127.0.0.1:9/v1/data/x", "timeout": "50ms"}
        document["audiences"]["orders"]["opa"] = True

    world = changed(ask)
    assert stops(world)[0] == 1


def test_a_caller_with_a_signed_token_is_proven_in_a_thread(world):
    assert world.exchange().status == 200
    count, status = stops(
        world,
        client_secret="",
        client_assertion="a.b.c",
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    assert (count, status) == (1, 401)


def test_the_same_token_in_the_making_is_waited_for_in_a_thread_and_never_in_the_loop(world, monkeypatch):
    assert world.exchange().status == 200
    tokens = world.app.current.exchange.tokens
    monkeypatch.setattr(type(tokens), "under_way", lambda *_: True)
    assert stops(world) == (1, 200)
    monkeypatch.undo()
    waited = []
    monkeypatch.setattr(type(tokens), "_wait", lambda *_: waited.append(True))

    class Busy(dict):
        def setdefault(self, *_):
            return object()

    monkeypatch.setattr(tokens, "_flights", Busy())  # a thread was faster, between the look and here
    assert stops(world) == (0, 200)
    assert waited == []
