"""Laws of mapping: an error never yields a token, and no claim leaves that the audience does not name."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.expressions import ABSENT, EvaluationError, as_attribute, bind, compile_rule
from sts.lookups.rows import Rows
from sts.mint import minter
from sts.model import Admitted, Row
from sts.policy.mapping import reader_of

NOW = 1_000_000.0
ISSUER = "https://sts.example.internal"
NAMES = st.sampled_from(["sub", "scope", "roles", "tenant", "email", "level", "groups", "secret"])
VALUES = st.one_of(
    st.sampled_from(["alice", "read write", "", "7", "a b", "\0", "x" * 20]),
    st.integers(-3, 2**65),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.sampled_from(["accountant", "clerk", 7]), max_size=3),
    st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
)
USUAL = {
    "sub": st.just("alice"),
    "scope": st.just("read write"),
    "roles": st.just(["accountant", "clerk"]),
    "tenant": st.sampled_from(["Acme", 7, ["a"]]),
    "email": st.just("alice@example.com"),
    "level": st.sampled_from([3, "3"]),
    "groups": st.just(["a"]),
    "secret": st.just("hidden"),
}
CLAIMS = st.fixed_dictionaries({}, optional=USUAL) | st.dictionaries(NAMES, VALUES, max_size=8)
MAPPINGS = [
    "claims.sub",
    "claims.scope",
    "claims.roles",
    "claims.tenant",
    "claims.?email.orValue('none')",
    "claims.level + 1",
    "claims.sub + 1",
    "claims.roles.map(r, r + '!')",
    "claims.tenant.lowerAscii()",
    "claims.groups[0]",
    "[?claims.?email, ?claims.?sub].filter(x, x != '').first()",
    "has(claims.tenant) ? claims.tenant : 'none'",
    "claims.secret",
    "lookup('staff', claims.sub).id",
    "lookup('staff', claims.sub).?nothing.orValue('none')",
]
RULES = [
    "identity.subject",
    "identity.tenant",
    "identity.roles.filter(r, r != 'clerk')",
    "identity.tenant + '!'",
    "identity.level * 2",
    "identity.subject + 1",
    "lookup('staff', identity.subject).?id.orValue(1) + 1",
    "now",
    "client.id",
    "lookup('staff', identity.subject).id",
    "'accountant' in identity.roles",
]
IDENTITIES = st.dictionaries(
    st.sampled_from(["scopes", "roles", "tenant", "email", "level", "private"]), st.sampled_from(MAPPINGS), max_size=5
).flatmap(lambda rest: st.sampled_from(MAPPINGS).map(lambda subject: {"subject": subject, **rest}))
AUDIENCE_CLAIMS = st.dictionaries(st.sampled_from(["a", "b", "tenant", "roles"]), st.sampled_from(RULES), max_size=3)


class Staff:
    """Whom it knows has a row; of whom it knows nothing it says so, and about "7" it cannot be asked."""

    trouble = ""

    def row(self, key, _now):
        return Row({"id": f"E-{key}"}, float("inf")) if key in {"alice", "E-alice", "none"} else None


def grant(world, claims, identity, mapped):
    """What is granted, or the Refusal."""
    world.rows = Rows({"staff": Staff()}, lambda: NOW)
    policy = world.policy({"orders": {"claims": mapped}}, {"identity": identity})
    principal = replace(world.principal, attributes=claims)
    try:
        return world.rows.given(lambda: world.decide(policy, principal=principal))
    except Refusal as refusal:
        return refusal


def identified(world, claims, identity):
    """The attributes that these claims are mapped to."""
    rows = Rows({"staff": Staff()}, lambda: NOW)
    admitted = Admitted(replace(world.principal, attributes=claims), NOW + 600, NOW + 600)
    policy = world.policy(source={"identity": identity})
    return rows.given(lambda: policy.identify(admitted, rows)).attributes


def fails(rule, read, variables, values):
    """Whether a rule, asked alone, gives no usable value: what must refuse the whole."""
    with_rows = Rows({"staff": Staff()}, lambda: NOW)

    def alone():
        found = compile_rule(rule, variables).value(bind(values, with_rows))
        return None if found is ABSENT else read(found)

    try:
        with_rows.given(alone)
    except (EvaluationError, Refusal):
        return True
    return False


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CLAIMS, IDENTITIES, AUDIENCE_CLAIMS)
def test_law_a_mapping_error_never_yields_a_token(world, claims, identity, mapped):
    granted = grant(world, claims, identity, mapped)
    if isinstance(granted, Refusal):
        assert granted.reason.name in {"no_mapping", "insufficient_scope", "subject_collision"}
        return
    for attribute, rule in identity.items():
        assert not fails(rule, reader_of(attribute), frozenset({"claims"}), {"claims": claims}), (attribute, rule)
    seen = {"identity": identified(world, claims, identity), "client": {"id": "gateway"}, "now": int(NOW)}
    for name, rule in mapped.items():
        assert not fails(rule, as_attribute, frozenset(seen), seen), (name, rule)
    assert granted.subject
    assert isinstance(granted.subject, str)
    for value in granted.claims.values():
        assert as_attribute(list(value) if isinstance(value, tuple) else value) == value


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CLAIMS, IDENTITIES, AUDIENCE_CLAIMS)
def test_law_no_claim_leaves_that_the_audience_does_not_name(world, claims, identity, mapped):
    marked = {**claims, "secret": "marker-of-a-private-value"}
    granted = grant(world, marked, identity, mapped)
    if isinstance(granted, Refusal):
        assert "marker-of-a-private-value" not in str(granted.facts)
        return
    token = minter.access_token_claims(granted, ISSUER, int(NOW), int(NOW) + 300, "jti")
    ours = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "act", "src_iat"}
    assert set(token) <= ours | set(mapped)
    named = {identity.get(rule.removeprefix("identity.").split(" ")[0].split(".")[0]) for rule in mapped.values()}
    if identity["subject"] != "claims.secret" and "claims.secret" not in named:
        assert "marker-of-a-private-value" not in str(token)


@pytest.mark.parametrize("rule", ["claims.level + 1", "lookup('staff', 'nobody').id", "claims.roles"])
def test_the_laws_see_what_they_are_about(world, rule):
    """Rules that fail on these claims do fail: the laws above are not empty."""
    claims = {"sub": "alice", "level": "x", "roles": {"a": 1}}
    assert isinstance(grant(world, claims, {"subject": "claims.sub", "private": rule}, {}), Refusal)
    assert not isinstance(grant(world, claims, {"subject": "claims.sub"}, {}), Refusal)
