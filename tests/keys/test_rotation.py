import dataclasses

import pytest

from keys import rotation, transitions
from keys.errors import Conflict, GuardRefused, KeysError, SelfTestFailed, StoreUnavailable
from keys.lifecycle import State, state
from keys.signer import generate

READY = 935.0  # the guard of the schedule in conftest.py
KEEP = 3930.0  # store_grace + the ttl of 300 s + clock_skew


@pytest.fixture
def store(memory_store, ring):
    """A store with a first ring."""
    assert memory_store.ring is ring
    return memory_store


@pytest.fixture
def rotate(store, clock, schedule, wanted):
    return lambda **more: rotation.rotate(store, clock, wanted(schedule, 300.0), **more)


def test_the_first_key_signs_at_once_and_its_standby_is_published_with_it(ring, clock):
    """RO-02."""
    assert ring.version == 1
    assert [state(key, clock()) for key in ring.keys] == [State.ACTIVE, State.PUBLISHED]


def test_creating_again_changes_nothing(store, ring, clock, schedule, wanted):
    assert rotation.create(store, clock, wanted(schedule, 300.0)) == (ring, False)


def test_two_who_create_at_once_end_with_one_ring(memory_store, clock, schedule, wanted):
    rivals = []
    memory_store.before_swap.append(
        lambda: rivals.append(rotation.create(memory_store, clock, wanted(schedule, 300.0)))
    )
    ring, made = rotation.create(memory_store, clock, wanted(schedule, 300.0))
    assert not made
    assert rivals == [(ring, True)]


def test_a_store_out_of_reach_is_not_taken_for_an_empty_one(memory_store, clock, schedule, wanted):
    memory_store.fault = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        rotation.create(memory_store, clock, wanted(schedule, 300.0))


def test_a_rotation_promotes_the_standby_retires_the_former_key_and_publishes_the_next(store, ring, clock, rotate):
    clock.sleep(READY)
    later, done = rotate()
    assert done
    assert store.ring is later
    assert later.version == 2
    first, second, third = later.keys
    assert (first.kid, second.kid) == (ring.keys[0].kid, ring.keys[1].kid)
    assert [state(key, clock()) for key in later.keys] == [State.RETIRED, State.ACTIVE, State.PUBLISHED]
    assert first.retired_at == second.active_at == third.published_at == clock()
    assert first.leaves_at == clock() + KEEP
    assert third.ready_at == clock() + READY


def test_a_rotation_too_early_is_refused_with_the_seconds_missing(store, ring, clock, rotate):
    """RO-02. Lesson R.6 (Dex: a new key signs at once)."""
    clock.sleep(READY - 12.5)
    with pytest.raises(GuardRefused) as refused:
        rotate()
    assert refused.value.seconds == pytest.approx(12.5)
    assert store.ring is ring
    clock.sleep(12.5)
    assert rotate()[1]
    with pytest.raises(GuardRefused) as refused:  # the new standby starts from nothing
        rotate()
    assert refused.value.seconds == pytest.approx(READY)


def test_rotate_every_is_asked_only_with_if_due(store, clock, rotate):
    clock.sleep(86399)
    assert rotate(only_if_due=True) == (store.ring, ())
    assert store.ring.version == 1
    clock.sleep(1)
    assert rotate(only_if_due=True)[1]
    assert rotate(only_if_due=True) == (store.ring, ())  # safe to run twice


def test_the_plan_says_what_a_rotation_would_do(ring, clock, schedule):
    plan = rotation.plan(ring, "ES256", clock.sleep(35), schedule)
    assert (plan.signing, plan.standby) == (ring.keys[0].kid, ring.keys[1].kid)
    assert (plan.due, plan.due_in, plan.guard_missing) == (False, 86365, 900)
    plan = rotation.plan(ring, "ES256", clock.sleep(86400), schedule)
    assert (plan.due, plan.due_in, plan.guard_missing) == (True, -35, 0)


def test_of_two_operators_at_once_one_wins_and_the_other_is_told(store, clock, rotate):
    clock.sleep(READY)
    store.before_swap.append(rotate)
    with pytest.raises(GuardRefused) as refused:
        rotate()
    assert refused.value.seconds == pytest.approx(READY)
    assert store.ring.version == 2


def test_of_two_schedulers_at_once_one_rotates_and_the_other_has_nothing_to_do(store, clock, rotate):
    clock.sleep(86400)
    store.before_swap.append(lambda: rotate(only_if_due=True))
    assert rotate(only_if_due=True) == (store.ring, ())
    assert store.ring.version == 2


def test_a_store_that_changes_all_the_time_is_given_up(store, clock, rotate):
    clock.sleep(READY)

    def rival():
        store.ring = dataclasses.replace(store.ring, version=store.ring.version + 1)
        store.before_swap.append(rival)

    store.before_swap.append(rival)
    with pytest.raises(Conflict):
        rotate()


