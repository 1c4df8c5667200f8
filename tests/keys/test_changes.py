"""Revoking, importing, adding and letting go: pure changes of a ring."""

import dataclasses

import pytest

from keys import transitions
from keys.errors import GuardRefused, KeysError, KeyUnfit, SelfTestFailed
from keys.keyring import Keyring
from keys.lifecycle import State, state
from keys.replica_report import Sighting
from keys.revocation_impact import bounds, foreseen
from keys.signer import generate

READY = 935.0


@pytest.fixture
def mixed(clock, schedule, wanted):
    """A ring with ES256, the default, and Ed25519."""
    pairs = [(generate(name), generate(name)) for name in ("ES256", "Ed25519")]
    return transitions.first_ring(pairs, clock(), wanted(schedule, 300.0, ["ES256", "Ed25519"]))


def signing(ring, algorithm="ES256"):
    return ring.signing(algorithm).kid


def states(ring, clock):
    return [(key.algorithm, str(state(key, clock()))) for key in ring.keys]


def test_the_first_ring_signs_with_every_algorithm_at_once(mixed, clock):
    assert states(mixed, clock) == [
        *(("ES256", "active"), ("ES256", "published"), ("Ed25519", "active"), ("Ed25519", "published")),
    ]
    assert (mixed.default, mixed.algorithms) == ("ES256", ("ES256", "Ed25519"))


def test_an_added_algorithm_waits_and_meanwhile_the_default_signs(ring, new_memory_store, clock, schedule, wanted):
    """JW-40."""
    both = wanted(schedule, 300.0, ["Ed25519", "ES256"])
    added = transitions.added(ring, [generate("Ed25519"), generate("ES256")], clock())
    assert states(added, clock) == [("ES256", "active"), ("ES256", "published"), ("Ed25519", "published")]
    assert transitions.added(added, [generate("Ed25519")], clock()) is added
    assert transitions.noted(added, clock(), both).default == "ES256"  # nothing signs with the new one yet
    keyring = Keyring(new_memory_store(added), schedule, clock)
    assert keyring.signer("Ed25519", clock()).kid == signing(ring)
    with pytest.raises(GuardRefused):
        transitions.rotated(added, [generate("Ed25519")], clock(), both)
    clock.sleep(READY)
    rotated = transitions.rotated(added, [generate("Ed25519")], clock(), both)
    assert rotated.default == "Ed25519"
    assert signing(rotated) == signing(ring)  # the other one is left alone
    keyring = Keyring(new_memory_store(rotated), schedule, clock)
    assert keyring.signer("Ed25519", clock()).kid == signing(rotated, "Ed25519") == added.keys[2].kid


def test_what_nobody_wants_any_more_retires_and_its_tokens_verify_to_their_end(
    mixed, new_memory_store, clock, schedule
):
    """JW-40, RO-03."""
    gone = transitions.retired(mixed, ["Ed25519"], clock())
    assert states(gone, clock) == [("ES256", "active"), ("ES256", "published"), ("Ed25519", "retired")]
    assert gone.keys[2].leaves_at == clock() + mixed.keep
    assert gone.algorithms == ("ES256",)
    keyring = Keyring(new_memory_store(gone), schedule, clock)
    assert keyring.signer("Ed25519", clock()).kid == signing(mixed)  # for a replica that has the old configuration
    assert keyring.published(signing(mixed, "Ed25519"), clock())
    assert transitions.retired(gone, ["Ed25519"], clock()) is gone
    assert transitions.retired(mixed, ["ES256"], clock()) is mixed  # the default stays, whatever is asked


def test_several_algorithms_rotate_together_or_not_at_all(mixed, clock, schedule, wanted):
    both = wanted(schedule, 300.0, ["ES256", "Ed25519"])
    clock.sleep(READY)
    later = transitions.rotated(mixed, [generate("ES256")], clock(), both)
    with pytest.raises(GuardRefused):  # one standby is too young
        transitions.rotated(later, [generate("ES256"), generate("Ed25519")], clock(), both)
    clock.sleep(READY)
    last = transitions.rotated(later, [generate("ES256"), generate("Ed25519")], clock(), both)
    assert {name for name in last.algorithms if last.signing(name).active_at == clock()} == {"ES256", "Ed25519"}


def test_a_key_published_after_the_guard_was_shortened_still_waits_for_those_who_fetched_before(
    mixed, clock, other_schedule, wanted
):
    short = wanted(other_schedule(jwks_max_age=10.0), 300.0, ["ES256", "Ed25519"])
    clock.sleep(READY)
    at = clock()
    later = transitions.rotated(mixed, [generate("ES256")], at, short)
    assert later.guard == short.schedule.guard
    last = transitions.rotated(later, [generate("Ed25519")], clock.sleep(1), short)
    assert last.standby("Ed25519").ready_at == at + READY


def test_force_skips_the_guard_and_nothing_else(ring, clock, schedule, wanted):
    one = wanted(schedule, 300.0)
    assert transitions.rotated(ring, [generate("ES256")], clock(), one, force=True).signing("ES256") is not None
    first, standby = ring.keys
    broken = dataclasses.replace(ring, keys=(first, dataclasses.replace(standby, private=first.private)))
    with pytest.raises(SelfTestFailed):
        transitions.rotated(broken, [generate("ES256")], clock(), one, force=True)


# Revoking


