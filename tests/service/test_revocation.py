"""A revocation is felt by every worker and every machine within two seconds, and an outage of the state is one."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from harness import ACCESS_TOKEN, GRANT, ISSUER, b64, minimal, wait_for
from redis_servers import Proxy, RedisServer


@pytest.fixture
def started(make_service, idp):
    """Start a service on the small configuration with two workers and this in it."""

    def started(environment=None, ready=True, **sections):
        document = yaml.safe_load(minimal(idp)) | {"workers": 2} | sections
        return make_service(json.dumps(document), environment=environment, ready=ready)

    return started


@pytest.fixture
def run():
    """Run a command on a service's configuration, in a process of its own."""

    def run(service, *arguments, environment=None):
        command = [sys.executable, "-m", "sts", *arguments, "-c", str(service.file)]
        env = {**os.environ, **(environment or {})}
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    return run


def reason(service, token):
    """Why a token is refused, or nothing."""
    return answer.reason if (answer := service.exchange(token)).status != 200 else ""


def reasons(service, token):
    """What comes of a token at each worker."""
    return set(service.each(lambda: reason(service, token)))


def refused_everywhere(service, token, why="revoked"):
    return service.everywhere(lambda: reason(service, token) == why)


def test_a_revoked_subject_is_refused_by_every_worker_at_both_doors_and_others_are_not(started, run, idp):
    """RV-06, CA-07."""
    service = started()
    alice, bob = idp.token(), idp.token(sub="bob")
    assert reasons(service, alice) == {""}
    assert service.forward(alice).status == 200
    done = run(service, "revoke", "--subject", "alice", "--reason", "laptop stolen")
    assert done.returncode == 0, done.stderr
    refused_everywhere(service, alice)
    assert service.forward(alice).status == 401
    assert reasons(service, bob) == {""}
    time.sleep(1)
    assert reasons(service, idp.token(iat=int(time.time()) + 1)) == {""}  # a new login
    event = next(one for one in service.events() if one["reason"] == "revoked")
    assert event["facts"]["what"] == "subject"


def test_one_credential_is_refused_whatever_its_signature_says(started, run, idp, tmp_path):
    service = started()
    leaked, other = idp.token(idp.ec, jti="leaked"), idp.token(idp.ec, jti="another")
    assert reasons(service, leaked) == reasons(service, other) == {""}
    (tmp_path / "leaked.jwt").write_text(leaked + "\n")
    assert run(service, "revoke", "--credential", str(tmp_path / "leaked.jwt")).returncode == 0
    refused_everywhere(service, leaked)
    assert reasons(service, _twin(leaked)) == {"revoked"}
    assert reasons(service, other) == {""}


def test_a_token_of_ours_that_is_revoked_is_handed_out_no_more(started, run, idp, tmp_path):
    """RV-06: By its text as by its `jti`: the credential that it was made from is as good as before."""
    service = started(workers=1)
    good = idp.token()
    leaked = service.exchange(good).token
    assert service.exchange(good).token == leaked
    (tmp_path / "leaked.jwt").write_text(leaked)
    assert run(service, "revoke", "--credential", str(tmp_path / "leaked.jwt")).returncode == 0
    wait_for(lambda: service.exchange(good).token != leaked)


@pytest.mark.parametrize("what", [("--jti", "own-1"), ("--source", "corporate-idp", "--subject", "partner")], ids=str)
def test_a_token_that_is_revoked_proves_no_caller_either(started, run, idp, what):
    client = {"auth": "access_token", "source": "corporate-idp", "client_id": "partner"}
    service = started(clients={"partner": {**client, "audiences": ["orders"], "sources": ["corporate-idp"]}})
    own = idp.token(aud=ISSUER, sub="partner", client_id="partner", jti="own-1")
    form = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": ACCESS_TOKEN, "audience": "orders"}

    def ask():
        return service.post(form, {"Authorization": f"Bearer {own}"})

    assert ask().status == 200
    assert run(service, "revoke", *what).returncode == 0
    service.everywhere(lambda: ask().status == 401)
    assert service.events()[-1]["facts"]["fault"] == "revoked"


def _twin(token):
    """The same ES256 token with the other signature that fits it: (r, n - s)."""
    head, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return f"{head}.{b64(raw[:32] + (order - int.from_bytes(raw[32:], 'big')).to_bytes(32, 'big'))}"


def test_a_minted_token_is_void_by_the_name_that_the_audit_gives_it(started, run, idp):
    """Lesson 3.2 (WSO2 took tokens out of its cache under another name than it had put them in)."""
    service = started(workers=1)
    token = idp.token()
    first = service.verified(service.exchange(token).token)
    assert service.verified(service.exchange(token).token)["jti"] == first["jti"]
    assert run(service, "revoke", "--jti", first["jti"]).returncode == 0
    wait_for(lambda: service.verified(service.exchange(token).token)["jti"] != first["jti"])


