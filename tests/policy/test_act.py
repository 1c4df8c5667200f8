"""Who acts for the subject."""

from dataclasses import replace

import pytest

from sts.errors import Refusal
from sts.model import NOT_APPLICABLE, Actor, Admitted, Identity
from sts.policy.act import actor_chain, delegate

ISSUER = "https://sts.example.internal"
NOW = 1_800_000_000.0
US = {"sub": "gateway", "iss": ISSUER}


def chain(world, **facts):
    return actor_chain(Admitted(replace(world.principal, **facts), NOW, NOW), world.client, ISSUER)


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


# --- an actor token ---

SERVICE = {"sub": "batch-job", "iss": "https://workloads.example.com"}


def acting(world, *, ends=NOW + 100, fresh=NOW + 50, **facts):
    proven = {"source": "workloads", "issuer": SERVICE["iss"], "subject": SERVICE["sub"], **facts}
    return Admitted(replace(world.principal, **proven), ends, fresh)


def delegated(world, actor, **facts):
    subject = Admitted(replace(world.principal, **facts), NOW + 600, NOW + 500)
    client = replace(world.client, actors=frozenset({"workloads"}))
    return delegate(client, subject, actor, Identity("workloads|batch-job", (), {"roles": ("robot",)}), ISSUER)


def test_a_proven_actor_stands_where_the_client_would(world):
    """TE-22, TE-25."""
    assert actor_chain(delegated(world, acting(world)), world.client, ISSUER) == SERVICE


def test_earlier_actors_of_the_subject_are_nested_below_the_proven_one(world):
    """TE-22."""
    found = actor_chain(delegated(world, acting(world), act={"sub": "frontend"}), world.client, ISSUER)
    assert found == {**SERVICE, "act": {"sub": "frontend"}}


@pytest.mark.parametrize(("ends", "fresh"), [(NOW + 100, NOW + 50), (NOW + 900, NOW + 900)])
def test_what_is_minted_ends_with_the_earlier_of_the_two(world, ends, fresh):
    """TE-30."""
    found = delegated(world, acting(world, ends=ends, fresh=fresh))
    assert (found.not_after, found.fresh_until) == (min(ends, NOW + 600), min(fresh, NOW + 500))
    assert found.principal.subject == "alice"


@pytest.mark.parametrize(("theirs", "ours", "since"), [(5.0, 9.0, 5.0), (9.0, 5.0, 5.0), (0.0, 5.0, 0.0)])
def test_what_is_minted_is_as_old_as_the_older_of_the_two_credentials(world, theirs, ours, since):
    actor = replace(acting(world), since=theirs)
    subject = replace(Admitted(world.principal, NOW + 600, NOW + 500), since=ours)
    client = replace(world.client, actors=frozenset({"*"}))
    assert delegate(client, subject, actor, Identity("workloads|batch-job", (), {}), ISSUER).since == since


@pytest.mark.parametrize("listed", [(), ("idp",), ("other", "idp")], ids=str)
@pytest.mark.parametrize("may_act", [None, NOT_APPLICABLE], ids=str)
def test_without_a_word_of_the_subject_the_client_must_list_the_actors_source(world, listed, may_act):
    subject = Admitted(replace(world.principal, may_act=may_act), NOW + 600, NOW + 500)
    identity = Identity("workloads|batch-job", (), {})
    with pytest.raises(Refusal) as caught:
        delegate(replace(world.client, actors=frozenset(listed)), subject, acting(world), identity, ISSUER)
    assert caught.value.reason.name == "actor_refused"
    for enough in ({"workloads"}, {"*"}, {"workloads", "idp"}):
        assert delegate(replace(world.client, actors=frozenset(enough)), subject, acting(world), identity, ISSUER).actor


def test_a_subject_that_names_its_actor_needs_no_setting(world):
    subject = Admitted(replace(world.principal, may_act=SERVICE), NOW + 600, NOW + 500)
    found = delegate(world.client, subject, acting(world), Identity("workloads|batch-job", (), {}), ISSUER)
    assert actor_chain(found, world.client, ISSUER) == SERVICE


def test_rules_read_the_mapped_identity_of_the_actor(world):
    assert delegated(world, acting(world)).actor.attributes == {"roles": ("robot",)}


def test_an_actor_of_a_kind_without_issuer_is_known_by_its_mapped_name(world):
    found = delegated(world, acting(world, issuer=NOT_APPLICABLE))
    assert found.actor == Actor(ISSUER, "workloads|batch-job", "workloads", {"roles": ("robot",)})


def test_may_act_must_name_the_proven_actor_and_not_the_client(world):
    """TE-26."""
    actor = acting(world)
    named = delegated(world, actor, may_act=SERVICE)
    assert actor_chain(named, world.client, ISSUER) == SERVICE
    for other in ({"iss": ISSUER, "sub": "gateway"}, {**SERVICE, "sub": "other"}, {"sub": "batch-job"}):
        with pytest.raises(Refusal) as caught:
            actor_chain(delegated(world, actor, may_act=other), world.client, ISSUER)
        assert caught.value.reason.name == "actor_refused"


def test_an_actor_that_is_itself_acted_for_is_refused(world):
    with pytest.raises(Refusal) as caught:
        delegated(world, acting(world, act={"sub": "somebody"}))
    assert caught.value.reason.name == "actor_refused"
