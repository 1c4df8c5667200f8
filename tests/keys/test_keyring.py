import copy
import dataclasses
import sys
import threading
import time

import jwt
import pytest

from keys import rotation
from keys.errors import (
    KeysError,
    NoUsableKey,
    RingMissing,
    RolledBack,
    SelfTestFailed,
    StoreUnauthentic,
    StoreUnavailable,
)
from keys.keyring import Keyring
from keys.rollback_guard import Floor

READY = 935.0
KEEP = 3930.0


@pytest.fixture
def store(memory_store, ring):
    assert memory_store.ring is ring
    return memory_store


@pytest.fixture
def keyring(store, schedule, clock):
    return Keyring(store, schedule, clock)


@pytest.fixture
def rotate(store, clock, schedule, wanted):
    """Let enough time pass and rotate, unseen by the keyring."""

    def run(after=READY):
        clock.sleep(after)
        return rotation.rotate(store, clock, wanted(schedule, 300.0))[0]

    return run


def kids(keyring, now):
    return [key["kid"] for key in keyring.jwks(now)["keys"]]


def test_a_token_signed_here_verifies_against_the_jwks_with_another_library(keyring, clock):
    signer = keyring.signer("ES256", clock())
    signing_input = jwt.utils.base64url_encode(b'{"alg":"ES256"}') + b"." + jwt.utils.base64url_encode(b'{"sub":"x"}')
    token = signing_input + b"." + jwt.utils.base64url_encode(signer.sign(signing_input))
    key = jwt.PyJWKSet.from_dict(keyring.jwks(clock()))[signer.kid]
    assert jwt.decode(token, key, algorithms=["ES256"]) == {"sub": "x"}


def test_the_signing_key_and_the_standby_are_published(keyring, ring, clock):
    assert kids(keyring, clock()) == [key.kid for key in ring.keys]
    for key in ring.keys:
        assert keyring.published(key.kid, clock())
    assert not keyring.published("another", clock())


