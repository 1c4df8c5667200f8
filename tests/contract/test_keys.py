"""What every store of the key ring promises, tried on real ones: a file, Redis, Valkey."""

import dataclasses
import json
import subprocess
import sys

import pytest
from key_stores import PREAMBLE, SEAL

from keys import rotation
from keys.errors import Conflict, GuardRefused, KeyUnfit, RingMissing, RolledBack, StoreUnauthentic, StoreUnavailable
from keys.keyring import Keyring
from keys.lifecycle import Schedule
from keys.replica_report import Sighting
from keys.transitions import Wanted

SCHEDULE = Schedule(
    rotate_every=86400.0, jwks_max_age=300.0, verifier_refresh=600.0, clock_skew=30.0, poll=5.0, store_grace=3600.0
)
WANTED = Wanted(SCHEDULE, 300.0, ("ES256",))
OTHER = b"another seal key of 32 bytes...."
READY = 935.0
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(key_place):
    return key_place.open()


@pytest.fixture
def ring(store, clock):
    """A first ring, in the store."""
    return rotation.create(store, clock, WANTED)[0]


@pytest.fixture
def rotate(store, clock):
    def run():
        clock.now += READY
        return rotation.rotate(store, clock, WANTED)[0]

    return run


@pytest.fixture
def script(key_place):
    """Run Python in a process of its own over the same store; returns what it printed, as JSON."""

    def run(source):
        command = [sys.executable, "-c", PREAMBLE + source, *map(str, key_place.arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def following(ring, **changed):
    return dataclasses.replace(ring, version=ring.version + 1, **changed)


def sighting(name="one", until=NOW + 100):
    return Sighting(
        replica=name, host="host", pid=1, version=1, seen_at=NOW, until=until, guard=935.0, since={"kid": 0.0}
    )


def test_an_empty_store_says_so_and_names_its_place(store):
    with pytest.raises(RingMissing) as told:
        store.load()
    assert store.place in str(told.value)
    assert store.sightings() == []


def test_what_one_handle_writes_another_reads(key_place, store, ring):
    assert key_place.open().load() == ring
    assert store.load() == ring
    assert store.load() is store.load()  # an unchanged ring is not opened twice


def test_no_private_half_lies_open_in_the_store(key_place, ring):
    for key in ring.keys:
        assert key.private not in key_place.raw()
        assert key.private[-20:].hex().encode() not in key_place.raw()


def test_only_the_next_version_of_what_is_there_is_written(key_place, store, ring):
    other = key_place.open()
    store.compare_and_swap(1, following(ring, longest_ttl=400.0))
    with pytest.raises(Conflict):
        other.compare_and_swap(1, following(ring, longest_ttl=500.0))
    with pytest.raises(Conflict):
        other.compare_and_swap(None, dataclasses.replace(ring, version=1))
    with pytest.raises(ValueError, match="grows by one"):
        other.compare_and_swap(2, dataclasses.replace(ring, version=9))
    assert other.load().longest_ttl == 400


def test_nothing_is_written_into_a_store_whose_ring_is_gone(key_place, store, ring):
    key_place.put(None)
    with pytest.raises(Conflict):
        store.compare_and_swap(1, following(ring))
    assert key_place.raw() is None


def test_another_secret_opens_nothing_and_writes_nothing(key_place, ring):
    stranger = key_place.open(OTHER)
    before = key_place.raw()
    with pytest.raises(StoreUnauthentic, match="not among those given"):
        stranger.load()
    with pytest.raises(StoreUnauthentic):
        stranger.compare_and_swap(1, following(ring))
    assert key_place.raw() == before


def test_a_ring_moves_to_another_seal_key_without_a_gap(key_place, ring):
    both = key_place.open([OTHER, SEAL])
    assert both.load() == ring
    moved = rotation.reseal(both)
    assert key_place.open(OTHER).load() == moved
    assert (moved.version, moved.keys) == (2, ring.keys)
    with pytest.raises(StoreUnauthentic):
        key_place.open(SEAL).load()


# Whoever can write to the store, but does not know the secret


def changed(data, change):
    body = json.loads(data)
    change(body)
    return json.dumps(body).encode()


@pytest.mark.usefixtures("ring")
def test_a_writer_can_neither_add_nor_alter_nor_drop_a_key(key_place, rotate):
    first = key_place.raw()
    rotate()
    second = key_place.raw()
    own = json.loads(second)["keys"][2]
    for forged in (
        changed(second, lambda body: body["keys"].pop()),
        changed(second, lambda body: body["keys"][1].update(retired_at=1.0, leaves_at=2.0)),
        changed(second, lambda body: body["keys"][0].update(leaves_at=9e9)),
        changed(first, lambda body: body["keys"].append(own)),
        changed(first, lambda body: body.update(version=3)),
        changed(second, lambda body: body.update(default="RS256")),
        b"{}",
        b"",
        b"x" * 3_000_000,
    ):
        key_place.put(forged)
        with pytest.raises(StoreUnauthentic):
            key_place.open().load()
        with pytest.raises(StoreUnauthentic):
            rotation.rotate(key_place.open(), lambda: NOW + 9e6, WANTED)
        assert key_place.raw() == forged  # nothing was written on top of it


def test_a_writer_cannot_take_a_revocation_back(key_place, store, ring, clock):
    revoked = rotation.revoke(store, clock, ring.keys[0].kid)
    body = json.loads(key_place.raw())
    assert body["keys"][0]["sealed"] is None  # the private half is gone for good
    body["keys"][0]["revoked_at"] = None
    key_place.put(json.dumps(body).encode())
    with pytest.raises(StoreUnauthentic):
        store.load()
    assert revoked.keys[0].private is None


def test_a_machine_that_has_seen_a_newer_ring_refuses_an_older_one_whoever_looks(key_place, ring, clock, rotate):
    """A rotation by hand on top of it would make it look new."""
    seen = key_place.witnessed()
    older = key_place.raw()
    rotate()
    seen.load()
    key_place.put(older)
    for machine in (seen, key_place.witnessed()):  # a process that has seen it, and one that starts now
        with pytest.raises(RolledBack, match="has seen version 2"):
            machine.load()
        clock.now += READY
        with pytest.raises(RolledBack):
            rotation.rotate(machine, clock, WANTED)
        with pytest.raises(RolledBack):
            Keyring(machine, SCHEDULE, clock)
    assert key_place.raw() == older
    assert key_place.witnessed("a machine that has seen nothing").load() == ring


@pytest.mark.usefixtures("ring")
def test_a_machine_that_has_seen_a_ring_takes_no_empty_store_for_a_new_one(key_place, clock):
    key_place.witnessed().load()
    key_place.put(None)
    with pytest.raises(RolledBack, match="though this machine has seen one"):
        rotation.create(key_place.witnessed(), clock, WANTED)
    assert key_place.raw() is None


@pytest.mark.usefixtures("ring")
def test_a_machine_notices_another_ring_of_the_version_that_it_has_seen(key_place, store, clock, rotate):
    older = key_place.raw()
    rotate()
    key_place.witnessed().load()
    key_place.put(older)
    rotation.rotate(store, clock, WANTED, force=True)  # by somebody who has seen nothing
    assert store.load().version == 2
    with pytest.raises(RolledBack, match="another ring of version 2"):
        key_place.witnessed().load()


def test_what_a_machine_has_seen_cannot_be_written_by_a_stranger(key_place, ring):
    key_place.witnessed().load()
    path = key_place.folder / "one" / "keyring.seen"
    assert path.stat().st_mode & 0o777 == 0o600
    body = json.loads(path.read_bytes())
    path.write_text(json.dumps({**body, "version": 0}))
    with pytest.raises(StoreUnauthentic, match="was not written with our seal keys"):
        key_place.witnessed().load()
    path.unlink()  # what an operator does who restores a backup
    assert key_place.witnessed().load() == ring


# Several at once


def test_twenty_processes_on_an_empty_store_make_one_ring(script):
    """Lesson R.1 (nanoidp #420: two keys in 12 of 12 runs)."""
    results = script(
        """
def work(_number):
    ring, made = rotation.create(store(), time.time, wanted())
    return made, ring.version, [key.kid for key in ring.keys]
print(json.dumps(children(20, work)))
"""
    )
    assert sorted(made for made, _, _ in results) == [False] * 19 + [True]
    assert len({json.dumps(rest) for _, *rest in results}) == 1


def test_of_operators_at_once_one_wins_and_the_others_are_told(script):
    results, version = script(
        """
start = time.time()
rotation.create(store(), lambda: start, wanted())
def work(_number):
    try:
        return rotation.rotate(store(), lambda: start + 50, wanted())[1]
    except GuardRefused as error:
        return error.seconds
print(json.dumps([children(6, work), store().load().version]))
"""
    )
    assert results.count(["ES256"]) == 1
    assert results.count(4.0) == 5
    assert version == 2


def test_a_writer_killed_at_random_moments_leaves_a_whole_ring(script):
    in_order, last = script(
        """
import random
start = time.time()
rotation.create(store(), lambda: start, wanted())
versions = [1]
for _ in range(12):
    pid = os.fork()
    if pid == 0:
        mine, ttl = store(), versions[-1] * 1000.0
        while True:
            ttl += 1
            rotation.prepare(mine, lambda: start, wanted(ttl))
    end = time.monotonic() + random.uniform(0.02, 0.06)
    reader = store()
    before = versions[-1]
    while time.monotonic() < end or versions[-1] == before:
        versions.append(reader.load().version)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    versions.append(reader.load().version)
print(json.dumps([versions == sorted(versions), versions[-1]]))
"""
    )
    assert in_order
    assert last > 5


# What replicas say


@pytest.mark.usefixtures("ring")
def test_what_a_replica_says_takes_the_place_of_what_it_said(key_place, store):
    store.report(sighting())
    store.report(sighting(until=NOW + 200))
    store.report(sighting("another"))
    found = {one.replica: one for one in key_place.open().sightings()}
    assert found == {"one": sighting(until=NOW + 200), "another": sighting("another")}
    store.forget("one")
    store.forget("nobody")
    assert [one.replica for one in store.sightings()] == ["another"]


@pytest.mark.usefixtures("ring")
def test_nobody_else_speaks_for_a_replica(key_place, store):
    store.report(sighting())
    (said,) = key_place.said().values()
    forged = changed(said, lambda body: body.update(until=0.0))
    for words in (forged, b"{}", b"[]", b"\xff", json.dumps({"mac": 5}).encode()):
        key_place.say("one", words)
        assert store.sightings() == []
    key_place.say("one", said)
    assert store.sightings() == [sighting()]


@pytest.mark.usefixtures("ring")
def test_what_a_replica_says_holds_a_rotation_back(store, clock):
    store.report(sighting(until=clock.now + 5000))  # it publishes other keys than these
    clock.now += READY
    with pytest.raises(GuardRefused) as refused:
        rotation.rotate(store, clock, WANTED)
    assert (refused.value.replica, round(refused.value.seconds)) == ("one", 5000 - 5)
    clock.now += 5000 - 5
    assert rotation.rotate(store, clock, WANTED)[1] == ("ES256",)


# Out of reach


def test_a_store_out_of_reach_is_not_taken_for_an_empty_one(key_place, store, ring):
    key_place.down()
    for use in (
        store.load,
        lambda: store.compare_and_swap(None, dataclasses.replace(ring, version=1)),
        lambda: store.report(sighting()),
    ):
        with pytest.raises(StoreUnavailable):
            use()


def test_a_full_redis_takes_a_ring_and_what_replicas_say(key_place, store, ring, clock):
    """Without them no key could be revoked, and the JWKS would end."""
    if key_place.server is None:
        return  # a full disk takes nothing
    key_place.client().config_set("maxmemory", 1)
    store.report(sighting())
    assert [one.replica for one in store.sightings()] == ["one"]
    rotation.revoke(store, clock, ring.keys[0].kid)
    assert store.load().version == 2


@pytest.mark.usefixtures("ring")
def test_a_revoked_key_cannot_be_imported_again(store, clock):
    pair = rotation.generate("ES256")
    rotation.import_key(store, clock, pair)
    rotation.revoke(store, clock, pair.kid)
    with pytest.raises(KeyUnfit, match="revoked"):
        rotation.import_key(store, clock, pair)


@pytest.mark.parametrize("key_place", ["redis", "valkey"], indirect=True)
def test_a_write_whose_answer_was_lost_is_done_once_and_known(key_place, ring):
    store = key_place.open(patience=60.0)
    store.load()
    key_place.proxy.lose(1)
    store.compare_and_swap(1, following(ring))
    assert key_place.open().load().version == 2
    with pytest.raises(Conflict):
        store.compare_and_swap(1, following(ring))


@pytest.mark.parametrize("key_place", ["redis", "valkey"], indirect=True)
@pytest.mark.usefixtures("ring")
def test_a_server_that_stalls_costs_a_bounded_time(key_place, store):
    key_place.proxy.mode = "stall"
    with pytest.raises(StoreUnavailable) as told:
        store.load()
    assert "password" not in str(told.value)
