"""Revocations: what they concern, what they do not, and what holds while the store is away."""

import math
import time

import pytest
from harness import b64
from pki import Authority

from sts.errors import REVOKED, STATE_UNAVAILABLE
from sts.labels import hashed
from sts.model import (
    NOT_APPLICABLE,
    TYPE_ACCESS_TOKEN,
    Ask,
    Client,
    Credential,
    Identity,
    Issued,
    Principal,
)
from sts.state import StateSettings, StateUnavailableError, encode
from sts.state.revocations import NAMESPACE, Revocations, essence, listed, name_of, planned, revoke
from sts.state.settings import OnOutage
from sts.state.sqlite import SqliteState

NOW = 1_800_000_000.0
KEY = b"k" * 32
CA = Authority()
CLIENT = Client("edge", frozenset(), frozenset(), None, None)
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


class Steady:
    now = 0.0

    def __call__(self):
        return self.now


def principal(**changes):
    facts = ("audience", "expires_at", "not_before", "auth_time", "fresh_until", "confirmation", "act", "may_act")
    nothing = dict.fromkeys((*facts, "acr", "amr", "proof_key", "reach"), NOT_APPLICABLE)
    fields = {"kind": "jwt", "source": "idp", "issuer": "https://idp", "subject": "raw-alice", "since": NOW - 60}
    fields["issued_at"] = NOT_APPLICABLE
    attributes = {"sid": "session-1"}
    return Principal(**{**nothing, **fields, "jti": "inbound-jti", "attributes": attributes, **changes})


@pytest.fixture
def state(tmp_path):
    made = SqliteState(tmp_path / "var" / "state.db", lambda: NOW)
    made.check()
    yield made
    made.close()


@pytest.fixture
def steady():
    return Steady()


@pytest.fixture
def revocations(state, steady):
    made = Revocations(state, [KEY], StateSettings(), monotonic=steady)
    made.refresh()
    return made


@pytest.fixture
def gathered(revocations):
    """By what alice's token, or a changed one, can be revoked."""

    def gathered(*, actor=None, subject="alice", credential=TOKEN, now=NOW, **changes):
        proven, mapped = [principal(**changes)], [Identity(subject, (), {})]
        ask = Ask("token", Credential(TYPE_ACCESS_TOKEN, credential))
        if actor is not None:
            ask = Ask("token", Credential(TYPE_ACCESS_TOKEN, credential), actor=Credential(TYPE_ACCESS_TOKEN, "a.b.c"))
            proven.append(principal(subject=actor, attributes={}, jti=None))
            mapped.append(Identity(actor, (), {}))
        return revocations.gather(CLIENT, ask, proven, mapped, now)

    return gathered


NAMED = [
    ("subject", "alice", ""),
    ("source_subject", "raw-alice", "idp"),
    ("sid", "session-1", ""),
    ("source_sid", "session-1", "idp"),
    ("credential", TOKEN, ""),
    ("credential", essence(TOKEN), ""),
    ("jti", "inbound-jti", ""),
    ("client", "edge", ""),
    ("source", "idp", ""),
]


@pytest.mark.parametrize(("kind", "value", "source"), NAMED)
def test_whatever_made_a_token_can_be_named_and_refuses_it(state, revocations, gathered, refused, kind, value, source):
    """RV-05."""
    revoke(state, name_of(KEY, kind, value, source), NOW)
    assert revocations.current(gathered(), NOW)  # not seen yet
    revocations.refresh()
    assert not revocations.current(gathered(), NOW)
    with refused(REVOKED) as caught:
        revocations.check(gathered(), NOW)
    assert caught.value.facts["what"] == kind
    assert value not in str(caught.value.facts)


@pytest.mark.parametrize(("kind", "value", "source"), NAMED)
def test_another_of_the_same_kind_is_not_concerned(state, revocations, gathered, kind, value, source):
    revoke(state, name_of(KEY, kind, value + "x", source), NOW)
    if source:
        revoke(state, name_of(KEY, kind, value, source + "x"), NOW)
    revocations.refresh()
    assert len(revocations) in (1, 2)
    revocations.check(gathered(), NOW)


