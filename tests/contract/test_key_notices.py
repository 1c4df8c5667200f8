"""What a replica hears of the ring in Redis or Valkey before its next poll, and what it does where it hears nothing.

The polls here are an hour apart, unless a test is about them: whatever is seen sooner was heard.
"""

import dataclasses
import threading
import time

import pytest
from harness import wait_for
from key_stores import SEAL
from redis.exceptions import NoPermissionError

from keys import poller, rotation, store_redis
from keys.keyring import Keyring
from keys.lifecycle import Schedule
from keys.seal import Sealer
from keys.store_redis import RedisStore, over
from keys.transitions import Wanted

SCHEDULE = Schedule(
    rotate_every=86400.0, jwks_max_age=1.0, verifier_refresh=1.0, clock_skew=1.0, poll=3600.0, store_grace=7200.0
)
WANTED = Wanted(SCHEDULE, 300.0, ("ES256",))
CHANNEL = "{sts:keys}:changed"

pytestmark = pytest.mark.parametrize("key_place", ["redis", "valkey"], indirect=True)


@pytest.fixture
def admin(key_place):
    return key_place.client(decode_responses=True)


@pytest.fixture
def ring(key_place):
    return rotation.create(key_place.open(), time.time, WANTED)[0]


@pytest.fixture
def replica(key_place, ring):  # noqa: ARG001 - there is one before a replica starts
    """Start a replica; the fixture's end stops them all. What it had to say of its ears is in `deaf`."""
    running = []

    def start(store=None, schedule=SCHEDULE):
        deaf = []
        keyring = Keyring(store or key_place.open(), schedule, time.time, on_deaf=deaf.append)
        keyring.deaf = deaf
        keyring.start()
        running.append(keyring)
        return keyring

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def revoke(key_place):
    """Revoke what signs; the version of the ring then."""
    store = key_place.open()
    return lambda: rotation.revoke(store, time.time, store.load().signing("ES256").kid).version


def listeners(admin):
    return int(admin.pubsub_numsub(CHANNEL)[0][1])


def version(keyring):
    return keyring.status(time.time()).version


def seen(keyring, expected):
    wait_for(lambda: version(keyring) == expected)


def looks(admin):
    """How often the ring was read so far."""
    return admin.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]


def test_every_replica_sees_a_revocation_long_before_its_poll(replica, admin, revoke):
    replicas = [replica(), replica()]
    wait_for(lambda: listeners(admin) == 2)
    later = revoke()
    wait_for(lambda: [version(one) for one in replicas] == [later, later])
    assert [one.deaf for one in replicas] == [[], []]


def test_a_subscription_that_is_killed_comes_back_and_what_was_written_meanwhile_is_seen(replica, admin, revoke):
    one = replica()
    for _ in range(2):
        wait_for(lambda: listeners(admin) == 1)
        assert admin.client_kill_filter(_type="pubsub") == 1
        seen(one, revoke())
    wait_for(lambda: listeners(admin) == 1)
    seen(one, revoke())
    assert one.deaf == []  # not worth a word


def test_a_connection_that_died_without_a_word_is_noticed(key_place, replica, admin, ring, monkeypatch):
    monkeypatch.setattr(store_redis, "_SILENCE_S", 0.5)
    monkeypatch.setattr(store_redis, "_ANSWER_S", 4.0)
    one = replica()
    wait_for(lambda: listeners(admin) == 1)
    wait_for(lambda: [client["cmd"] for client in admin.client_list(_type="pubsub")] == ["ping"])  # it is asked
    key_place.proxy.mode = "stall"
    past_the_proxy = RedisStore(over(key_place.client()), Sealer([SEAL]))
    later = rotation.revoke(past_the_proxy, time.time, ring.keys[0].kid).version
    wait_for(lambda: one.deaf)
    key_place.proxy.cut()
    key_place.proxy.mode = "pass"
    wait_for(lambda: version(one) == later)
    assert len(one.deaf) == 1  # told once


