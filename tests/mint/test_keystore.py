import contextlib
import dataclasses

import pytest
from harness import free_port, wait_for
from redis import Redis

from keys import rotation
from keys.errors import RingMissing, RolledBack, StoreUnauthentic, StoreUnavailable
from keys.keyring import Keyring
from keys.transitions import Wanted
from sts import labels
from sts.errors import StartError
from sts.labels import DeploymentSecret
from sts.mint.keystore import open_secret, open_store, prepare
from sts.mint.settings import KeysSettings
from sts.options import Place
from sts.redis_link import RedisSettings

GIVEN = DeploymentSecret.parse("00" * 31 + "01")
OTHER = DeploymentSecret.parse("00" * 31 + "02")
NOW = 1_800_000_000.0
KEYS = KeysSettings()


@pytest.fixture
def var(tmp_path):
    return tmp_path / "var"


@pytest.fixture
def make(var):
    return lambda given=None, ttl=300.0: prepare(
        KEYS, var, given, lambda: NOW, Wanted(KEYS.schedule(), ttl, ("ES256",))
    )


def names(var):
    return sorted(each.name for each in var.iterdir())


def test_the_first_start_makes_secret_and_ring(make, var):
    secret, store, ring, made = make()
    assert made
    assert names(var) == ["keyring.json", "keyring.json.lock", "keyring.seen", "secret"]
    assert store.load() == ring
    assert store.place == str(var / "keyring.json")
    assert open_secret(None, var).key("x") == secret.key("x")


def test_a_second_start_makes_nothing(make):
    first = make()
    again = make()
    assert (again[2], again[3]) == (first[2], False)


def test_a_given_secret_is_used_and_none_is_made(make, var):
    secret, _, ring, _ = make(GIVEN)
    assert "secret" not in names(var)
    assert open_store(KEYS, var, secret).load() == ring
    assert open_secret(GIVEN, var).key("x") == secret.key("x")


def test_a_ring_whose_secret_is_gone_is_a_fault_and_never_gets_a_new_one(make, var):
    make()
    (var / "secret").unlink()
    for use in (make, lambda: open_secret(None, var)):  # commands that only look say the same
        with pytest.raises(StartError, match=f"{var}/secret is missing"):
            use()
    assert "secret" not in names(var)


def test_a_ring_of_another_secret_is_a_fault_and_is_left_alone(make, var):
    make(GIVEN)
    before = (var / "keyring.json").read_bytes()
    with pytest.raises(StoreUnauthentic, match="not among those given"):
        make(OTHER)
    assert (var / "keyring.json").read_bytes() == before


def test_the_seal_key_is_one_use_of_the_secret_and_not_the_secret_itself(make, var):
    secret, _, ring, _ = make()
    other = labels.DeploymentSecret(secret.key("keys seal"))  # knows the seal key, not the secret
    with pytest.raises(StoreUnauthentic):
        open_store(KEYS, var, other).load()
    assert open_store(KEYS, var, secret).load() == ring


def test_opening_makes_nothing(var):
    with pytest.raises(StartError, match=f"no deployment secret at {var}/secret"):
        open_secret(None, var)
    with pytest.raises(RingMissing, match=str(var / "keyring.json")):
        open_store(KEYS, var, open_secret(GIVEN, var)).load()
    assert not var.exists()


def test_the_ring_learns_a_longer_ttl_at_the_next_start_and_forgets_none(make):
    make(ttl=300.0)
    _, store, ring, _ = make(ttl=900.0)
    assert (ring.longest_ttl, ring.version) == (900, 2)
    assert make(ttl=60.0)[2] == ring == store.load()


def test_a_place_that_cannot_be_used_is_a_start_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError):
        prepare(KEYS, tmp_path / "file" / "var", None, lambda: NOW, 300.0)


def test_in_redis_there_is_one_ring_for_all_machines_and_each_remembers_what_it_saw(redis_server, tmp_path):
    redis = RedisSettings.model_validate(redis_server.settings, context=Place(tmp_path, {}))
    keys = KeysSettings(store="redis")
    wanted = Wanted(keys.schedule(), 300.0, ("ES256",))
    made = []
    for machine in ("one", "two"):
        secret, store, ring, fresh = prepare(keys, tmp_path / machine, GIVEN, lambda: NOW, wanted, redis)
        made.append(fresh)
        assert names(tmp_path / machine) == ["keyring.seen"]
        assert store.place == f"{redis.url} (sts:keys)"
        store.close()
        assert store.load() == ring  # a new connection
    assert made == [True, False]
    redis_server.client().flushall()
    with pytest.raises(RolledBack, match="this machine has seen one"):
        prepare(keys, tmp_path / "one", GIVEN, lambda: NOW, wanted, redis)
    redis_server.stop()
    with pytest.raises(StoreUnavailable, match="cannot be reached") as told:
        open_store(keys, tmp_path / "three", secret, redis).load()
    assert redis_server.password not in str(told.value)


