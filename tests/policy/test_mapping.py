"""From a proven credential to an identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.errors import Refusal
from sts.model import Admitted
from sts.policy.mapping import minted_subject


def identify(world, principal=None, **source):
    admitted = Admitted(principal or world.principal, 0, 0)
    return world.policy(source=source).identify(admitted, world.rows)


def refused(world, principal=None, **source):
    with pytest.raises(Refusal) as caught:
        identify(world, principal, **source)
    return caught.value.reason.name, caught.value.facts


def test_attributes_are_read_from_the_claims(world):
    identity = identify(world)
    assert identity.subject == "alice"
    assert identity.scopes == ("read", "write")
    assert identity.attributes["roles"] == ("accountant",)


def test_an_absent_claim_gives_an_absent_attribute(world):
    identity = identify(world, identity={"subject": "claims.sub", "tenant": "claims.agency"})
    assert "tenant" not in identity.attributes
    assert identity.scopes == ()


@pytest.mark.parametrize("sub", [None, "", 7, True, ["alice"], {"a": 1}])
def test_a_subject_that_is_no_text_is_no_subject(world, sub):
    reason, facts = refused(world, world.with_claims(sub=sub))
    assert reason == "no_mapping"
    assert facts["attribute"] == "subject"


def test_an_attribute_of_an_unexpected_type_refuses_and_names_itself(world):
    reason, facts = refused(world, world.with_claims(roles={"admin": True}))
    assert (reason, facts["attribute"]) == ("no_mapping", "roles")
    assert "admin" not in str(facts)


def test_a_rule_that_cannot_be_evaluated_refuses(world):
    assert refused(world, identity={"subject": "claims.sub", "n": "claims.sub + 1"})[0] == "no_mapping"


@pytest.mark.parametrize("rule", ["claims.verified == true", "claims.sub", "'yes'", "claims.nothing", "false"])
def test_require_lets_pass_only_true(world, rule):
    assert refused(world, require=rule)[0] == "requirement_failed"


def test_require_that_holds_passes(world):
    assert identify(world, require="claims.sub == 'alice'").subject == "alice"


def test_scopes_as_text_are_split_on_spaces_and_roles_as_text_are_one(world):
    identity = identify(world, world.with_claims(scope="a  b", roles="one role"))
    assert identity.scopes == ("a", "b")
    assert identity.attributes["roles"] == ("one role",)


def test_the_only_source_maps_subjects_as_they_are():
    assert minted_subject("idp|alice%", None) == "idp|alice%"


def test_a_namespace_stands_before_the_subject():
    assert minted_subject("alice", "partner") == "partner|alice"


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "partner"]), st.text(alphabet="ab|%7C25", max_size=8)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_law_no_two_sources_subjects_become_one(pairs):
    """Lessons part 2, 16: joined ids collide unless the joint is escaped."""
    first, second = (minted_subject(subject, namespace) for namespace, subject in pairs)
    assert first != second
