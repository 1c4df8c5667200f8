"""Laws over whole decisions, from a proven credential to the minted token."""

import itertools
import json
from base64 import urlsafe_b64decode
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sts.errors import NO_CONSENT, Refusal
from sts.lookups.opa import Said
from sts.mint.minter import Minter
from sts.model import TYPE_JWT, Limits, Presented
from sts.policy.consent import Consent

NOW = 1_000_000.0  # the clock of World
LISTS = {
    "itself": frozenset({"orders"}),
    "all": frozenset({"*"}),
    "another": frozenset({"billing"}),
    "none": frozenset(),
}
SOURCES = {"itself": frozenset({"idp"}), "all": frozenset({"*"}), "another": frozenset({"other"}), "none": frozenset()}


@pytest.mark.parametrize(
    ("client_audiences", "client_sources", "source_audiences"), [*itertools.product(LISTS, SOURCES, LISTS)]
)
def test_consent_needs_all_three_parts(world, client_audiences, client_sources, source_audiences):
    """TE-06: 64 combinations, of which the eight in which everybody agrees pass."""
    policy = world.policy({"orders": {}, "billing": {}})
    sources = {"idp": replace(policy.sources["idp"], audiences=LISTS[source_audiences])}
    policy = replace(policy, consents=Consent(policy.consents.audiences, policy.consents.by_aud, sources))
    client = replace(world.client, audiences=LISTS[client_audiences], sources=SOURCES[client_sources])

    found = None
    try:
        target = policy.target(client, world.ask)
        policy.consent(client, [Presented("jwt", "idp", TYPE_JWT, None)], target)
    except Refusal as refusal:
        found = refusal.reason
    agree = {client_audiences, client_sources, source_audiences} <= {"itself", "all"}
    assert found is (None if agree else NO_CONSENT)


class Keyring:
    """Signs with nothing: the law is about what is signed."""

    kid, algorithm = "kid", "ES256"

    def signer(self, _algorithm, _now):
        return self

    def sign(self, _data):
        return b"signature"


class Opa:
    def __init__(self, max_age):
        self.max_age = max_age

    def ask(self, _question):
        return Said({"result": True}, self.max_age)


past, future = st.floats(NOW - 2000, NOW), st.floats(NOW, NOW + 2000)
limit = st.none() | st.floats(1, 4000)
scopes = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)
CASES = st.fixed_dictionaries(
    {
        "times": st.fixed_dictionaries({"expires_at": future, "issued_at": past, "auth_time": st.none() | past}),
        "limits": st.fixed_dictionaries({"max_lifetime": limit, "max_age": limit, "max_auth_age": limit}),
        "fresh_until": future,
        "ttls": st.lists(st.integers(1, 3000), min_size=1, max_size=3),
        "max_age": st.none() | st.floats(0, 1000),
        "asked": st.none() | scopes,
        "has": scopes,
        "knows": st.none() | scopes.filter(bool),
    }
)


def minted(world, case):
    """The grant and the claims of the token that comes of a case, or a Refusal."""
    audiences = {
        f"a{number}": {"multi": True, "opa": True, "ttl": f"{ttl}s"} for number, ttl in enumerate(case["ttls"])
    }
    for audience in audiences.values():
        audience.update({} if case["knows"] is None else {"scopes": case["knows"]})
    policy = replace(world.policy(audiences), opa=Opa(case["max_age"]))
    principal = world.with_claims(scope=" ".join(case["has"]))
    principal = replace(principal, fresh_until=case["fresh_until"], **case["times"])
    ask = replace(world.ask, audiences=tuple(audiences), scopes=None if case["asked"] is None else tuple(case["asked"]))
    target = policy.target(world.client, ask)
    admitted = policy.admit(principal, Limits(audiences=frozenset({"us"}), **case["limits"]), target, NOW, None)
    identity = policy.identify(admitted, world.rows)
    grant = policy.decide(world.client, identity, admitted, target, ask, NOW, world.rows)
    grant = policy.narrow(grant, world.client, identity, admitted, target, ask, NOW)
    token = Minter("https://sts.example.internal", Keyring()).mint(grant, lambda: NOW).token
    part = token.split(".")[1]
    return grant, json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CASES)
def test_law_a_token_never_outlives_a_cause_and_never_says_more_than_everybody_allows(world, case):
    """TE-07, TE-30: over admit, identify, decide, OPA and mint."""
    try:
        grant, claims = minted(world, case)
    except Refusal as refusal:
        event(f"refused: {refusal.reason.name}")
        return
    event("minted")
    times, limits = case["times"], case["limits"]
    ends = [NOW + min(case["ttls"]), times["expires_at"]]
    if limits["max_age"] is not None:
        ends.append(times["issued_at"] + limits["max_age"])
    if limits["max_auth_age"] is not None:
        ends.append(times["auth_time"] + limits["max_auth_age"])
    assert NOW + 1 <= claims["exp"] <= min(ends)
    assert grant.fresh_until <= min(case["fresh_until"], NOW + (case["max_age"] or 0))
    granted = set(claims.get("scope", "").split())
    assert granted <= set(case["has"]) & set(case["knows"] or ()) & set(case["asked"] or "abcd")
    assert ("scope" in claims) is (case["knows"] is not None)
    assert granted or case["knows"] is None
