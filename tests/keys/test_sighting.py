"""What a replica says of itself, when it stops publishing, and what a rotation makes of that."""

import dataclasses

import pytest

from keys import rotation
from keys.errors import GuardRefused, NoUsableKey, StoreUnavailable
from keys.keyring import Keyring
from keys.lifecycle import guard_missing
from keys.replica_report import Sighting, ended, here, is_alive, lacking

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
    return lambda: rotation.rotate(store, clock, wanted(schedule, 300.0))[0]


def said(store):
    (one,) = store.said.values()
    return one


def test_a_replica_says_what_it_publishes_and_that_it_ends(keyring, store, ring, clock, schedule):
    assert keyring.status(clock()).publishes_for == KEEP
    one = said(store)
    assert (one.version, one.seen_at, one.until, one.guard) == (1, clock(), clock() + KEEP, schedule.guard)
    assert one.since == dict.fromkeys((key.kid for key in ring.keys), 0.0)  # it never published without them
    assert (one.host, is_alive(one.pid)) == (here(), True)
    assert one.replica.startswith(f"{here()}-{one.pid}-")
    assert Sighting.of(one.facts()) == one


def test_it_says_since_when_it_publishes_a_new_key(keyring, store, clock, rotate):
    clock.sleep(READY)
    keyring.refresh()
    standby = rotate().keys[2].kid
    assert standby not in said(store).since
    clock.sleep(4)
    keyring.refresh()
    assert (said(store).version, said(store).since[standby]) == (2, clock())
    clock.sleep(100)
    keyring.refresh()
    assert said(store).since[standby] == clock() - 100
    assert said(store).until == clock() + KEEP


def test_the_jwks_ends_when_it_said_so_and_comes_back_with_the_store(keyring, ring, clock):
    clock.sleep(KEEP)
    assert len(keyring.jwks(clock())["keys"]) == 2
    clock.sleep(0.1)
    with pytest.raises(NoUsableKey, match="not been seen for 3930 s"):
        keyring.jwks(clock())
    assert keyring.status(clock()).published == 0
    keyring.refresh()
    assert [key["kid"] for key in keyring.jwks(clock())["keys"]] == [key.kid for key in ring.keys]


@pytest.fixture
def full(store, monkeypatch):
    """A store that is read and takes no word, as on a full disk."""

    def refuse(_sighting):
        raise StoreUnavailable("full")

    def fill():
        monkeypatch.setattr(store, "report", refuse)

    return fill


def test_a_worker_begins_although_the_store_takes_no_word(store, schedule, clock, full):
    """A full disk must not keep a worker that ended from being replaced."""
    full()
    heard = []
    keyring = Keyring(store, schedule, clock, heard.append)
    assert [str(fault) for fault in heard] == ["full"]
    assert keyring.signer("ES256", clock())
    assert keyring.jwks(clock())["keys"]


def test_where_the_store_takes_no_word_the_jwks_goes_on_one_poll_from_each_look(keyring, schedule, clock, full):
    clock.sleep(100)
    full()
    for _ in range(int(2 * KEEP / schedule.poll)):  # longer than it has said before
        clock.sleep(schedule.poll)
        with pytest.raises(StoreUnavailable):
            keyring.refresh()
        assert keyring.jwks(clock())["keys"]
    assert keyring.status(clock()).fault == "full"
    assert keyring.signer("ES256", clock())  # the ring was seen
    clock.sleep(schedule.poll + 0.1)
    with pytest.raises(NoUsableKey):  # as every guard allows for, said or not
        keyring.jwks(clock())


def test_a_store_that_takes_no_word_is_looked_at_before_the_poll_ends(keyring, schedule, full):
    assert keyring._poller._poll() == schedule.poll
    full()
    with pytest.raises(StoreUnavailable):
        keyring.refresh()
    assert keyring._poller._poll() == schedule.poll / 2


@pytest.mark.usefixtures("keyring")
def test_a_replica_that_is_cut_off_holds_back_the_key_that_it_does_not_publish(store, clock, rotate):
    clock.sleep(READY)
    rotate()  # which it does not see
    clock.sleep(READY)
    with pytest.raises(GuardRefused) as refused:
        rotate()
    assert refused.value.replica == said(store).replica
    assert "out of sight" in str(refused.value)
    end = said(store).until + READY - 5 - clock()  # a verifier may have fetched at its last moment
    assert refused.value.seconds == pytest.approx(end)
    clock.sleep(end - 1)
    with pytest.raises(GuardRefused):
        rotate()
    clock.sleep(1)
    assert rotate().version == 3


