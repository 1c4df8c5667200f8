"""The link to Redis, to real servers: bounded in time, careful whom it talks to, quick to say that it cannot."""

import shutil
import subprocess
import time
from threading import Thread

import pytest
import trustme
from forgetful import Forgetful
from harness import free_port, wait_for
from redis import Redis
from redis_servers import PASSWORD, Proxy, RedisServer

from sts.errors import StartError
from sts.options import Place
from sts.redis_link import PATIENT, Bounds, RedisLink, RedisSettings, RedisUnavailableError
from sts.redis_link.open_redis import MAX_IDLE, TRUSTED_FOR

GENEROUS_S = 15
"""What a server that is away may cost on the busiest machine, in seconds; the library's own patience has no end."""

SOON = Bounds(connect=10.0, answer=2.0)
"""For connections that are dead: a look at one takes half of an answer's time."""

PATIENT_HERE = Bounds(connect=60.0, answer=60.0)
"""For a server that answers, however busy the machine is."""


@pytest.fixture
def link(tmp_path):
    """Open links as a configuration would; they are closed in the end."""
    opened = []

    def connect(written, *bounds, **more):
        made = RedisLink(RedisSettings.model_validate(written, context=Place(tmp_path, {})), *bounds, **more)
        opened.append(made)
        return made

    yield connect
    for one in opened:
        one.close()


def ping(link):
    return link.run(lambda client: client.ping())


def unavailable(link, says=None):
    started = time.monotonic()
    with pytest.raises(RedisUnavailableError, match=says) as caught:
        ping(link)
    assert PASSWORD not in str(caught.value)
    return time.monotonic() - started


def test_a_server_with_a_password_is_used(link, redis_server):
    one = link(redis_server.settings)
    one.check()
    one.run(lambda client: client.set("a", b"\x00\xff"))
    assert one.run(lambda client: client.get("a")) == b"\x00\xff"
    assert one.trouble == ""


def test_a_link_that_is_closed_has_no_connection_left_whoever_still_holds_its_client(link, redis_server):
    one = link(redis_server.settings)
    held = one.run(lambda client: client)
    ping(one)
    admin = redis_server.client()
    assert len(admin.client_list()) == 2
    one.close()
    wait_for(lambda: len(admin.client_list()) == 1, 30)
    assert ping(one)  # a new one
    held.close()


def test_a_wrong_password_is_told_without_repeating_it(link, redis_server):
    wrong = link(redis_server.settings | {"password": "another-word-entirely"})
    with pytest.raises(RedisUnavailableError, match="refused the user or the password") as caught:
        ping(wrong)
    assert "another-word" not in str(caught.value)
    unavailable(link({"url": redis_server.settings["url"]}), "refused the user or the password")


def test_a_unix_socket_is_a_way_too(link, run_redis, tmp_path):
    run_redis("--unixsocket", str(tmp_path / "redis.sock"))
    assert ping(link({"url": f"unix://{tmp_path}/redis.sock", "password": PASSWORD}))


