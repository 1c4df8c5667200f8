"""Who may ask for what."""

from dataclasses import replace

import pytest

from sts.errors import Refusal
from sts.model import TYPE_JWT, Presented

BOTH = {"orders": {"multi": True, "scopes": ["read"]}, "billing": {"multi": True, "scopes": ["read"]}}
IDP = Presented("jwt", "idp", TYPE_JWT, None)


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
    assert refused(policy.consent, replace(world.client, sources=frozenset({"other"})), [IDP], target) == "no_consent"
    policy.consent(replace(world.client, sources=frozenset({"idp"})), [IDP], target)


def test_the_source_must_list_the_audience(world):
    policy = world.policy(source={"audiences": ("billing",)})
    target = policy.target(world.client, world.ask)
    assert refused(policy.consent, world.client, [IDP], target) == "no_consent"


# --- our own tokens ---


def own(source="idp", *minted_for):
    return [Presented("own", source, TYPE_JWT, None, proven_by="(own)", minted_for=minted_for)]


def test_a_backend_may_hand_back_what_was_minted_for_it(world):
    """TE-33: the source's consent is that of the first origin; the client need not list it."""
    policy = world.policy({"orders": {}, "billing": {"aud": "urn:billing"}}, source={"audiences": ("orders",)})
    backend = replace(world.client, sources=frozenset(), backend_of=frozenset({"billing"}))
    target = policy.target(backend, world.ask)
    policy.consent(backend, own("idp", "urn:billing"), target)
    assert refused(policy.consent, backend, own("idp", "orders"), target) == "no_consent"
    assert refused(policy.consent, backend, own("idp", "urn:billing", "orders"), target) == "no_consent"
    assert refused(policy.consent, backend, own("idp", "gone"), target) == "no_consent"


def test_nobody_launders_a_sources_missing_consent_through_a_backend(world):
    policy = world.policy({"orders": {}, "billing": {}}, source={"audiences": ("billing",)})
    backend = replace(world.client, backend_of=frozenset({"billing"}))
    target = policy.target(backend, world.ask)
    assert refused(policy.consent, backend, own("idp", "billing"), target) == "no_consent"


def test_an_actors_source_needs_the_same_consent(world):
    policy = world.policy()
    listed = replace(world.client, sources=frozenset({"idp"}))
    target = policy.target(listed, world.ask)
    subject, actor = (Presented("jwt", name, TYPE_JWT, None) for name in ("idp", "workloads"))
    policy.consent(listed, [subject], target)
    assert refused(policy.consent, listed, [subject, actor], target) == "no_consent"