def test_one_that_publishes_late_counts_from_when_it_did(keyring, clock, rotate):
    clock.sleep(READY)
    rotate()
    clock.sleep(300)
    keyring.refresh()
    clock.sleep(READY - 300)
    with pytest.raises(GuardRefused) as refused:
        rotate()
    assert refused.value.seconds == pytest.approx(300 - 5)
    clock.sleep(300 - 5)
    assert rotate().version == 3


def test_one_that_stops_says_so_and_nobody_waits_for_it(keyring, store, clock, rotate):
    clock.sleep(READY)
    rotate()
    keyring.stop()
    assert said(store).until == clock()
    clock.sleep(READY)
    assert rotate().version == 3


def test_a_killed_one_is_spoken_for_by_its_successor(store, schedule, clock, rotate, monkeypatch):
    monkeypatch.setattr("keys.heartbeat.getpid", lambda: 2**22 + 1)  # no process has it
    Keyring(store, schedule, clock)
    clock.sleep(READY)
    rotate()
    monkeypatch.undo()
    Keyring(store, schedule, clock)
    ends = sorted(one.until for one in store.said.values())
    assert ends == [clock(), clock() + KEEP]
    clock.sleep(READY - 10)
    with pytest.raises(GuardRefused):  # verifiers may have fetched from it until then
        rotate()
    clock.sleep(10)
    assert rotate().version == 3


def test_who_takes_long_to_begin_looks_again_before_it_publishes(store, schedule, clock, rotate):
    """A machine that was paused in between: two rotations, and it would publish neither key that signs."""

    class Paused(type(store)):
        def load(self):
            ring = store.load()
            if len(rotations) < 2:
                clock.sleep(READY)
                rotations.append(rotate())
                clock.sleep(READY)
                rotations.append(rotate())
            return ring

        def report(self, sighting):
            store.report(sighting)

    rotations = []
    keyring = Keyring(Paused(), schedule, clock)
    signs = keyring.signer("ES256", clock()).kid
    assert signs == rotations[1].signing("ES256").kid
    assert signs in {key["kid"] for key in keyring.jwks(clock())["keys"]}


def test_others_words_that_cannot_be_read_stop_no_service(store, schedule, clock, monkeypatch):
    def refuse():
        raise StoreUnavailable("one of them belongs to root")

    monkeypatch.setattr(store, "sightings", refuse)
    assert Keyring(store, schedule, clock).status(clock()).publishes_for == KEEP


def test_words_that_count_no_more_are_dropped(keyring, store, schedule, clock):
    clock.sleep(KEEP + READY + 3601)
    Keyring(store, schedule, clock)
    assert len(store.said) == 1
    assert keyring.status(clock()).publishes_for == 0


def test_a_replica_with_longer_numbers_counts_with_its_own(store, ring, schedule, other_schedule, clock):
    Keyring(store, other_schedule(jwks_max_age=3600.0), clock)
    standby = ring.keys[1]
    assert guard_missing(standby, clock() + 100, schedule, store.sightings())[0] == 935 + 3300 - 100
    assert guard_missing(standby, clock() + 100, schedule)[0] == 835


def test_the_latest_of_those_who_lack_a_key_is_named():
    one = Sighting("one", "here", 1, 1, 0.0, 50.0, 10.0, {"known": 20.0})
    two = dataclasses.replace(one, replica="two", until=40.0, since={})
    assert lacking([one, two], "known") == (40.0, "two")
    assert lacking([one, two], "new") == (50.0, "one")
    assert lacking([], "new") == (0.0, "")


def test_only_those_of_this_host_whose_process_is_gone_have_ended():
    one = Sighting("one", "here", 1, 1, 0.0, 50.0, 10.0, {})
    others = [
        dataclasses.replace(one, host="there"),
        dataclasses.replace(one, pid=2),
        dataclasses.replace(one, until=10.0),
    ]
    assert list(ended([one, *others], "here", lambda pid: pid == 2, 20.0)) == [one]
