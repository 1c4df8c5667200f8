"""Who acts for the subject."""

from dataclasses import replace

import pytest

from sts.errors import Refusal
from sts.policy.act import actor_chain

ISSUER = "https://sts.example.internal"
US = {"sub": "gateway", "iss": ISSUER}


def chain(world, **facts):
    return actor_chain(replace(world.principal, **facts), world.client, ISSUER)


def refused(world, **facts):
    with pytest.raises(Refusal) as caught:
        chain(world, **facts)
    return caught.value.reason.name


def test_the_client_is_the_actor(world):
    """TE-22, TE-25."""
    assert chain(world) == US


def test_an_earlier_actor_is_nested_below_the_client_and_reduced_to_its_name(world):
    """TE-22, TE-23."""
    earlier = {"sub": "frontend", "iss": "https://idp.example.com", "exp": 1, "role": "admin"}
    assert chain(world, act=earlier) == {**US, "act": {"sub": "frontend", "iss": "https://idp.example.com"}}


def nested(depth):
    act = {"sub": "first"}
    for number in range(depth - 1):
        act = {"sub": f"later-{number}", "act": act}
    return act


def test_three_earlier_actors_fit_and_a_fourth_does_not(world):
    """TE-23."""
    assert chain(world, act=nested(3))["act"]["act"]["act"] == {"sub": "first"}
    assert refused(world, act=nested(4)) == "actor_refused"


@pytest.mark.parametrize(
    "act", ["alice", [], {}, {"sub": ""}, {"sub": 1}, {"sub": "a", "iss": 1}, {"iss": "b"}, 0, False]
)
def test_a_malformed_chain_is_refused(world, act):
    assert refused(world, act=act) == "actor_refused"


def test_may_act_that_names_the_client_passes(world):
    assert chain(world, may_act={"iss": ISSUER, "sub": "gateway"}) == US


@pytest.mark.parametrize(
    "may_act",
    [
        {"sub": "gateway"},  # of the credential's own issuer, not ours
        {"iss": ISSUER, "sub": "batch"},
        {"iss": "https://idp.example.com", "sub": "gateway"},
        {"iss": ISSUER},
        {},
        "gateway",
        ["gateway"],
        False,
    ],
)
def test_may_act_that_names_anybody_else_is_refused(world, may_act):
    """TE-26."""
    assert refused(world, may_act=may_act) == "actor_refused"
