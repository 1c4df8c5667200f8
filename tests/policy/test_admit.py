"""The one judgement over a proven credential."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.model import NOT_APPLICABLE, Limits, Principal
from sts.policy.admit import admit

NOW = 1_000_000.0
GOOD = Principal(
    kind="jwt",
    source="idp",
    issuer="https://idp.example.com",
    subject="alice",
    audience=("api-gateway",),
    reach=NOT_APPLICABLE,
    expires_at=NOW + 300,
    not_before=None,
    issued_at=NOW - 10,
    since=NOW - 10,
    auth_time=NOW - 60,
    fresh_until=NOT_APPLICABLE,
    confirmation=None,
    act=None,
    may_act=None,
    acr=None,
    amr=None,
    jti=None,
    proof_key="thumb",
    attributes={},
)
LIMITS = Limits(audiences=frozenset({"api-gateway", "other"}), leeway=10)


@pytest.mark.parametrize(("said", "since"), [(NOW - 10, NOW - 10), (NOW + 9, NOW), (None, 0.0), (-5, -5)])
def test_a_credential_is_as_old_as_it_says_never_of_the_future_and_always_there_where_it_says_nothing(said, since):
    assert admit(replace(GOOD, since=said), LIMITS, NOW).since == since


def refused(principal, limits=LIMITS, now=NOW, certificate=None):
    with pytest.raises(Refusal) as caught:
        admit(principal, limits, now, certificate)
    return caught.value.reason.name


def test_a_good_credential_is_admitted_until_its_own_end():
    admitted = admit(GOOD, LIMITS, NOW)
    assert admitted.not_after == NOW + 300
    assert admitted.fresh_until == float("inf")


@pytest.mark.parametrize("audience", [(), ("elsewhere",), ("api-gateway ",), ("API-GATEWAY",)])
def test_a_credential_for_somebody_else_is_refused(audience):
    """AT-09."""
    assert refused(replace(GOOD, audience=audience)) == "audience_mismatch"


def test_a_source_without_audiences_of_its_own_accepts_nothing():
    assert refused(GOOD, replace(LIMITS, audiences=frozenset())) == "audience_mismatch"


def test_one_of_several_audiences_is_enough():
    admit(replace(GOOD, audience=("elsewhere", "other")), LIMITS, NOW)


@pytest.mark.parametrize("left", [0.99, 0, -1, -1e9])
def test_below_a_second_of_life_is_expired_and_leeway_does_not_help(left):
    """JW-29."""
    assert refused(replace(GOOD, expires_at=NOW + left)) == "expired"


def test_one_second_of_life_is_enough():
    admit(replace(GOOD, expires_at=NOW + 1), LIMITS, NOW)


@pytest.mark.parametrize("field", ["not_before", "issued_at", "auth_time"])
def test_a_start_in_the_future_is_refused_beyond_the_leeway(field):
    """JW-29."""
    admit(replace(GOOD, **{field: NOW + 10}), LIMITS, NOW)
    assert refused(replace(GOOD, **{field: NOW + 10.5})) == "not_yet_valid"


def test_a_long_lived_credential_is_refused_where_the_lifetime_is_limited():
    """JW-30."""
    limits = replace(LIMITS, max_lifetime=300)
    assert refused(GOOD, limits) == "too_old"
    admit(replace(GOOD, issued_at=NOW), limits, NOW)


@pytest.mark.parametrize(
    ("limit", "field"), [("max_lifetime", "issued_at"), ("max_age", "issued_at"), ("max_auth_age", "auth_time")]
)
def test_a_limit_on_a_fact_that_is_missing_refuses(limit, field):
    assert refused(replace(GOOD, **{field: None}), replace(LIMITS, **{limit: 3600})) == "too_old"


def test_age_and_login_are_limited_and_end_the_reuse_of_the_judgement():
    """JW-30."""
    limits = replace(LIMITS, max_age=20, max_auth_age=65)
    assert admit(GOOD, limits, NOW).fresh_until == NOW + 5
    assert admit(GOOD, limits, NOW).not_after == NOW + 5  # TE-30: no token outlives it
    assert admit(GOOD, replace(limits, max_auth_age=1000), NOW).fresh_until == NOW + 10
    assert refused(GOOD, replace(LIMITS, max_age=9)) == "too_old"
    assert refused(GOOD, replace(LIMITS, max_auth_age=59)) == "too_old"


@pytest.mark.parametrize("confirmation", [{"jkt": "x"}, {"x5t#S256": "x"}, {"kid": "x"}, {}, "text"])
def test_a_bound_credential_is_refused_and_never_passed_on_as_a_bearer_token(confirmation):
    """TE-32."""
    assert refused(replace(GOOD, confirmation=confirmation)) == "binding_failed"


def test_a_credential_that_is_bound_to_a_certificate_needs_that_very_one():
    """MT-05."""
    bound = replace(GOOD, confirmation={"x5t#S256": "thumb"})
    assert admit(bound, LIMITS, NOW, "thumb").not_after == NOW + 300
    for other in (None, "", "Thumb", "thum"):
        assert refused(bound, certificate=other) == "binding_failed"


@pytest.mark.parametrize(
    "confirmation",
    [
        {"x5t#S256": "thumb", "jkt": "x"},
        {"x5t#S256": "thumb", "x5t#S512": "thumb"},
        {"jkt": "thumb"},
        {"x5t": "thumb"},
        {"x5t#S256": ["thumb"]},
        {"x5t#S256": None},
        {},
        "thumb",
    ],
)
def test_a_binding_that_cannot_be_checked_whole_is_refused_whatever_was_proven(confirmation):
    """CN-01: RFC 7800 §3.1 would let unknown members be ignored."""
    assert refused(replace(GOOD, confirmation=confirmation), certificate="thumb") == "binding_failed"


def test_a_certificate_beside_a_credential_that_is_bound_to_none_changes_nothing():
    assert admit(GOOD, LIMITS, NOW, "thumb") == admit(GOOD, LIMITS, NOW)


def test_what_a_kind_declares_not_applicable_is_not_judged():
    kind_without = replace(
        GOOD,
        audience=NOT_APPLICABLE,
        reach=NOT_APPLICABLE,
        expires_at=NOT_APPLICABLE,
        not_before=NOT_APPLICABLE,
        issued_at=NOT_APPLICABLE,
        auth_time=NOT_APPLICABLE,
        confirmation=NOT_APPLICABLE,
        fresh_until=NOW + 30,
    )
    admitted = admit(kind_without, LIMITS, NOW)
    assert (admitted.not_after, admitted.fresh_until) == (float("inf"), NOW + 30)
    assert refused(kind_without, replace(LIMITS, max_age=10)) == "too_old"


@given(
    exp=st.floats(NOW - 1000, NOW + 1000),
    iat=st.floats(NOW - 1000, NOW + 1000),
    max_age=st.none() | st.floats(1, 1000),
    now=st.floats(NOW - 1000, NOW + 1000),
)
def test_law_nothing_is_admitted_outside_its_causes(exp, iat, max_age, now):
    principal = replace(GOOD, expires_at=exp, issued_at=iat, auth_time=None)
    try:
        admitted = admit(principal, replace(LIMITS, max_age=max_age), now)
    except Refusal:
        return
    assert now < admitted.not_after <= exp
    assert iat <= now + LIMITS.leeway
    assert max_age is None or now <= admitted.fresh_until <= iat + max_age