def test_a_ring_in_redis_needs_a_server(tmp_path):
    with pytest.raises(StartError, match="needs the section `redis`"):
        open_store(KeysSettings(store="redis"), tmp_path, GIVEN)


def test_a_cluster_keeps_the_ring_too(run_redis, tmp_path):
    node = run_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_for(lambda: "cluster_state:ok" in str(node.client().execute_command("CLUSTER", "INFO")).replace("'", ""))
    written = {"mode": "cluster", "nodes": [f"127.0.0.1:{node.port}"], "url": "redis://127.0.0.1"}
    redis = RedisSettings.model_validate({**written, "password": node.password}, context=Place(tmp_path, {}))
    keys = KeysSettings(store="redis")
    wanted = Wanted(keys.schedule(), 300.0, ("ES256",))
    _, store, ring, _ = prepare(keys, tmp_path / "one", GIVEN, lambda: NOW, wanted, redis)
    keyring = Keyring(store, dataclasses.replace(keys.schedule(), poll=3600.0), lambda: NOW)
    assert [one.version for one in store.sightings()] == [1]
    keyring.start()
    wait_for(lambda: node.client().pubsub_numsub("{sts:keys}:changed")[0][1] == 1)
    later, _ = rotation.rotate(store, lambda: NOW + 935 + 3600, wanted)
    wait_for(lambda: keyring.status(NOW).version == later.version, 30)  # it was told
    keyring.stop()
    assert (store.load(), later.keys[0].kid) == (later, ring.keys[0].kid)
    store.close()


def test_a_replica_hears_of_the_ring_behind_sentinels_and_after_a_failover_too(sentinel, tmp_path):
    port, primary, second = sentinel
    written = {"mode": "sentinel", "master": "main", "nodes": [f"127.0.0.1:{port}"], "url": "redis://127.0.0.1/0"}
    redis = RedisSettings.model_validate({**written, "password": primary.password}, context=Place(tmp_path, {}))
    keys = KeysSettings(store="redis")
    wanted = Wanted(keys.schedule(), 300.0, ("ES256",))

    def subscribed(server):
        return server.client().pubsub_numsub("{sts:keys}:changed")[0][1] == 1

    def done(write):
        def attempt():
            with contextlib.suppress(StoreUnavailable):  # the Sentinel looks for its primary
                return write()

        return wait_for(attempt)

    store = open_store(keys, tmp_path / "one", GIVEN, redis)
    ring = done(lambda: rotation.create(store, lambda: NOW, wanted)[0])
    keyring = Keyring(store, dataclasses.replace(keys.schedule(), poll=3600.0), lambda: NOW)
    keyring.start()
    wait_for(lambda: subscribed(primary))
    later = done(lambda: rotation.revoke(store, lambda: NOW, ring.keys[0].kid))
    wait_for(lambda: keyring.status(NOW).version == later.version)
    wait_for(lambda: second.client().get("{sts:keys}:ring") == primary.client().get("{sts:keys}:ring"))
    wait_for(lambda: Redis(port=port).sentinel_slaves("main"))
    primary.stop()
    wait_for(lambda: subscribed(second), 90)
    last = done(lambda: rotation.revoke(store, lambda: NOW, later.signing("ES256").kid))
    wait_for(lambda: keyring.status(NOW).version == last.version)
    keyring.stop()
    store.close()


def test_a_replica_hears_of_the_ring_through_tls(tls_server, redis_ca, tmp_path):
    written = {**tls_server.settings, "ca_file": redis_ca[2]}
    redis = RedisSettings.model_validate(written, context=Place(tmp_path, {}))
    keys = KeysSettings(store="redis")
    wanted = Wanted(keys.schedule(), 300.0, ("ES256",))
    _, store, ring, _ = prepare(keys, tmp_path / "one", GIVEN, lambda: NOW, wanted, redis)
    deaf = []
    keyring = Keyring(store, dataclasses.replace(keys.schedule(), poll=3600.0), lambda: NOW, on_deaf=deaf.append)
    keyring.start()
    writer = open_store(keys, tmp_path / "two", GIVEN, redis)
    for _ in range(3):
        later = rotation.revoke(writer, lambda: NOW, writer.load().signing("ES256").kid)
        wait_for(lambda version=later.version: keyring.status(NOW).version == version)
    keyring.stop()
    assert deaf == []
    assert ring.version == 1
    for one in (store, writer):
        one.close()