def test_while_the_state_cannot_be_seen_for_longer_than_max_stale_nobody_gets_a_token(started, idp):
    """RV-04, BE-08."""
    service = started(state={"max_stale": "10s"})
    token = idp.token()
    assert reasons(service, token) == {""}
    state = service.directory / "var" / "state.db"
    state.rename(state.with_name("moved.db"))
    assert reasons(service, token) == {""}
    refused_everywhere(service, token, "state_unavailable")
    answer = service.get("/readyz")
    assert answer.status == 503
    assert "state.db" in answer.json["revocations"]["trouble"]
    assert service.exchange(token).headers["retry-after"]
    assert service.forward(token).status == 503
    state.with_name("moved.db").rename(state)
    service.everywhere(lambda: reason(service, token) == "" and service.is_ready())


def test_where_it_says_allow_an_outage_is_only_told(started, idp):
    service = started(state={"max_stale": "2s", "on_outage": {"revocation": "allow"}})
    state = service.directory / "var" / "state.db"
    state.rename(state.with_name("moved.db"))
    service.everywhere(lambda: service.get("/readyz").json["revocations"]["age_s"] > 2)
    assert reasons(service, idp.token()) == {""}
    assert service.is_ready()
    assert b"sts_revocations_age_seconds" in service.get("/metrics").body


def test_a_worker_that_starts_later_knows_what_was_revoked(started, run, idp):
    service = started(workers=1)
    assert run(service, "revoke", "--source", "corporate-idp").returncode == 0
    refused_everywhere(service, idp.token())
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: _refused(service, idp.token()))


def _refused(service, token):
    try:
        return reason(service, token) == "revoked"
    except OSError:
        return False


SECRETS = {"STS_SECRET": "A" * 43, "REDIS_PASSWORD": "a-password-for-tests-only"}


@pytest.fixture
def behind_redis(started, redis_kind, tmp_path):
    """Two machines with one Redis between them, which keeps its data over a restart, reached through a proxy."""
    keeps = ("--appendonly", "yes", "--appendfsync", "always")
    server = RedisServer(redis_kind, tmp_path / "redis", *keeps).start()
    proxy = Proxy(server.port)
    redis = {"url": f"redis://127.0.0.1:{proxy.port}", "password": {"env": "REDIS_PASSWORD"}}
    sections = {"redis": redis, "secret": {"env": "STS_SECRET"}, "workers": 1}
    sections["state"] = {"store": "redis", "max_stale": "5s"}
    yield server, proxy, lambda **more: started(SECRETS, **sections, **more)
    proxy.close()
    server.stop()


def test_a_revocation_on_one_machine_is_felt_on_the_other(behind_redis, run, idp):
    """RV-05."""
    _, _, start = behind_redis
    one, other = start(), start()
    token = idp.token()
    assert reasons(one, token) == reasons(other, token) == {""}
    assert run(one, "revoke", "--subject", "alice", environment=SECRETS).returncode == 0
    refused_everywhere(other, token)
    found = json.loads(run(other, "revocations", "list", "--json", environment=SECRETS).stdout)
    assert [entry["what"] for entry in found["revocations"]] == ["subject"]


def test_redis_down_slow_and_back(behind_redis, run, idp):
    server, proxy, start = behind_redis
    service = start()
    token = idp.token()
    assert reasons(service, token) == {""}
    proxy.mode = "stall"
    refused_everywhere(service, token, "state_unavailable")
    requests = [service.exchange(token).headers["x-request-id"] for _ in range(20)]
    held = [event["duration_us"] for event in service.events() if event.get("request_id") in requests]
    assert len(held) == 20
    assert min(held) < 150_000  # no request waits for it: each would, for 200 ms
    slow = run(service, "revoke", "--subject", "x", environment=SECRETS)
    assert (slow.returncode, slow.stdout) == (3, "")
    assert "did not answer in time" in slow.stderr
    proxy.mode = "pass"
    refused_everywhere(service, token, "")
    server.stop()
    refused_everywhere(service, token, "state_unavailable")
    assert run(service, "revocations", "list", environment=SECRETS).returncode == 3
    server.start()
    refused_everywhere(service, token, "")


def test_a_service_starts_without_its_redis_and_is_ready_when_it_comes(behind_redis):
    server, _, start = behind_redis
    server.stop()
    service = start(ready=False)
    wait_for(lambda: _status(service) == 503)
    server.start()
    wait_for(service.is_ready)


def _status(service):
    try:
        return service.get("/readyz").status
    except OSError:
        return None


def test_a_redis_that_evicts_stops_the_start(behind_redis):
    server, _, start = behind_redis
    server.client().config_set("maxmemory-policy", "allkeys-lru")
    service = start(ready=False)
    assert service.process.wait(60) == 1
    assert "maxmemory-policy noeviction" in service.log()