def test_a_user_of_its_own_with_few_rights_is_enough(link, redis_server):
    redis_server.client().acl_setuser("sts", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-config"])
    url = redis_server.settings["url"].replace("//", "//sts@")
    link({"url": url, "password": "pw"}).check()


def test_a_user_who_may_ask_for_no_policy_at_all_is_refused_with_what_to_allow(link, redis_server):
    commands = ["+@all", "-config", "-info"]
    redis_server.client().acl_setuser("sts", enabled=True, passwords=["+pw"], keys=["*"], commands=commands)
    url = redis_server.settings["url"].replace("//", "//sts@")
    with pytest.raises(StartError, match="allow one of them"):
        link({"url": url, "password": "pw"}).check()


@pytest.mark.parametrize("info_only", [False, True])
def test_a_server_that_evicts_is_refused_with_what_to_set(link, run_redis, info_only):
    server = run_redis("--maxmemory-policy", "allkeys-lru")
    written = dict(server.settings)
    if info_only:  # as at a provider that keeps CONFIG to itself
        commands = ["+@all", "-config"]
        server.client().acl_setuser("sts", enabled=True, passwords=["+pw"], keys=["*"], commands=commands)
        written = {"url": written["url"].replace("//", "//sts@"), "password": "pw"}
    with pytest.raises(StartError, match="set `maxmemory-policy noeviction`"):
        link(written).check()
    unavailable(link(written), "allkeys-lru")
    cache = link(written, keeps=False)
    cache.check()
    assert ping(cache)


def test_a_server_that_is_set_to_evict_later_is_refused_by_the_next_connection(link, redis_server):
    one = link(redis_server.settings)
    ping(one)
    admin = redis_server.client()
    admin.config_set("maxmemory-policy", "volatile-ttl")
    for client in admin.client_list():
        if client["id"] != str(admin.client_id()):
            admin.client_kill_filter(_id=client["id"])
    unavailable(one, "volatile-ttl")
    admin.config_set("maxmemory-policy", "noeviction")
    assert ping(one)


def test_tls_is_used_and_the_servers_certificate_judged(link, tls_server, redis_ca, tmp_path):
    server = tls_server
    assert ping(link(server.settings | {"ca_file": redis_ca[2]}, PATIENT))
    unavailable(link(server.settings, PATIENT), "self-signed certificate|unable to get local issuer")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    unavailable(
        link(server.settings | {"ca_file": "other.pem"}, PATIENT), "self-signed certificate|unable to get local issuer"
    )


def test_tls_asks_for_the_name_that_was_configured(link, tls_server, redis_ca):
    server = tls_server
    other = server.settings["url"].replace("127.0.0.1", "localhost")
    unavailable(link(server.settings | {"url": other, "ca_file": redis_ca[2]}, PATIENT), "Hostname mismatch")


def test_a_server_without_tls_is_not_taken_for_one_with(link, redis_server, redis_ca):
    url = redis_server.settings["url"].replace("redis://", "rediss://")
    assert unavailable(link(redis_server.settings | {"url": url, "ca_file": redis_ca[2]})) < GENEROUS_S


def test_a_server_that_is_down_is_told_at_once_and_found_again_when_it_is_back(link, redis_server):
    one = link(redis_server.settings)
    ping(one)
    redis_server.stop()
    assert unavailable(one, "cannot be reached|connection was lost") < GENEROUS_S
    assert one.trouble
    redis_server.start()
    wait_for(lambda: _works(one))
    assert one.trouble == ""


def _works(link):
    try:
        return ping(link)
    except RedisUnavailableError:
        return False


def test_a_restart_between_two_commands_is_not_noticed(link, redis_server):
    one = link(redis_server.settings)
    ping(one)
    redis_server.stop()
    redis_server.start()
    assert ping(one)


def test_a_server_that_stalls_costs_a_few_requests_a_quarter_of_a_second_and_the_others_nothing(link, proxied):
    proxy, written = proxied
    one = link(written)
    ping(one)
    proxy.mode = "stall"
    for _ in range(3):
        assert 0.15 < unavailable(one, "did not answer in time") < GENEROUS_S
    taken = proxy.taken
    began = time.monotonic()
    assert min(unavailable(one, "did not answer in time") for _ in range(100)) < 0.15  # who asks waits longer
    pauses_over = (time.monotonic() - began) / 0.5
    assert proxy.taken - taken <= 1 + pauses_over  # the breaker is open: nobody asks, but one now and then
    proxy.mode = "pass"
    wait_for(lambda: _works(one))


def test_many_threads_at_a_stalling_server_are_all_free_within_the_bound(link, proxied):
    proxy, written = proxied
    one = link(written)
    proxy.mode = "stall"
    threads = [Thread(target=unavailable, args=[one]) for _ in range(32)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 32 * 0.25 - 1  # one after the other it would be more


def test_nothing_is_sent_twice_unless_that_is_allowed(link, proxied, redis_server):
    proxy, written = proxied
    one = link(written, PATIENT_HERE)
    ping(one)
    proxy.lose(1)
    with pytest.raises(RedisUnavailableError, match="connection was lost"):
        one.run(lambda client: client.incr("count"))
    assert redis_server.client().get("count") == "1"
    ping(one)
    proxy.lose(1)
    assert one.run(lambda client: client.incr("count"), again=True) == 3
    assert redis_server.client().get("count") == "3"


def test_an_error_of_a_command_is_told_by_its_class_and_turns_nobody_away(link, redis_server):
    one = link(redis_server.settings)
    for _ in range(5):
        with pytest.raises(RedisUnavailableError, match="answered with an error") as caught:
            one.run(lambda client: client.execute_command("NOSUCH", "a-secret-value"))
        assert "a-secret-value" not in str(caught.value)
    assert ping(one)


def test_a_server_whose_memory_is_full_says_so(link, run_redis):
    server = run_redis("--maxmemory", "1kb")
    with pytest.raises(RedisUnavailableError, match="memory is full"):
        link(server.settings).run(lambda client: client.set("a", b"x" * 4096))


def test_a_cluster_is_used(link, run_redis):
    node = run_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.client().execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    wait_for(lambda: "cluster_state:ok" in _cluster_info(node))
    one = link(
        {"mode": "cluster", "nodes": [f"127.0.0.1:{node.port}"], "url": "redis://127.0.0.1", "password": PASSWORD}
    )
    one.check()
    one.run(lambda client: client.set("a", "b"))
    assert one.run(lambda client: client.get("a")) == b"b"
    node.stop()
    assert unavailable(one) < GENEROUS_S


def _cluster_info(node):
    with node.client() as client:
        client.set_response_callback("CLUSTER INFO", str)
        return client.execute_command("CLUSTER INFO")


def test_a_cluster_whose_nodes_evict_is_refused(link, run_redis):
    node = run_redis(
        "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--maxmemory-policy", "allkeys-random"
    )
    node.client().execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    wait_for(lambda: "cluster_state:ok" in _cluster_info(node))
    written = {"mode": "cluster", "nodes": [f"127.0.0.1:{node.port}"], "url": "redis://127.0.0.1"}
    unavailable(link(written | {"password": PASSWORD}))


def _replicas_known(sentinel_port):
    with Redis(port=sentinel_port, decode_responses=True) as client:
        return client.sentinel_master("main")["num-slaves"]


def test_sentinels_lead_to_the_primary_and_after_a_failover_to_the_new_one(link, sentinel):
    port, primary, replica = sentinel
    nodes = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{port}"]
    written = {"mode": "sentinel", "master": "main", "nodes": nodes, "url": "redis://127.0.0.1/0"}
    one = link(written | {"password": PASSWORD})
    wait_for(lambda: _works(one))
    one.run(lambda client: client.set("a", "b"))
    wait_for(lambda: replica.client().get("a") == "b")
    wait_for(lambda: _replicas_known(port) == 1)
    primary.stop()
    wait_for(lambda: _works(one))
    assert one.run(lambda client: client.set("a", "c"))
    assert replica.client().info("replication")["role"] == "master"


def test_sentinels_that_do_not_know_the_name_are_told(link, sentinel):
    port, *_ = sentinel
    written = {"mode": "sentinel", "master": "other", "nodes": [f"127.0.0.1:{port}"], "url": "redis://127.0.0.1/0"}
    one = link(written | {"password": PASSWORD})
    wait_for(lambda: not _works(one))
    unavailable(one, "no Sentinel has")


def test_without_tls_no_sentinel_leads_to_another_machine(link, redis_kind, tmp_path):
    server = RedisServer(redis_kind, tmp_path / "fake", password=None)
    conf = tmp_path / "fake.conf"
    conf.write_text(f"port {server.port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 192.0.2.1 6379 1\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([server.program, str(conf), "--sentinel"], stdout=log, stderr=log)
    try:
        wait_for(server._up)
        written = {"mode": "sentinel", "master": "main", "nodes": [f"127.0.0.1:{server.port}"]}
        unavailable(link(written | {"url": "redis://127.0.0.1/0"}), "refers to another machine")
    finally:
        process.kill()
        process.wait()


def test_a_proxy_that_hangs_up_at_once_is_told(link, redis_server):
    proxy = Proxy(redis_server.port)
    proxy.mode = "refuse"
    written = redis_server.settings | {"url": f"redis://127.0.0.1:{proxy.port}/0"}
    assert unavailable(link(written)) < GENEROUS_S
    proxy.close()


@pytest.fixture
def balancer(redis_server):
    """A load balancer before the server that forgets connections without a word."""
    made = Forgetful(redis_server.port)
    yield made
    made.close()


def kept(link, count):
    """The connections of a pool that has `count` of them, used long enough ago that they are looked at."""
    link.run(lambda client: client.ping())
    pool = link._client.connection_pool
    taken = [pool.get_connection() for _ in range(count)]
    for connection in taken:
        pool.release(connection)
        connection._used_at -= TRUSTED_FOR
    return taken


def test_forgotten_connections_cost_no_command_and_a_write_is_sent_once(link, redis_server, balancer):
    found = link({**redis_server.settings, "url": f"redis://127.0.0.1:{balancer.port}"}, SOON, keeps=False)
    kept(found, 6)
    balancer.forget()
    before = balancer.connections
    assert [found.run(lambda client: client.incr("n")) for _ in range(20)] == list(range(1, 21))
    assert found.trouble == ""
    assert found._breaker.failures == 0
    assert balancer.connections == before + 1


def test_all_that_are_no_younger_than_a_dead_connection_are_opened_anew_without_a_look(link, redis_server, balancer):
    found = link({**redis_server.settings, "url": f"redis://127.0.0.1:{balancer.port}"}, SOON, keeps=False)
    dead, *others = kept(found, 6)
    dead._used_at = max(connection._used_at for connection in others)
    balancer.forget()
    assert not dead._is_alive()
    balancer.close()  # a look would fail, too, but another way
    assert not any(connection._is_alive() for connection in others)
    assert dead.dead_until == dead._used_at


def test_a_connection_that_has_been_idle_for_too_long_is_opened_anew(link, redis_server, balancer):
    found = link({**redis_server.settings, "url": f"redis://127.0.0.1:{balancer.port}"}, SOON, keeps=False)
    found.run(lambda client: client.ping())
    (connection,) = found._client.connection_pool._available_connections
    connection._used_at -= MAX_IDLE
    before = balancer.connections
    found.run(lambda client: client.ping())
    assert balancer.connections == before + 1


def test_a_server_that_cannot_save_to_its_disk_says_so_and_is_read(link, redis_server):
    admin = redis_server.client()
    admin.set("a", "1")
    admin.config_set("save", "3600 1")
    shutil.rmtree(redis_server.folder)
    admin.bgsave()
    wait_for(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
    one = link(redis_server.settings)
    with pytest.raises(RedisUnavailableError, match="takes no writes"):
        one.run(lambda client: client.set("a", "2"))
    assert one.run(lambda client: client.get("a")) == b"1"
