"""Two services over one Redis that poll seldom: what operators do to the keys is felt by each worker all the same."""

import json
import subprocess
import sys

import jwt
import pytest
from harness import Service, minimal, wait_for
from redis import Redis
from redis_servers import PASSWORD

POLL_S = 600


@pytest.fixture
def services(redis_server, tmp_path, idp, configured):
    (tmp_path / "secret").write_text("0b" * 32)
    changes = {
        "workers": 2,
        "keys": {"store": "redis", "poll": f"{POLL_S}s"},
        "secret": {"file": str(tmp_path / "secret")},
        "redis": redis_server.settings,
        "state": {"store": "redis"},
    }
    running = [Service(tmp_path / name, configured(minimal(idp), changes), ready=False) for name in ("one", "two")]
    try:
        for service in running:
            wait_for(service.is_ready, 60)
        yield running
    finally:
        assert [service.stop() for service in running] == [0, 0], [service.log() for service in running]


def keys(service, *arguments):
    command = [sys.executable, "-m", "sts", "keys", *arguments, "--json", "-c", str(service.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def versions(service):
    return {one["version"] for one in keys(service, "list")["replicas"]}


def test_a_stolen_key_is_gone_from_every_worker_long_before_the_next_poll(services, redis_server, idp):
    """RO-06."""
    admin = Redis(port=redis_server.port, password=PASSWORD)
    wait_for(lambda: admin.pubsub_numsub("{sts:keys}:changed")[0][1] == 4, 60)
    inbound = idp.token()
    stolen = {jwt.get_unverified_header(service.exchange(inbound).token)["kid"] for service in services}
    (kid,) = stolen
    admin.client_kill_filter(_type="pubsub")
    wait_for(lambda: admin.pubsub_numsub("{sts:keys}:changed")[0][1] == 4, 60)
    told = keys(services[0], "revoke", kid, "--yes")
    assert told["out_of_sight"] == []  # each of the four has said so itself
    for service in services:
        for _ in range(8):
            assert jwt.get_unverified_header(service.exchange(inbound).token)["kid"] != kid
            assert kid not in {key["kid"] for key in service.jwks()["keys"]}
        assert "seen at the next poll only" not in service.log()
    assert versions(services[1]) == {told["version"]}
