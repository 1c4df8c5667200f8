"""Who may ask for what."""

from dataclasses import replace

import pytest

from sts.errors import Refusal

BOTH = {"orders": {"multi": True, "scopes": ["read"]}, "billing": {"multi": True, "scopes": ["read"]}}


def refused(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.reason.name


def test_an_audience_is_found_by_its_name_and_a_resource_by_its_aud(world):
    policy = world.policy({"orders": {"aud": "https://orders.example"}})
    by_name = policy.target(world.client, world.ask)
    by_aud = policy.target(world.client, replace(world.ask, audiences=(), resources=("https://orders.example",)))
    assert [one.name for one in by_name.audiences] == [one.name for one in by_aud.audiences] == ["orders"]
    assert (
        refused(policy.target, world.client, replace(world.ask, audiences=("https://orders.example",))) == "no_consent"
    )


def test_audience_and_resource_that_name_the_same_backend_count_once(world):
    policy = world.policy({"orders": {"aud": "https://orders.example"}})
    ask = replace(world.ask, resources=("https://orders.example",))
    assert len(policy.target(world.client, ask).audiences) == 1


def test_an_unknown_audience_and_one_that_is_not_listed_are_refused_alike(world):
    """TE-06."""
    policy = world.policy(BOTH)
    client = replace(world.client, audiences=frozenset({"orders"}))
    for name in ("billing", "nothing", ""):
        assert refused(policy.target, client, replace(world.ask, audiences=(name,))) == "no_consent"


def test_no_audience_is_never_guessed(world):
    ask = replace(world.ask, audiences=())
    assert refused(world.policy().target, world.client, ask) == "audience_missing"
    found = world.policy().target(replace(world.client, default_audience="orders"), ask)
    assert found.audiences[0].name == "orders"


def test_a_default_audience_needs_consent_as_any_other(world):
    client = replace(world.client, default_audience="orders", audiences=frozenset())
    assert refused(world.policy().target, client, replace(world.ask, audiences=())) == "no_consent"


def test_several_audiences_share_a_token_only_where_each_says_so(world):
    ask = replace(world.ask, audiences=("orders", "billing"))
    assert len(world.policy(BOTH).target(world.client, ask).audiences) == 2
    alone = {**BOTH, "billing": {"scopes": ["read"]}}
    assert refused(world.policy(alone).target, world.client, ask) == "no_consent"


def test_several_audiences_with_different_scopes_share_no_token(world):
    """AT-06."""
    other = {**BOTH, "billing": {"multi": True, "scopes": ["read", "write"]}}
    ask = replace(world.ask, audiences=("orders", "billing"))
    assert refused(world.policy(other).target, world.client, ask) == "no_consent"


def test_one_forbidden_audience_beside_an_allowed_one_refuses_both(world):
    """TE-05: never a silently narrowed token."""
    client = replace(world.client, audiences=frozenset({"orders"}))
    ask = replace(world.ask, audiences=("orders", "billing"))
    assert refused(world.policy(BOTH).target, client, ask) == "no_consent"


def test_the_client_must_list_the_source(world):
    policy = world.policy()
    target = policy.target(world.client, world.ask)
    assert refused(policy.consent, replace(world.client, sources=frozenset({"other"})), "idp", target) == "no_consent"
    policy.consent(replace(world.client, sources=frozenset({"idp"})), "idp", target)


def test_the_source_must_list_the_audience(world):
    policy = world.policy(source={"audiences": ("billing",)})
    target = policy.target(world.client, world.ask)
    assert refused(policy.consent, world.client, "idp", target) == "no_consent"


def test_an_actor_token_is_refused_and_never_dropped(world):
    """TE-25."""
    assert refused(world.policy().target, world.client, replace(world.ask, actor_present=True)) == "actor_refused"