def test_whoever_comes_again_with_something_newer_is_let_in(state, revocations, gathered, refused):
    """SE-05."""
    revoke(state, name_of(KEY, "subject", "alice"), NOW)
    revocations.refresh()
    later = NOW + 10
    revocations.check(gathered(since=NOW + 1, now=later), later)
    for old in (NOW, NOW - 1, 0, None):
        with refused(REVOKED):
            revocations.check(gathered(since=old, now=later), later)


def test_a_credential_from_the_future_is_as_old_as_our_clock_says(state, revocations, gathered, refused):
    """An issuer's clock that is ahead takes nobody out of reach."""
    ahead = gathered(since=NOW + 9, now=NOW - 1)
    revoke(state, name_of(KEY, "subject", "alice"), NOW)
    revocations.refresh()
    with refused(REVOKED):
        revocations.check(ahead, NOW)


def test_when_a_credential_may_first_be_used_says_nothing_of_when_it_was_issued(state, revocations, gathered, refused):
    """A token with `nbf` and without `iat` may have been issued long before a revocation."""
    revoke(state, name_of(KEY, "subject", "alice"), NOW)
    revocations.refresh()
    with refused(REVOKED):
        revocations.check(gathered(since=None, not_before=NOW + 1, now=NOW + 2), NOW + 2)


@pytest.mark.parametrize(("kind", "value"), [("jti", "inbound-jti"), ("credential", TOKEN)])
def test_one_token_or_credential_stays_refused_whatever_its_age(state, revocations, gathered, refused, kind, value):
    revoke(state, name_of(KEY, kind, value), NOW)
    revocations.refresh()
    with refused(REVOKED):
        revocations.check(gathered(since=NOW + 100, now=NOW + 200), NOW + 200)


def test_a_client_that_was_revoked_goes_on_with_new_tokens(state, revocations, gathered):
    """What was minted for it is void; to shut it out there is `enabled: false`."""
    before = gathered(now=NOW - 5)
    revoke(state, name_of(KEY, "client", "edge"), NOW)
    revocations.refresh()
    assert not revocations.current(before, NOW)
    assert revocations.current(gathered(now=NOW + 1), NOW + 1)


def test_an_actor_is_a_subject_like_any_other(state, revocations, gathered, refused):
    revoke(state, name_of(KEY, "subject", "helper"), NOW)
    revocations.refresh()
    revocations.check(gathered(), NOW)
    with refused(REVOKED):
        revocations.check(gathered(actor="helper"), NOW)


def test_what_was_revoked_under_the_previous_secret_stays_so(state, steady):
    replaced = Revocations(state, [b"n" * 32, KEY], StateSettings(), monotonic=steady)
    for kind, value, source in NAMED:
        revoke(state, name_of(KEY, kind, value, source), NOW)
        replaced.refresh()
        ask = Ask("token", Credential(TYPE_ACCESS_TOKEN, TOKEN))
        assert not replaced.current(
            replaced.gather(CLIENT, ask, [principal()], [Identity("alice", (), {})], NOW), NOW
        ), kind
        state.delete(NAMESPACE, name_of(KEY, kind, value, source))


@pytest.mark.parametrize(("kind", "value", "source"), NAMED)
def test_what_is_kept_beside_a_token_is_judged_by_a_revocation_that_arrives_later(
    state, revocations, gathered, kind, value, source
):
    kept = revocations.kept(gathered())
    assert TOKEN not in repr(kept.groups)
    assert revocations.current(kept, NOW)
    revoke(state, name_of(KEY, kind, value, source), NOW)
    revocations.refresh()
    assert not revocations.current(kept, NOW)


def test_what_is_kept_while_a_credential_is_revoked_is_judged_by_its_hashes(state, revocations, gathered):
    revoke(state, name_of(KEY, "credential", "another"), NOW)
    revocations.refresh()
    kept = revocations.kept(gathered())
    assert TOKEN not in repr(kept.groups)
    assert revocations.current(kept, NOW)
    revoke(state, name_of(KEY, "credential", essence(TOKEN)), NOW)
    revocations.refresh()
    assert not revocations.current(kept, NOW)


