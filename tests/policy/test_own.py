"""Our own tokens as credentials: whatever comes of them only narrows."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.mint import minter
from sts.model import NOT_APPLICABLE, TYPE_JWT, Actor, Admitted, Ask, Credential
from sts.policy.consent import Consent
from sts.policy.reexchange import identity_again, mapping_of, source_of
from sts.policy.rules import AudienceRules
from sts.policy.settings import AudienceSettings

NOW = 1_000_000.0
ISSUER = "https://sts.example.internal"
SCOPES = ("a", "b", "c", "d")


def rules(name="first", *, backend=True, **written):
    return AudienceRules.of(name, AudienceSettings.model_validate(written), "ES256", backend=backend)


def proven(world, claims, **facts):
    own = {"kind": "own", "issuer": ISSUER, "audience": NOT_APPLICABLE, "may_act": NOT_APPLICABLE, **facts}
    principal = replace(world.principal, attributes=claims, subject=claims["sub"], act=claims.get("act"), **own)
    return Admitted(principal, NOW + 100, float("inf"))


def again(world, claims, audience):
    own = {"sub": "alice", "aud": audience.aud, "aud_map": mapping_of([audience]), **claims}
    return identity_again(proven(world, own), {audience.aud: audience})


def test_subject_and_scopes_are_the_tokens(world):
    found = again(world, {"scope": "read write"}, rules())
    assert (found.subject, found.scopes) == ("alice", ("read", "write"))
    assert found.attributes == {"subject": "alice", "scopes": ("read", "write")}


def test_a_token_without_scope_has_none(world):
    assert again(world, {}, rules()).scopes == ()


def test_a_claim_that_is_exactly_an_attribute_is_that_attribute_again(world):
    first = rules(claims={"department": "identity.org", "roles": " identity.roles "})
    found = again(world, {"department": "sales", "roles": ["clerk"]}, first)
    assert found.attributes["org"] == "sales"
    assert found.attributes["roles"] == ("clerk",)
    assert "department" not in found.attributes


@pytest.mark.parametrize(
    "rule", ["identity.roles.filter(r, r == 'clerk')", "['admin']", "identity.org + ''", "client.id", "identity.a.b"]
)
def test_a_claim_that_a_rule_has_made_is_none(world, rule):
    found = again(world, {"roles": ["admin"]}, rules(claims={"roles": rule}))
    assert set(found.attributes) == {"subject", "scopes"}


def test_no_claim_can_stand_for_subject_or_scopes(world):
    first = rules(claims={"who": "identity.subject", "what": "identity.scopes"})
    found = again(world, {"who": "root", "what": ["admin"], "scope": "read"}, first)
    assert found.attributes == {"subject": "alice", "scopes": ("read",)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"role": "identity.tenant"}, {"role": "identity.role"}),
        ({}, {"role": "identity.role"}),
        ({"a": "identity.a", "b": "identity.b"}, {"a": "identity.b", "b": "identity.a"}),
        ({"a": "identity.a"}, {"b": "identity.a"}),
    ],
    ids=str,
)
def test_a_token_is_read_by_the_mapping_that_wrote_it_or_not_at_all(world, before, after):
    """Read by another one, a tenant that is called "admin" would become a role."""
    minted = mapping_of([rules(claims=before)])
    for said in (minted, "", None, 1):
        with pytest.raises(Refusal) as caught:
            again(world, {"role": "admin", "a": "x", "b": "y", "aud_map": said}, rules(claims=after))
        assert caught.value.reason.name == "no_mapping"
    assert again(world, {"role": "admin", "aud_map": minted}, rules(claims=before)).subject == "alice"


def test_nothing_but_the_mapping_of_claims_counts_for_what_a_token_is_read_by(world):
    one = rules(claims={"a": "identity.a", "b": "identity.b"})
    same = rules(claims={"b": "identity.b", "a": "identity.a"}, ttl="1m", allow="true", scopes=["x"])
    assert again(world, {"a": "x", "aud_map": mapping_of([one])}, same).attributes["a"] == "x"


def test_a_token_for_several_audiences_is_tied_to_the_mapping_of_each(world):
    first, second = (rules(name, claims={"a": f"identity.{name}"}) for name in ("first", "second"))
    by_aud = {one.aud: one for one in (first, second)}
    claims = {"sub": "alice", "aud": ["first", "second"], "aud_map": mapping_of([first, second])}
    assert identity_again(proven(world, claims), by_aud).subject == "alice"
    with pytest.raises(Refusal):
        identity_again(proven(world, {**claims, "aud_map": mapping_of([first, first])}), by_aud)


def test_the_minted_token_says_which_mapping_wrote_it_where_it_may_come_back(world):
    policy = world.policy({"orders": {"claims": {"role": "identity.roles"}}})
    assert world.decide(policy).mapped_by is None
    audience = replace(policy.consents.audiences["orders"], backend=True)
    again = replace(policy, consents=replace(policy.consents, audiences={"orders": audience}))
    assert world.decide(again).mapped_by == mapping_of([audience])


def test_a_claim_of_another_type_than_an_attribute_refuses(world):
    with pytest.raises(Refusal) as caught:
        again(world, {"org": {"deep": 1}}, rules(claims={"org": "identity.org"}))
    assert caught.value.reason.name == "no_mapping"


def test_only_tokens_for_a_backend_that_is_a_client_carry_their_source(world):
    target = world.policy().target(world.client, world.ask)
    admitted = Admitted(world.principal, NOW + 100, float("inf"))
    assert source_of(admitted, target) is None
    with_backend = replace(target, audiences=(replace(target.audiences[0], backend=True),))
    assert source_of(admitted, with_backend) == "idp"
    restricted = replace(admitted, principal=replace(world.principal, may_act={"sub": "x"}))
    assert source_of(restricted, with_backend) is None
    for source, carried in (("idp", "idp"), ("workloads", None), (None, None)):
        assert source_of(replace(admitted, actor=Actor("i", "s", source)), with_backend) == carried


subsets = st.sets(st.sampled_from(SCOPES))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=subsets, audiences=st.lists(subsets.filter(bool), min_size=1, max_size=4), asked=st.lists(subsets))
def test_law_exchanging_again_never_widens_and_never_outlives(world, held, audiences, asked):
    """However often, through whichever backends, whatever is asked: scopes shrink, `exp` never grows."""
    names = [f"backend-{number}" for number in range(len(audiences))]
    written = {name: {"scopes": sorted(scopes)} for name, scopes in zip(names, audiences, strict=True)}
    compiled = {name: rules(name, **one) for name, one in written.items()}
    policy = world.policy(written)
    policy = replace(policy, consents=Consent(compiled, {one.aud: one for one in compiled.values()}, policy.sources))
    admitted = Admitted(world.with_claims(scope=" ".join(sorted(held))), NOW + 600, float("inf"))
    allowed, ends = set(held), NOW + 600
    for number, name in enumerate(names):
        wanted = tuple(sorted(asked[number])) if number < len(asked) and asked[number] else None
        ask = Ask("token", Credential(TYPE_JWT, "x.y.z"), audiences=(name,), scopes=wanted)
        try:
            grant = policy.decide(
                world.client,
                policy.identify(admitted, world.rows),
                admitted,
                policy.target(world.client, ask),
                ask,
                NOW,
                world.rows,
            )
        except Refusal:
            return
        granted = set(grant.scopes)
        assert granted <= allowed & audiences[number] & (set(wanted) if wanted else set(SCOPES))
        assert grant.not_after <= ends
        ends = min(grant.not_after, NOW + grant.ttl)
        allowed = granted
        claims = minter.access_token_claims(grant, ISSUER, int(NOW), int(ends), "jti")
        admitted = replace(proven(world, claims), not_after=ends)
