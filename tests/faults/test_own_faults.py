"""A fault of the service's own: both doors say 503, and nothing passes that was not proven, decided and signed."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from in_process import World


class Broken:
    """A part that breaks whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(f"MARK {name}")


PARTS = ("clients", "sources", "policy", "minter", "tokens", "revocations")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def refused(world, reason):
    """Whether both doors say 503 for this reason, hand nothing out, and leave an event without any private text."""
    exchanged, forwarded = world.exchange(), world.forward()
    assert exchanged.status == forwarded.status == 503
    assert json.loads(exchanged.body)["error_reason"] == reason
    assert dict(forwarded.headers)["X-Auth-Reason"] == reason
    assert {name.lower() for name, _ in forwarded.headers}.isdisjoint({"authorization", "x-user-id"})
    assert "access_token" not in json.loads(exchanged.body)
    events = [json.loads(line) for line in world.events[-2:]]
    assert {event["reason"] for event in events} == {reason}
    assert {event["jti"] for event in events} <= {None, ""}
    assert "MARK" not in f"{exchanged}{forwarded}{events}"


@pytest.mark.parametrize("part", PARTS)
def test_whatever_part_breaks_both_doors_fail_closed_and_say_nothing_of_it(world, part):
    """FA-01, ER-02, BE-08."""
    assert (world.exchange().status, world.forward().status) == (200, 200)
    good = world.app.current
    world.app.current = replace(good, exchange=replace(good.exchange, **{part: Broken()}))
    refused(world, "internal_error")
    world.app.current = good
    assert (world.exchange().status, world.forward().status) == (200, 200)


def test_without_a_signature_nothing_goes_out(world, monkeypatch):
    """Lesson 3.6 (Pomerium logged a failed signature, and passed the request on with an empty assertion)."""

    def fails(_):
        raise OSError("MARK the module is gone")

    signer = SimpleNamespace(algorithm="ES256", kid="k", sign=fails)
    monkeypatch.setattr(type(world.keyring), "signer", lambda *_: signer)
    refused(world, "internal_error")


def test_without_a_key_that_may_sign_nothing_goes_out(world):
    """Lesson R.3 (SPIRE #1542, #2115: tokens went on being minted from keys that were over)."""
    world.ahead += 2 * 3600  # the ring was not looked at for longer than `store_grace`
    refused(world, "no_key")
    world.later(0)
    assert (world.exchange().status, world.forward().status) == (200, 200)