def test_names_are_hashed_only_where_something_of_their_kind_is_revoked_and_once_for_each_list(
    state, revocations, gathered, monkeypatch
):
    made = []
    monkeypatch.setattr("sts.state.revocations.hashed", lambda *parts: made.append(parts[1]) or hashed(*parts))
    issued = Issued("alice", "token", "Bearer", int(NOW + 300), "minted-jti", "kid", None, {})
    kept = revocations.kept(revocations.minted(gathered(), issued), issued.token)
    made.clear()  # the hashes of the credential, which are kept in its place
    revocations.check(kept, NOW)
    assert made == []
    revoke(state, name_of(KEY, "sid", "another"), NOW)
    revocations.refresh()
    made.clear()
    for _ in range(3):
        revocations.check(kept, NOW)
    assert made == ["sid"]


def test_a_minted_token_can_be_named_too(state, revocations, gathered):
    issued = Issued("alice", "token", "Bearer", int(NOW + 300), "minted-jti", "kid", None, {})
    made = revocations.minted(gathered(), issued)
    revoke(state, name_of(KEY, "jti", "minted-jti"), NOW)
    revocations.refresh()
    assert revocations.current(gathered(), NOW)
    assert not revocations.current(made, NOW)


def test_a_token_of_ours_that_is_exchanged_again_is_one_of_the_client_it_was_minted_for(state, revocations, gathered):
    again = {"kind": "own", "attributes": {"client_id": "other", "iat": NOW - 5}, "since": NOW - 60}
    revoke(state, name_of(KEY, "client", "other"), NOW)
    revocations.refresh()
    assert not revocations.current(gathered(**again), NOW)
    assert revocations.current(gathered(), NOW)
    newer = {**again, "attributes": {"client_id": "other", "iat": NOW + 1}}
    assert revocations.current(gathered(**newer), NOW + 2)  # only what was minted for it until then


@pytest.mark.parametrize(("kind", "value"), [("subject", "alice"), ("source", "idp")])
def test_a_token_of_ours_is_judged_by_the_time_of_what_it_was_made_from(state, revocations, kind, value):
    """It may be younger than a revocation that the worker which minted it had not seen yet."""
    claims = {"sub": "alice", "client_id": "edge", "src": "idp", "jti": "minted-jti", "iat": int(NOW) + 1}
    revoke(state, name_of(KEY, kind, value), NOW)
    revocations.refresh()
    for since, current in ((NOW - 60, False), (NOW, False), (None, False), (NOW + 1, True)):
        assert revocations.current(revocations.own(TOKEN, claims, since), NOW + 2) is current, since


@pytest.mark.parametrize(
    ("kind", "value"), [("jti", "minted-jti"), ("credential", TOKEN), ("credential", essence(TOKEN))]
)
def test_a_token_of_ours_that_is_named_itself_is_revoked_whatever_its_age(state, revocations, kind, value):
    claims = {"sub": "alice", "client_id": "edge", "jti": "minted-jti", "iat": int(NOW) + 1}
    revoke(state, name_of(KEY, kind, value), NOW)
    revocations.refresh()
    assert not revocations.current(revocations.own(TOKEN, claims, NOW + 1), NOW + 2)


def test_a_revocation_is_over_at_its_end(state, revocations, gathered):
    """RV-05."""
    revoke(state, name_of(KEY, "subject", "alice"), NOW, life=100)
    revocations.refresh()
    assert not revocations.current(gathered(), NOW + 99)
    assert revocations.current(gathered(), NOW + 100)


def test_a_revocation_is_widened_and_never_narrowed(state):
    name = name_of(KEY, "subject", "alice")
    revoke(state, name, NOW, life=1000)
    assert planned(state, name, NOW + 50, 10, "again").until == NOW + 1000
    assert next(listed(state)).before == NOW
    again = revoke(state, name, NOW + 50, life=10, reason="again")
    assert (again.before, again.until) == (NOW + 50, NOW + 1000)
    assert revoke(state, name, NOW - 50).before == NOW + 50
    assert [one.name for one in listed(state)] == [name]