def test_the_jwks_has_public_members_only(keyring, clock):
    """JK-02."""
    for key in keyring.jwks(clock())["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    keyring.jwks(clock())["keys"].clear()
    assert kids(keyring, clock())  # what is handed out is a copy


def test_no_keyring_without_a_ring(new_memory_store, schedule, clock):
    with pytest.raises(RingMissing):
        Keyring(new_memory_store(), schedule, clock)


def test_an_algorithm_without_a_key_is_signed_with_the_default_one(keyring, clock):
    """A configuration may be taken before the ring that has its algorithm is seen."""
    assert keyring.signer("RS256", clock()).algorithm == "ES256"


def test_a_rotation_is_seen_at_the_next_look_and_both_keys_stay_published(keyring, ring, rotate, clock):
    former, next_key = (key.kid for key in ring.keys)
    later = rotate()
    assert keyring.signer("ES256", clock()).kid == former
    assert keyring.refresh()
    assert not keyring.refresh()
    assert keyring.signer("ES256", clock()).kid == next_key
    assert kids(keyring, clock()) == [key.kid for key in later.keys]
    assert keyring.published(former, clock() + KEEP - 0.1)
    assert not keyring.published(former, clock() + KEEP)
    assert former not in kids(keyring, clock() + KEEP)


def test_a_replica_whose_clock_is_behind_signs_with_the_former_key_meanwhile(keyring, ring, rotate, clock):
    rotate()
    keyring.refresh()
    assert keyring.signer("ES256", clock() - 1).kid == ring.keys[0].kid


def test_a_clock_stepped_back_before_the_ring_was_made_is_no_outage(keyring, ring, clock, rotate):
    assert keyring.signer("ES256", clock() - 86400).kid == ring.keys[0].kid
    rotate()
    later = rotate(after=86400.0)
    keyring.refresh()
    assert later.keys[0].kid != ring.keys[0].kid  # the very first is gone
    assert keyring.signer("ES256", clock() - 10**6).kid == later.keys[0].kid


def test_the_successor_of_a_revoked_key_signs_at_once_even_by_a_clock_that_is_behind(store, schedule, clock, rotate):
    later = rotate()
    first, second, third = later.keys
    now = clock.sleep(100)
    store.ring = dataclasses.replace(
        later,
        version=later.version + 1,
        keys=(
            first,
            dataclasses.replace(second, revoked_at=now, private=None),
            dataclasses.replace(third, active_at=now),
        ),
    )
    keyring = Keyring(store, schedule, clock)
    assert keyring.signer("ES256", now - 20).kid == third.kid
    assert not keyring.published(second.kid, now - 20)
    assert second.kid not in kids(keyring, now - 20)


def test_signing_ends_when_the_store_was_not_seen_for_the_grace_and_publishing_does_not(keyring, store, ring, clock):
    """RO-05. Lesson R.3 (SPIRE #1542, #2115)."""
    store.fault = StoreUnavailable("down")
    clock.sleep(3600)
    with pytest.raises(StoreUnavailable):
        keyring.refresh()
    assert keyring.signer("ES256", clock()).kid == ring.keys[0].kid
    clock.sleep(0.1)
    with pytest.raises(NoUsableKey, match="not been seen"):
        keyring.signer("ES256", clock())
    assert len(kids(keyring, clock())) == 2  # tokens that are out must still verify
    store.fault = None
    assert not keyring.refresh()
    assert keyring.signer("ES256", clock()).kid == ring.keys[0].kid


def test_the_store_counts_as_seen_when_the_look_began(store, schedule, clock):
    class Slow(type(store)):
        place = "slow"

        def load(self):
            clock.sleep(10)
            return store.load()

    keyring = Keyring(Slow(), schedule, clock)
    assert keyring.status(clock()).unseen == 10
    clock.sleep(1)
    keyring.refresh()
    assert keyring.status(clock()).unseen == 10


def test_an_older_ring_is_refused_by_a_replica_that_has_seen_a_newer_one(keyring, store, ring, rotate, clock):
    later = rotate()
    keyring.refresh()
    store.ring = ring
    with pytest.raises(RolledBack, match="version 1"):
        keyring.refresh()
    assert keyring.signer("ES256", clock()).kid == later.keys[1].kid
    assert keyring.status(clock() + 10).unseen == 10


def test_an_empty_store_is_refused_by_a_replica_that_has_seen_a_ring(keyring, store, clock):
    store.ring = None
    with pytest.raises(RolledBack, match="has seen version 1"):
        keyring.refresh()
    assert keyring.signer("ES256", clock())


def test_another_ring_of_the_same_version_is_refused(keyring, store, new_memory_store, schedule, clock, wanted):
    store.ring = rotation.create(new_memory_store(), clock, wanted(schedule, 300.0))[0]
    with pytest.raises(RolledBack):
        keyring.refresh()


@pytest.fixture
def siblings(store, schedule, clock):
    """Two workers of one replica, and how a third is started."""
    floor = Floor()

    def start():
        return Keyring(store, schedule, clock, floor=floor)

    return start(), start(), start


def test_a_worker_that_starts_after_a_newer_ring_was_seen_refuses_an_older_one(siblings, store, ring, rotate, clock):
    sees, _, start = siblings
    later = rotate()
    sees.refresh()
    store.ring = ring
    with pytest.raises(RolledBack, match=r"holds version 1 .* has seen version 2"):
        start()
    store.ring = None
    with pytest.raises(RolledBack, match="has seen version 2"):
        start()
    store.ring = later
    assert start().signer("ES256", clock()).kid == later.keys[1].kid


def test_a_ring_is_refused_by_a_worker_whose_sibling_has_seen_a_newer_one(siblings, store, ring, rotate, clock):
    sees, lags, _ = siblings
    rotate()
    sees.refresh()
    store.ring = ring  # the very ring that this worker still has
    clock.sleep(10)
    with pytest.raises(RolledBack):
        lags.refresh()
    assert lags.status(clock()).unseen == READY + 10
    clock.sleep(3600)
    with pytest.raises(NoUsableKey):
        lags.signer("ES256", clock())


def test_a_newer_ring_that_a_sibling_takes_during_the_look_makes_this_look_no_rollback(schedule, clock, store, rotate):
    floor = Floor()
    sibling = Keyring(store, schedule, clock, floor=floor)
    clock.sleep(READY)
    sibling.refresh()

    class Overtaken(type(store)):
        place = "overtaken"

        def load(self):
            ring = store.load()
            rotate(after=0.0)
            sibling.refresh()
            return ring

    assert Keyring(Overtaken(), schedule, clock, floor=floor).status(clock()).version == 1
    assert floor.version == 2


def test_a_ring_that_was_not_taken_is_not_held_against_the_one_before_it(siblings, store, ring, rotate, clock):
    sees, _, start = siblings
    later = rotate()
    first, second, third = later.keys
    store.ring = dataclasses.replace(later, keys=(first, dataclasses.replace(second, private=third.private), third))
    with pytest.raises(SelfTestFailed):
        sees.refresh()
    store.ring = ring
    sees.refresh()
    assert start().signer("ES256", clock()).kid == ring.keys[0].kid


def test_without_a_shared_floor_a_keyring_knows_what_it_has_seen_itself(store, ring, rotate, schedule, clock):
    sees = Keyring(store, schedule, clock)
    rotate()
    sees.refresh()
    store.ring = ring
    assert Keyring(store, schedule, clock).signer("ES256", clock()).kid == ring.keys[0].kid


@pytest.mark.parametrize("fault", [StoreUnavailable("down"), StoreUnauthentic("forged"), RingMissing("gone")])
def test_a_look_that_fails_is_reported_and_the_last_good_ring_kept(store, schedule, clock, ring, fault):
    heard = []
    keyring = Keyring(store, schedule, clock, heard.append)
    store.fault = fault
    for _ in range(3):
        with pytest.raises(KeysError):
            keyring.refresh()
    assert [str(fault) in str(each) for each in heard] == [True]  # told once, not at every poll
    assert str(fault) in keyring.status(clock()).fault
    assert keyring.signer("ES256", clock()).kid == ring.keys[0].kid
    store.fault = None
    keyring.refresh()
    assert keyring.status(clock()).fault == ""
    store.fault = fault
    with pytest.raises(KeysError):
        keyring.refresh()
    assert len(heard) == 2


def test_a_ring_with_a_key_that_fails_its_self_test_is_not_taken(keyring, store, ring, rotate, clock):
    """RO-07. Lesson 3.6."""
    later = rotate()
    first, second, third = later.keys
    store.ring = dataclasses.replace(later, keys=(first, dataclasses.replace(second, private=third.private), third))
    with pytest.raises(SelfTestFailed):
        keyring.refresh()
    assert keyring.signer("ES256", clock()).kid == ring.keys[0].kid


def test_the_status_reports_what_readiness_and_metrics_show(keyring, ring, clock):
    clock.sleep(35)
    status = keyring.status(clock())
    assert (status.version, status.published, status.longest_ttl) == (1, 2, 300)
    assert (status.unseen, status.usable, status.fault) == (35, True, "")
    key = status.keys["ES256"]
    assert (key.kid, key.age, key.due_in) == (ring.keys[0].kid, 35, 86400 - 35)
    assert (key.standby, key.standby_ready_in) == (ring.keys[1].kid, 900)
    assert not keyring.status(clock() + 3600).usable


def test_a_new_schedule_counts_at_once(keyring, store, other_schedule, clock):
    store.fault = StoreUnavailable("down")
    clock.sleep(100)
    keyring.reschedule(other_schedule(store_grace=60.0))
    with pytest.raises(NoUsableKey):
        keyring.signer("ES256", clock())


def test_a_longer_grace_does_not_revive_a_ring_that_is_out_of_sight(keyring, store, other_schedule, clock):
    store.fault = StoreUnavailable("down")
    clock.sleep(3601)
    keyring.reschedule(other_schedule(store_grace=9000.0))
    with pytest.raises(NoUsableKey):
        keyring.signer("ES256", clock())
    store.fault = None
    keyring.refresh()
    assert keyring.signer("ES256", clock() + 8999)


def test_the_poller_swaps_a_new_ring_in_and_stops_when_told(store, other_schedule, clock, rotate):
    before = set(threading.enumerate())
    keyring = Keyring(store, other_schedule(poll=0.01), clock)
    keyring.start()
    keyring.start()  # twice is once
    (poller,) = (one for one in set(threading.enumerate()) - before if one.name == "keys-poller")
    expected = rotate().keys[1].kid
    deadline = time.monotonic() + 20
    while keyring.signer("ES256", clock()).kid != expected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    keyring.stop()
    assert not poller.is_alive()


def test_the_poller_outlives_every_fault(store, other_schedule, clock):
    looked = threading.Semaphore(0)
    faults = [StoreUnavailable("down"), RuntimeError("a fault of ours")]

    class Faulty(type(store)):
        place = "faulty"

        def load(self):
            looked.release()
            if len(faults) and armed:
                raise faults.pop(0)
            return store.load()

    armed = []
    heard = []
    keyring = Keyring(Faulty(), other_schedule(poll=0.01), clock, heard.append)
    armed.append(True)
    keyring.start()
    for _ in range(5):
        assert looked.acquire(timeout=60)
    keyring.stop()
    assert not faults
    assert [str(fault) for fault in heard] == ["down", "the look at the key store failed: RuntimeError"]
    assert keyring.status(clock()).fault == ""


def test_requests_see_one_whole_ring_while_others_are_swapped_in(keyring, store, rotate, clock):
    """Lesson 3.6 (Oathkeeper signs with one key and writes the `kid` of another)."""
    first = store.ring
    store.said.clear()  # a replica that does not look at the store would keep the next rotation back
    rings = [rotate() for _ in range(3)]
    store.ring = first
    keyring.refresh()
    torn, done = [], threading.Event()

    def ask():
        while not done.is_set():
            signer = keyring.signer("ES256", clock())
            if signer.kid not in kids(keyring, clock()) and not keyring.published(signer.kid, clock()):
                torn.append(signer.kid)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for ring in rings:
            store.ring = ring
            keyring.refresh()
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not torn
    assert keyring.signer("ES256", clock()).kid == rings[-1].keys[-2].kid


def test_a_keyring_does_not_show_its_keys(keyring, store):
    shown = repr(keyring) + repr(keyring._snapshot) + repr(copy.copy(store.ring))
    assert "private" not in shown
    assert "EllipticCurve" not in shown
