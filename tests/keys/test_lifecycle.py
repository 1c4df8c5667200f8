import dataclasses

import pytest

from keys.lifecycle import State, due_in, guard_missing, is_published, state
from keys.record import KeyRecord


@pytest.fixture
def key(ring):
    """A key that is published at 100, ready at 200, signs from 300, retires at 400, leaves at 500."""
    return dataclasses.replace(
        ring.keys[0], published_at=100.0, ready_at=200.0, active_at=300.0, retired_at=400.0, leaves_at=500.0
    )


def test_the_guard_is_the_sum_of_all_that_keeps_a_verifier_from_knowing_a_key(schedule):
    """RO-02."""
    assert schedule.guard == 300 + 600 + 30 + 5


def test_a_retired_key_stays_for_the_longest_token_that_a_blind_replica_may_still_sign(schedule, other_schedule):
    """RO-03."""
    assert schedule.keep(120.0) == 3600 + 120 + 30
    assert other_schedule(poll=7200.0).keep(120.0) == 7200 + 120 + 30


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0, State.PUBLISHED),  # a replica whose clock is behind
        (299.9, State.PUBLISHED),
        (300, State.ACTIVE),
        (399.9, State.ACTIVE),
        (400, State.RETIRED),
        (499.9, State.RETIRED),
        (500, State.REMOVED),
    ],
)
def test_the_state_is_a_function_of_the_clock(key, now, expected):
    """RO-01."""
    assert state(key, now) is expected
    assert is_published(key, now) == (expected is not State.REMOVED)


@pytest.mark.parametrize("now", [0, 150, 350, 450, 550])
def test_a_revocation_holds_whatever_the_clock_says(key, now):
    revoked = dataclasses.replace(key, private=None, revoked_at=350.0)
    assert state(revoked, now) is State.REVOKED
    assert not is_published(revoked, now)


def test_the_guard_counts_from_publication_under_the_longer_of_both_schedules(ring, schedule, other_schedule):
    standby = ring.standby("ES256")
    assert guard_missing(standby, standby.published_at, schedule) == (935, "")
    assert guard_missing(standby, standby.published_at + 934, schedule) == (1, "")
    assert guard_missing(standby, standby.published_at + 935, schedule) == (0, "")
    assert guard_missing(standby, standby.published_at, other_schedule(jwks_max_age=1.0)) == (935, "")
    assert guard_missing(standby, standby.published_at, other_schedule(jwks_max_age=3600.0)) == (935 + 3300, "")


def test_due_is_rotate_every_after_the_key_began(ring, schedule):
    signing = ring.signing("ES256")
    assert due_in(signing, signing.active_at, schedule) == 86400
    assert due_in(signing, signing.active_at + 86401, schedule) == -1
    with pytest.raises(ValueError, match="never began"):
        due_in(ring.standby("ES256"), signing.active_at, schedule)


@pytest.mark.parametrize(
    "times",
    [
        {"retired_at": 5.0},
        {"leaves_at": 5.0},
        {"active_at": None, "retired_at": 4.0, "leaves_at": 5.0},
        {"revoked_at": 4.0},  # still has its private half
        {"private": None},  # not revoked
    ],
)
def test_times_that_contradict_each_other_are_no_record(ring, times):
    with pytest.raises(ValueError, match=ring.keys[0].kid):
        dataclasses.replace(ring.keys[0], **times)


def test_a_ring_has_each_key_once_and_one_signer_and_one_standby_per_algorithm(ring):
    """RO-01."""
    first, standby = ring.keys
    for keys in (
        (first, first),
        (first, dataclasses.replace(standby, active_at=1.0)),
        (dataclasses.replace(first, active_at=None), standby),
    ):
        with pytest.raises(ValueError, match="ring"):
            dataclasses.replace(ring, keys=keys)


def test_private_halves_do_not_show(ring):
    assert isinstance(ring.keys[0], KeyRecord)
    assert "private" not in repr(ring)
    assert str(ring.keys[0].private) not in repr(ring)