def test_nothing_personal_lies_in_the_store(state, tmp_path):
    for kind, value, source in NAMED[:7]:
        revoke(state, name_of(KEY, kind, value, source), NOW)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "var").iterdir())
    for text in (b"alice", b"session-1", b"inbound-jti", TOKEN.encode()):
        assert text not in kept


def test_a_name_is_what_stands_in_the_audit():
    assert name_of(KEY, "subject", "alice") == f"subject:{hashed(KEY, 'subject', 'alice')}"
    assert name_of(KEY, "subject", hashed(KEY, "subject", "alice")) == name_of(KEY, "subject", "alice")
    assert name_of(KEY, "credential", TOKEN) == f"credential:{hashed(KEY, 'credential', TOKEN)}"
    assert name_of(KEY, "source_subject", "b", "a") != name_of(KEY, "source_subject", "ab", "")


def test_a_signature_that_its_holder_has_altered_is_the_same_credential():
    """An ECDSA signature has a twin that verifies as well, and a chain can be sent in many ways."""
    assert essence("h.p.signature") == essence("h.p.twin") != essence("h.q.signature")
    leaf, another, root = (b64(one.der) for one in (CA.issue(), CA.issue(), CA))
    assert essence(f"{leaf}.{root}") == essence(leaf) != essence(f"{another}.{root}")
    assert essence("MIIopaque") == "MIIopaque"
    assert essence("opaque-token") == "opaque-token"


# Outage


def test_a_list_that_was_never_seen_is_an_outage(state, gathered, steady, refused):
    fresh = Revocations(state, [KEY], StateSettings(), monotonic=steady)
    assert (fresh.usable, fresh.age, fresh.status()["age_s"]) == (False, math.inf, None)
    with refused(STATE_UNAVAILABLE):
        fresh.current(gathered(), NOW)


def test_a_list_older_than_max_stale_is_an_outage_and_a_younger_one_is_not(revocations, gathered, steady, refused):
    """RV-04."""
    steady.now = 300.0
    assert revocations.current(gathered(), NOW)
    steady.now = 300.1
    with refused(STATE_UNAVAILABLE):
        revocations.check(gathered(), NOW)
    revocations.refresh()
    revocations.check(gathered(), NOW)


def test_where_the_configuration_says_so_an_old_list_goes_on_and_still_refuses(
    state, revocations, gathered, steady, refused
):
    revoke(state, name_of(KEY, "subject", "alice"), NOW)
    revocations.refresh()
    steady.now = 9000.0
    revocations.settings = StateSettings(on_outage=OnOutage(revocation="allow"))
    assert revocations.usable
    assert not revocations.fresh
    with refused(REVOKED):
        revocations.check(gathered(), NOW)
    revocations.check(gathered(subject="bob"), NOW)


@pytest.mark.parametrize("value", [b"9 {}", b"1 {}", b"1 []", b"", b'1 {"before":"x","at":1,"reason":""}'])
def test_a_record_that_cannot_be_read_is_an_outage_and_not_nothing(state, steady, value):
    state.put(NAMESPACE, "subject:x", value, expected=0)
    broken = Revocations(state, [KEY], StateSettings(), monotonic=steady)
    with pytest.raises(StateUnavailableError):
        broken.refresh()
    assert not broken.usable


def test_a_record_of_the_release_before_is_read(state, revocations, gathered):
    content = {"before": NOW, "at": NOW, "reason": ""}
    state.put(NAMESPACE, name_of(KEY, "subject", "alice"), encode(0, content), expected=0)
    revocations.refresh()
    assert not revocations.current(gathered(), NOW)


def test_a_look_at_many_revocations_costs_next_to_nothing(state, revocations, gathered):
    for number in range(200):
        revoke(state, name_of(KEY, "subject", f"user-{number}"), NOW)
    revocations.refresh()
    revocable = gathered()
    started = time.thread_time()
    for _ in range(1000):
        revocations.current(revocable, NOW)
    assert time.thread_time() - started < 0.5  # 500 µs each, on a machine that is slow
