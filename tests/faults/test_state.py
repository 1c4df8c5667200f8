"""The state's store in trouble under a running service: full, emptied. What only reads goes on."""

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time

import pytest
import yaml
from harness import GRANT, ISSUER, JWT, Key, Service, minimal, wait_for
from redis_servers import RedisServer

from scripts import servers

DEPLOYMENT_SECRET = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def key():
    return Key("caller-1", "ES256")


@pytest.fixture
def configured(idp):
    """The small configuration with one worker, and a client whose every call needs a mark in the state."""

    def configured(**more):
        document = yaml.safe_load(minimal(idp))
        document["clients"]["signing"] = {
            "auth": "private_key_jwt",
            "jwks_file": "caller.jwks.json",
            "audiences": ["orders"],
        }
        return json.dumps({**document, "workers": 1, **more})

    return configured


@pytest.fixture
def start(tmp_path, key):
    def start(configuration, **more):
        folder = tmp_path / "service"
        folder.mkdir(exist_ok=True)
        (folder / "caller.jwks.json").write_text(json.dumps({"keys": [key.jwk]}))
        made.append(Service(folder, configuration, **more))
        return made[-1]

    made = []
    yield start
    for running in made:
        running.stop()


@pytest.fixture
def sign(key):
    """A request form with an assertion of its own, which only a mark lets pass once."""

    def sign(token):
        now = int(time.time())
        claims = {"iss": "signing", "sub": "signing", "aud": ISSUER, "iat": now, "exp": now + 60}
        return {
            "grant_type": GRANT,
            "subject_token": token,
            "subject_token_type": JWT,
            "audience": "orders",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": key.sign({**claims, "jti": secrets.token_hex(8)}),
        }

    return sign


def signed(service, form):
    body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    return service.request("POST", "/token", {"Content-Type": "application/x-www-form-urlencoded"}, body)


def told(service):
    return service.get("/readyz").json


def seen_since(service, started):
    """Whether the service has looked at the state, and found it good, since `started` (steady seconds)."""
    found = told(service)["revocations"]
    return not found["trouble"] and found["age_s"] is not None and found["age_s"] < time.monotonic() - started - 1


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own of two megabytes, which a test may fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_on_a_full_disk_everything_that_only_reads_goes_on(configured, start, idp, sign, small_disk):
    service = start(configured(var=str(small_disk / "var"), keys={"poll": "1s"}))
    token = idp.token()
    assert signed(service, sign(token)).status == 200
    fill(small_disk)
    filled = time.monotonic()
    refused = wait_for(lambda: _refused(service, sign, token))
    assert refused.reason == "state_unavailable"
    wait_for(lambda: seen_since(service, filled))
    wait_for(lambda: "No space left" in told(service)["ring_fault"])
    assert service.exchange(idp.token(jti="new")).status == 200
    assert service.get("/readyz").status == 200
    assert "its disk is full" in told(service)["degraded"]["once-only marks"]
    (worker,) = service.workers()
    os.kill(worker, 9)  # a worker that ends is replaced on a full disk too
    wait_for(lambda: service.workers() - {worker} and service.is_complete())
    service.verified(service.exchange(idp.token(jti="newer")).token)
    (small_disk / "filling").unlink()
    wait_for(lambda: signed(service, sign(token)).status == 200)
    wait_for(lambda: not told(service)["ring_fault"])
    assert "once-only marks" not in told(service)["degraded"]


def _refused(service, sign, token):
    """An answer to a call that needed a mark and got none; the last free page may take a few."""
    answer = signed(service, sign(token))
    return answer if answer.status != 200 else None


def test_on_a_full_redis_everything_that_only_reads_goes_on(configured, start, idp, sign, tmp_path):
    if servers.find(servers.REDIS) is None:
        pytest.skip("there is no redis-server on this machine")
    server = RedisServer("redis", tmp_path / "redis").start()
    try:
        redis = {**server.settings, "password": {"env": "REDIS_PASSWORD"}}
        stores = {"state": {"store": "redis"}, "keys": {"store": "redis", "poll": "1s"}, "secret": {"env": "SECRET"}}
        environment = {"REDIS_PASSWORD": server.password, "SECRET": DEPLOYMENT_SECRET}
        service = start(configured(redis=redis, **stores), environment=environment)
        token = idp.token()
        assert signed(service, sign(token)).status == 200
        server.client().config_set("maxmemory", 1)
        filled = time.monotonic()
        refused = signed(service, sign(token))
        assert (refused.status, refused.reason) == (503, "state_unavailable")
        wait_for(lambda: seen_since(service, filled))
        assert "its memory is full" in told(service)["degraded"]["once-only marks"]
        assert told(service)["ring_fault"] == ""
        assert service.exchange(idp.token(jti="new")).status == 200
        revoke = [sys.executable, "-m", "sts", "revoke", "--subject", "alice", "-c", str(service.file)]
        done = subprocess.run(revoke, env={**os.environ, **environment}, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: service.exchange(token).status == 400)
        server.client().config_set("maxmemory", 0)
        wait_for(lambda: signed(service, sign(idp.token(sub="bob"))).status == 200)
    finally:
        server.stop()


@pytest.mark.parametrize("accident", ["emptied", "restarted without persistence"])
def test_an_emptied_redis_is_an_outage_until_an_operator_accepts_it(configured, start, idp, sign, tmp_path, accident):
    if servers.find(servers.REDIS) is None:
        pytest.skip("there is no redis-server on this machine")
    server = RedisServer("redis", tmp_path / "redis").start()
    try:
        redis = {**server.settings, "password": {"env": "REDIS_PASSWORD"}}
        environment = {"REDIS_PASSWORD": server.password, "SECRET": DEPLOYMENT_SECRET}
        written = configured(redis=redis, state={"store": "redis"}, secret={"env": "SECRET"})
        service = start(written, environment=environment)
        token = idp.token()
        assert signed(service, sign(token)).status == 200
        if accident == "emptied":
            server.client().flushall()
        else:
            server.stop()
            server.start()
        wait_for(lambda: "emptied" in told(service)["degraded"].get("state", ""))
        assert b"sts_state_lost 1.0" in service.get("/metrics").body
        assert "sts state accept" in service.log()
        refused = wait_for(lambda: _refused(service, sign, token))
        assert (refused.status, refused.reason) == (503, "state_unavailable")
        assert service.exchange(token).status == 200  # by the list as it was last seen, until `max_stale`
        service.stop()
        service = start(written, environment=environment, ready=False)  # nothing was seen since the start
        wait_for(lambda: service.process.poll() is None and _asked(service))
        assert service.get("/readyz").status == 503
        assert service.exchange(token).reason == "state_unavailable"
        command = [sys.executable, "-m", "sts", "state", "accept", "--yes", "-c", str(service.file)]
        done = subprocess.run(command, env={**os.environ, **environment}, check=False, capture_output=True, text=True)
        assert (done.returncode, "emptied" in done.stdout) == (0, True), done.stderr
        wait_for(lambda: service.get("/readyz").status == 200)
        assert signed(service, sign(token)).status == 200
        assert "state" not in told(service)["degraded"]
    finally:
        server.stop()


def _asked(service):
    with contextlib.suppress(OSError):
        return service.get("/healthz").status == 200
