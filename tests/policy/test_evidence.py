"""`evidence: true`: when and how the third party saw the user, from the credential alone."""

import base64
import hashlib
from dataclasses import replace

import pytest

from sts.errors import NO_CONSENT, NO_MAPPING
from sts.model import NOT_APPLICABLE
from sts.policy.reexchange import evidence

ISSUER = "https://sts.example.internal"
TOLD = {"orders": {"scopes": ["read", "write"], "evidence": True}}


@pytest.fixture
def seen(world):
    """A principal that has everything."""
    return replace(world.principal, auth_time=1234, acr="urn:mfa", amr=["pwd", "otp"], jti="token-7")


def test_it_is_what_the_credential_says_with_its_issuer_and_the_hash_of_its_jti(world, seen):
    """AT-05."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"token-7").digest()).decode().rstrip("=")
    assert world.decide(world.policy(TOLD), principal=seen).evidence == {
        "auth_time": 1234,
        "acr": "urn:mfa",
        "amr": ["pwd", "otp"],
        "evidence": {"iss": "https://idp.example.com", "jti_hash": digest},
    }


def test_an_audience_that_does_not_ask_is_told_nothing(world, seen):
    assert world.decide(principal=seen).evidence == {}


def test_what_is_not_known_is_left_out_and_never_filled_in(seen):
    """AT-05: an exchange is no login."""
    bare = replace(seen, auth_time=None, acr=None, amr=None, jti=None)
    assert evidence(bare) == {"evidence": {"iss": "https://idp.example.com"}}
    facts = dict.fromkeys(("issuer", "auth_time", "acr", "amr", "jti"), NOT_APPLICABLE)
    assert evidence(replace(seen, **facts)) == {"evidence": {}}


def test_a_token_of_ours_hands_on_what_its_first_credential_said(seen):
    """AT-05: neither refreshed nor taken from a claim that a mapping wrote."""
    claims = {"auth_time": 1234, "acr": "urn:mfa", "evidence": {"iss": "https://idp.example.com"}}
    ours = replace(seen, kind="own", issuer=ISSUER, auth_time=1234, acr="urn:mfa", attributes={"sub": "a", **claims})
    assert evidence(ours) == claims
    mapped = replace(ours, attributes={"sub": "a", "auth_time": 1234, "acr": "urn:mfa"})
    assert evidence(mapped) == {"evidence": {}}


def test_the_mapped_identity_has_no_say_in_it(world, seen):
    source = {"identity": {"subject": "claims.sub", "scopes": "claims.scope", "acr": "'forged'", "auth_time": "9"}}
    assert world.decide(world.policy(TOLD, source), principal=seen).evidence["acr"] == "urn:mfa"


@pytest.mark.parametrize(
    ("name", "value"),
    [("acr", 1), ("acr", ["mfa"]), ("acr", {}), ("amr", "pwd"), ("amr", [1]), ("amr", [["pwd"]]), ("amr", {})],
)
def test_what_has_another_type_refuses_where_it_is_asked_for_and_nowhere_else(world, seen, refused, name, value):
    odd = replace(seen, **{name: value})
    with refused(NO_MAPPING) as caught:
        world.decide(world.policy(TOLD), principal=odd)
    assert caught.value.facts["attribute"] == name
    assert world.decide(principal=odd)


def test_audiences_share_a_token_only_where_all_are_told_of_the_login(world, refused):
    both = {"scopes": ["read", "write"], "multi": True}
    policy = world.policy({"orders": {**both, "evidence": True}, "billing": both})
    with refused(NO_CONSENT):
        policy.target(world.client, replace(world.ask, audiences=("orders", "billing")))