def test_a_revoked_signer_is_followed_by_its_standby_in_the_same_step(ring, new_memory_store, clock, schedule):
    """RO-06."""
    first, standby = ring.keys
    fresh = generate("ES256")
    later = transitions.revoked(ring, first.kid, fresh, clock.sleep(1))
    assert [str(state(key, clock())) for key in later.keys] == ["revoked", "active", "published"]
    assert later.find(first.kid).private is None
    keyring = Keyring(new_memory_store(later), schedule, clock)
    assert keyring.signer("ES256", clock() - 30).kid == standby.kid  # by a clock that is behind, too
    assert not keyring.published(first.kid, clock() - 30)
    assert {key["kid"] for key in keyring.jwks(clock())["keys"]} == {standby.kid, fresh.kid}


def test_a_revoked_standby_is_replaced_and_a_retired_key_only_buried(ring, clock, schedule, wanted):
    clock.sleep(READY)
    later = transitions.rotated(ring, [generate("ES256")], clock(), wanted(schedule, 300.0))
    retired, active, standby = later.keys
    buried = transitions.revoked(later, retired.kid, generate("ES256"), clock())
    assert [str(state(key, clock())) for key in buried.keys] == ["revoked", "active", "published"]
    replaced = transitions.revoked(later, standby.kid, generate("ES256"), clock())
    assert replaced.signing("ES256") == active
    assert replaced.standby("ES256").published_at == clock()


def test_without_a_standby_a_fresh_key_signs_at_once(ring, clock):
    alone = dataclasses.replace(ring, keys=ring.keys[:1])
    fresh = generate("ES256")
    assert signing(transitions.revoked(alone, ring.keys[0].kid, fresh, clock())) == fresh.kid


def test_nothing_is_revoked_twice_and_no_stranger_at_all(ring, clock):
    later = transitions.revoked(ring, ring.keys[0].kid, generate("ES256"), clock())
    with pytest.raises(KeysError, match="revoked already"):
        transitions.revoked(later, ring.keys[0].kid, generate("ES256"), clock())
    with pytest.raises(KeysError, match="no key"):
        transitions.revoked(ring, "nobody", generate("ES256"), clock())


def test_a_stolen_store_leaves_nothing_in_force(mixed, new_memory_store, clock, schedule):
    before = {key.kid for key in mixed.keys}
    pairs = [(generate("ES256"), generate("ES256"))]
    later = transitions.all_revoked(mixed, pairs, clock.sleep(10))
    assert {key.kid for key in later.keys if state(key, clock()) is State.REVOKED} == before
    assert all(key.private is None for key in later.keys if key.kid in before)
    keyring = Keyring(new_memory_store(later), schedule, clock)
    assert keyring.signer("ES256", clock()).kid == pairs[0][0].kid
    assert not {key["kid"] for key in keyring.jwks(clock())["keys"]} & before
    assert len([key for key in transitions.all_revoked(later, [], clock()).keys if key.revoked_at]) == len(later.keys)


def test_a_tombstone_stays_for_ever_so_that_the_key_does_not_come_back(ring, clock, schedule, wanted):
    pair = generate("ES256")
    later = transitions.imported(ring, pair, clock())
    later = transitions.revoked(later, pair.kid, generate("ES256"), clock())
    clock.sleep(10**9)
    later = transitions.rotated(later, [generate("ES256")], clock(), wanted(schedule, 300.0))
    with pytest.raises(KeyUnfit, match="revoked"):
        transitions.imported(later, pair, clock())


def test_an_imported_key_takes_the_standbys_place_and_waits_from_now_on(ring, clock):
    pair = generate("ES256")
    later = transitions.imported(ring, pair, clock.sleep(500))
    assert later.standby("ES256").kid == pair.kid
    assert later.standby("ES256").ready_at == clock() + READY
    assert signing(later) == signing(ring)
    assert len(later.keys) == 2


# What a revocation means outside


def says(ring, clock, version, seen_ago=0.0, **since):
    return Sighting(
        replica=f"v{version}",
        host="here",
        pid=1,
        version=version,
        seen_at=clock() - seen_ago,
        until=clock() - seen_ago + ring.keep,
        guard=READY,
        since={key.kid: 0.0 for key in ring.keys} | since,
    )


def revoke_signer(ring, clock):
    later = transitions.revoked(ring, signing(ring), generate("ES256"), clock())
    return dataclasses.replace(later, version=ring.version + 1)


def test_a_standby_that_every_verifier_has_is_lacked_by_nobody(ring, clock, schedule):
    clock.sleep(READY)
    later = revoke_signer(ring, clock)
    found = bounds(ring, later, clock(), schedule, [says(ring, clock, 2)])
    assert (found.believed, found.unknown, found.out_of_sight) == (READY, 0, ())


def test_a_young_standby_is_lacked_for_the_rest_of_the_guard(ring, clock, schedule):
    clock.sleep(100)
    later = revoke_signer(ring, clock)
    assert bounds(ring, later, clock(), schedule, []).unknown == READY - 100


def test_who_does_not_know_of_it_is_named_with_its_end(ring, clock, schedule):
    clock.sleep(READY)
    later = revoke_signer(ring, clock)
    lost = says(ring, clock, 1, seen_ago=500.0)
    found = bounds(ring, later, clock(), schedule, [lost, says(ring, clock, 2)])
    assert found.out_of_sight == (("v1", ring.keep - 500 + READY),)


def test_a_dry_run_foresees_who_will_look_and_who_will_not(ring, clock, schedule):
    clock.sleep(READY)
    later = revoke_signer(ring, clock)
    looking, lost = says(ring, clock, 1), says(ring, clock, 1, seen_ago=500.0)
    found = foreseen(later, clock(), schedule, [looking, lost])
    assert [one.version for one in found] == [2, 1]
    assert bounds(ring, later, clock(), schedule, found).out_of_sight == (("v1", ring.keep - 500 + READY),)
