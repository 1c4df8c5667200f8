"""What an identity gets, and what it never gets."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.model import RequestFacts


def refused(world, **arguments):
    with pytest.raises(Refusal) as caught:
        world.decide(**arguments)
    return caught.value.reason.name


def test_nothing_asked_gives_what_identity_and_audience_share(world):
    policy = world.policy({"orders": {"scopes": ["write", "read", "admin"]}})
    assert world.decide(policy).scopes == ("read", "write")


def test_what_is_asked_is_given_and_no_more(world):
    assert world.decide(ask=replace(world.ask, scopes=("write",))).scopes == ("write",)


@pytest.mark.parametrize("scopes", [("admin",), ("read", "admin"), ("READ",)])
def test_more_asked_than_allowed_is_refused(world, scopes):
    """TE-07."""
    assert refused(world, ask=replace(world.ask, scopes=scopes)) == "insufficient_scope"


def test_an_identity_without_scopes_gets_none(world):
    assert refused(world, principal=world.with_claims(scope="")) == "insufficient_scope"


def test_an_audience_without_scopes_gives_a_token_without_scope(world):
    policy = world.policy({"orders": {}})
    assert world.decide(policy).scopes is None
    assert refused(world, policy=policy, ask=replace(world.ask, scopes=("read",))) == "insufficient_scope"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.none() | st.lists(st.sampled_from("abcd"), unique=True, max_size=4),
    has=st.lists(st.sampled_from("abcd"), unique=True, max_size=4),
    knows=st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=4),
)
def test_law_granted_scopes_are_a_subset_of_asked_identitys_and_audiences(world, asked, has, knows):
    """TE-07."""
    ask = replace(world.ask, scopes=tuple(asked) if asked else None)
    try:
        grant = world.decide(world.policy({"orders": {"scopes": knows}}), ask, world.with_claims(scope=" ".join(has)))
    except Refusal:
        return
    assert grant.scopes
    assert set(grant.scopes) <= set(has) & set(knows) & set(asked or "abcd")


@pytest.mark.parametrize(
    "allow", ["'admin' in identity.roles", "identity.tenant == 'x'", "'yes'", "request.ip == '10.0.0.1'", "false", "1"]
)
def test_allow_passes_only_true(world, allow):
    policy = world.policy({"orders": {"allow": allow}})
    assert refused(world, policy=policy) == "not_allowed"


def test_allow_that_holds_passes(world):
    world.decide(world.policy({"orders": {"allow": "'accountant' in identity.roles && client.id == 'gateway'"}}))


def test_a_routes_own_condition_narrows_too(world):
    policy = world.policy({"orders": {}}, routes={"orders": "request.method == 'GET' && route.name == 'orders'"})
    facts = RequestFacts("GET", "api.example.com", "/orders/1")
    ask = replace(world.ask, door="forward_auth", route="orders", request=facts)
    world.decide(policy, ask)
    assert refused(world, policy=policy, ask=replace(ask, request=replace(facts, method="POST"))) == "not_allowed"


def test_a_token_holds_only_the_claims_that_its_audience_names(world):
    policy = world.policy({"orders": {"claims": {"r": "identity.roles", "t": "identity.tenant"}}})
    assert dict(world.decide(policy).claims) == {"r": ("accountant",)}


def test_a_claim_that_cannot_be_evaluated_refuses(world):
    policy = world.policy({"orders": {"claims": {"r": "identity.roles[7]"}}})
    assert refused(world, policy=policy) == "no_mapping"


def test_several_audiences_learn_only_what_each_of_them_names(world):
    shared = {"multi": True, "claims": {"r": "identity.roles"}}
    policy = world.policy(
        {"orders": {**shared, "claims": {"r": "identity.roles", "s": "identity.subject"}}, "b": shared}
    )
    grant = world.decide(policy, replace(world.ask, audiences=("orders", "b")))
    assert set(grant.claims) == {"r"}
    assert grant.aud == ("orders", "b")


def test_identity_headers_stand_only_at_forward_auth(world):
    policy = world.policy({"orders": {"headers": {"X-User": "identity.subject"}}}, routes={"r": None})
    assert world.decide(policy).headers == {}
    assert world.decide(policy, replace(world.ask, door="forward_auth", route="r")).headers == {"X-User": "alice"}


@pytest.mark.parametrize("sub", ["-", "a\r\nX-Admin: 1", "æther", " alice", "alice\x7f"])
def test_a_value_that_would_break_a_header_is_refused(world, sub):
    policy = world.policy({"orders": {"headers": {"X-User": "identity.subject"}}}, routes={"r": None})
    ask = replace(world.ask, door="forward_auth", route="r")
    assert refused(world, policy=policy, ask=ask, principal=world.with_claims(sub=sub)) == "unsafe_header_value"


@pytest.mark.parametrize("sub", ["gateway", "batch"])
def test_a_subject_named_like_a_client_is_refused(world, sub):
    """AT-04: or a user could pass for a gateway."""
    assert refused(world, principal=world.with_claims(sub=sub)) == "subject_collision"


OWN = {"sub": "gateway", "client_id": "gateway"}


@pytest.mark.parametrize(
    ("claims", "subject", "own", "granted"),
    [
        (OWN, "gateway", ("idp", "gateway"), True),
        (OWN, "gateway", ("other", "gateway"), False),
        (OWN, "gateway", ("idp", "batch"), False),
        (OWN, "gateway", None, False),
        ({"sub": "gateway", "client_id": "portal"}, "gateway", ("idp", "gateway"), False),  # a user of that name
        ({"sub": "gateway"}, "gateway", ("idp", "gateway"), False),
        ({"sub": "gateway", "client_id": "gateway", "as": "batch"}, "gateway", ("idp", "gateway"), False),
    ],
)
def test_only_a_clients_own_token_is_about_the_client(world, claims, subject, own, granted):
    source = {"identity": {"subject": "claims.?as.orValue(claims.sub)", "scopes": "claims.scope"}}
    policy = replace(world.policy(source=source), own_subjects={"gateway": own} if own else {})
    principal = replace(world.with_claims(**claims), subject=subject)
    if granted:
        assert world.decide(policy, principal=principal).subject == "gateway"
    else:
        assert refused(world, policy=policy, principal=principal) == "subject_collision"


def test_a_grant_ends_with_its_causes_and_is_reused_no_longer_than_they_are_fresh(world):
    """TE-30."""
    grant = world.decide(not_after=1_000_100.0, fresh_until=1_000_050.0)
    assert (grant.not_after, grant.fresh_until) == (1_000_100.0, 1_000_050.0)


@pytest.mark.parametrize(("ttl", "expected"), [("30s", 10), ("5m", 30), ("1h", 30)])
def test_the_least_life_of_a_reused_token_is_a_third_of_the_ttl_at_most_half_a_minute(world, ttl, expected):
    assert world.decide(world.policy({"orders": {"ttl": ttl}})).min_remaining == expected


@pytest.mark.parametrize("audience", [{"reuse": "unique"}, {"claims": {"at": "now"}}, {"allow": "now > 0"}])
def test_what_reads_the_clock_or_must_be_unique_is_never_kept(world, audience):
    assert world.decide(world.policy({"orders": audience})).keep is False


def test_an_ordinary_grant_is_kept(world):
    assert world.decide().keep is True


def test_the_request_facts_that_rules_read_are_named_for_the_cache_key(world):
    policy = world.policy(
        {"orders": {"claims": {"ip": "request.ip"}}},
        routes={"r": "request.path.startsWith('/orders')", "all": "size(request) > 1"},
    )
    facts = RequestFacts("GET", "api.example.com", "/orders/1", ip="10.0.0.1")
    ask = replace(world.ask, door="forward_auth", route="r", request=facts)
    target = policy.target(world.client, ask)
    assert policy.facts_read(target, ask) == (("ip", "10.0.0.1"), ("path", "/orders/1"))
    every = policy.facts_read(target, replace(ask, route="all"))
    assert [name for name, _ in every] == ["host", "ip", "method", "path", "scheme"]