def test_a_server_that_restarts_is_listened_to_again(key_place, replica, admin, revoke):
    one = replica()
    wait_for(lambda: listeners(admin) == 1)
    held = key_place.raw()
    key_place.server.stop()
    wait_for(lambda: one.deaf)
    key_place.server.start()
    key_place.put(held)
    wait_for(lambda: listeners(admin) == 1)
    seen(one, revoke())


def test_a_flood_of_notices_is_no_flood_of_looks_and_hides_no_change(key_place, replica, admin, revoke):
    one = replica()
    wait_for(lambda: listeners(admin) == 1)
    flooding = threading.Event()
    sent = []

    def flood():
        client = key_place.client()
        while not flooding.is_set():
            pipe = client.pipeline(transaction=False)
            for _ in range(200):
                pipe.publish(CHANNEL, b"x" * 100)
            sent.append(len(pipe.execute()))

    thread = threading.Thread(target=flood)
    before, began = looks(admin), time.monotonic()
    thread.start()
    try:
        time.sleep(4)
        seen(one, revoke())
    finally:
        flooding.set()
        thread.join()
    assert sum(sent) > 2000
    assert looks(admin) - before <= time.monotonic() - began + 6  # one a second, and those of the writer


def test_a_notice_carries_nothing_and_is_believed_nothing(replica, admin, ring):
    one = replica()
    wait_for(lambda: listeners(admin) == 1)
    before = looks(admin)
    admin.publish(CHANNEL, '{"version": 99, "keys": []}')
    wait_for(lambda: looks(admin) > before)
    assert (version(one), one.status(time.time()).fault) == (1, "")
    heard = []
    with admin.pubsub() as stranger:
        stranger.subscribe(CHANNEL)
        wait_for(lambda: stranger.get_message(timeout=1))
        rotation.revoke(one._store, time.time, ring.keys[0].kid)
        wait_for(lambda: heard.append(stranger.get_message(timeout=1)) or heard[-1])
    assert heard[-1]["data"] == ""


def as_user(key_place, admin, **rights):
    """The store as a user of its own opens it."""
    admin.acl_setuser("sts", enabled=True, passwords=["+pw"], keys=["{sts:*", "sts:*"], **rights)
    client = key_place.client(username="sts", password="pw")
    return RedisStore(over(client), Sealer([SEAL])), client


@pytest.mark.parametrize("rights", [{"commands": ["+@all", "-subscribe"]}, {"commands": ["+@all"], "channels": []}])
def test_a_user_who_may_not_subscribe_polls_and_it_is_said_once(key_place, replica, admin, revoke, monkeypatch, rights):
    monkeypatch.setattr(poller, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(poller, "_LONGEST_PAUSE_S", 0.1)
    store, client = as_user(key_place, admin, **rights)
    subscription = client.pubsub()
    subscription.subscribe(CHANNEL)
    with pytest.raises(NoPermissionError):
        subscription.get_message(timeout=60)
    subscription.close()
    one = replica(store, dataclasses.replace(SCHEDULE, poll=0.3))
    wait_for(lambda: one.deaf)
    for _ in range(2):
        seen(one, revoke())
    time.sleep(1)  # it goes on trying
    assert len(one.deaf) == 1
    assert one.deaf[0].startswith(f"SUBSCRIBE {CHANNEL} failed: ")
    assert "NoPermission" in one.deaf[0]
    admin.acl_setuser("sts", enabled=True, commands=["+subscribe"], channels=["*"])
    wait_for(lambda: listeners(admin) == 1, 30)  # and needs no restart


def test_a_user_who_may_not_publish_writes_all_the_same(key_place, admin, ring):
    store, client = as_user(key_place, admin, commands=["+@all"], channels=[])
    with pytest.raises(NoPermissionError):
        client.publish(CHANNEL, "")
    later = rotation.revoke(store, time.time, ring.keys[0].kid)
    assert key_place.open().load() == later


def test_a_replica_that_stops_has_two_threads_fewer_and_no_connection(replica, admin):
    before = set(threading.enumerate())
    one = replica()
    wait_for(lambda: listeners(admin) == 1)
    started = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("keys-")}
    assert {thread.name for thread in started} == {"keys-poller", "keys-listener"}
    one.stop()
    assert not any(thread.is_alive() for thread in started)
    wait_for(lambda: listeners(admin) == 0)