def test_a_standby_that_fails_its_self_test_never_becomes_active(store, ring, clock, rotate):
    """RO-07."""
    first, standby = ring.keys
    broken = dataclasses.replace(ring, keys=(first, dataclasses.replace(standby, private=first.private)))
    store.ring = broken
    clock.sleep(READY)
    with pytest.raises(SelfTestFailed):
        rotate()
    assert store.ring is broken


def test_without_a_standby_there_is_nothing_to_rotate_to(store, ring, clock, rotate):
    store.ring = dataclasses.replace(ring, keys=ring.keys[:1])
    clock.sleep(READY)
    with pytest.raises(KeysError, match="no standby"):
        rotate()


def test_a_key_whose_time_is_over_is_dropped_by_the_next_rotation(clock, rotate):
    clock.sleep(READY)
    retired = rotate()[0].keys[0].kid
    clock.sleep(KEEP - 1)
    assert retired in {key.kid for key in rotate()[0].keys}
    clock.sleep(KEEP)
    assert retired not in {key.kid for key in rotate()[0].keys}


def test_pruning_drops_what_has_left_and_keeps_tombstones(ring, clock):
    first, standby = ring.keys
    dead = dataclasses.replace(standby, revoked_at=clock(), private=None)
    clock.sleep(10**9)
    living = dataclasses.replace(ring, keys=(first, dead))
    assert transitions.pruned(living, clock()) == living
    gone = dataclasses.replace(first, retired_at=clock() - 2, leaves_at=clock() - 1)
    assert transitions.pruned(dataclasses.replace(ring, keys=(gone, dead)), clock()).keys == (dead,)


def test_the_longest_ttl_is_remembered_when_the_configuration_forgets_it(store, clock, schedule, wanted):
    """Lesson R.5 (Vault, SPIRE)."""
    rotation.prepare(store, clock, wanted(schedule, 7200.0))
    assert store.ring.longest_ttl == 7200
    assert rotation.prepare(store, clock, wanted(schedule, 60.0)) == (store.ring, False)
    clock.sleep(READY)
    rotation.rotate(store, clock, wanted(schedule, 60.0))
    assert store.ring.keys[0].leaves_at == clock() + 3600 + 7200 + 30


def test_a_rotation_goes_by_its_own_configuration_where_that_is_longer(store, clock, other_schedule, wanted):
    clock.sleep(READY)
    with pytest.raises(GuardRefused) as refused:
        rotation.rotate(store, clock, wanted(other_schedule(jwks_max_age=600.0), 300.0))
    assert refused.value.seconds == pytest.approx(300)
    rotation.rotate(store, clock, wanted(other_schedule(store_grace=4000.0), 7200.0))
    assert store.ring.keys[0].leaves_at == clock() + 4000 + 7200 + 30
    assert store.ring.longest_ttl == 7200


def test_a_shorter_grace_does_not_shorten_what_a_replica_with_the_longer_one_may_sign(
    store, clock, other_schedule, wanted
):
    clock.sleep(READY)
    rotation.rotate(store, clock, wanted(other_schedule(store_grace=60.0), 300.0))
    assert store.ring.keys[0].leaves_at == clock() + KEEP


def test_a_longer_ttl_reaches_a_key_that_a_replica_may_still_sign_with(store, clock, rotate, schedule, wanted):
    """RO-03."""
    clock.sleep(READY)
    retired_at = clock()
    rotate()
    clock.sleep(3600 + 30)  # by a clock that is ahead
    rotation.prepare(store, clock, wanted(schedule, 1000.0))
    assert store.ring.keys[0].leaves_at == retired_at + 3600 + 1000 + 30


def test_a_longer_ttl_leaves_alone_a_key_that_nobody_signs_with_any_more(store, clock, rotate, schedule, wanted):
    clock.sleep(READY)
    rotate()
    leaves_at = store.ring.keys[0].leaves_at
    clock.sleep(3631)
    rotation.prepare(store, clock, wanted(schedule, 1000.0))
    assert store.ring.keys[0].leaves_at == leaves_at


def test_a_shorter_guard_counts_one_rotation_later(store, clock, other_schedule, wanted):
    # verifiers that fetched just before the first rotation did so under the long max-age
    short = other_schedule(jwks_max_age=10.0, verifier_refresh=10.0)
    clock.sleep(READY)
    ring, _ = rotation.rotate(store, clock, wanted(short, 300.0))
    assert ring.standby("ES256").ready_at == clock() + READY
    clock.sleep(READY)
    ring, _ = rotation.rotate(store, clock, wanted(short, 300.0))
    assert ring.standby("ES256").ready_at == clock() + short.guard


def test_changes_are_pure(ring, clock, schedule, wanted):
    before = dataclasses.replace(ring)
    now = clock.sleep(READY)
    transitions.rotated(ring, [generate("ES256")], now, wanted(schedule, 9000.0))
    assert ring == before
    assert transitions.noted(ring, now, wanted(schedule, 300.0)) is ring
    assert transitions.pruned(ring, now) is ring
