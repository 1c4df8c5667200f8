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

PATIENCE_S = 2.0


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


def reasons(service, token, times=20):
    """What came of asking many times, so that each worker is asked."""
    return {answer.reason if (answer := service.exchange(token)).status != 200 else "" for _ in range(times)}


def test_a_revoked_subject_is_refused_by_every_worker_at_both_doors_and_others_are_not(started, run, idp):
    """RV-06, CA-07."""
    service = started()
    alice, bob = idp.token(), idp.token(sub="bob")
    assert reasons(service, alice) == {""}
    assert service.forward(alice).status == 200
    done = run(service, "revoke", "--subject", "alice", "--reason", "laptop stolen")
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    wait_for(lambda: reasons(service, alice) == {"revoked"})
    assert time.monotonic() - began < PATIENCE_S
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
    wait_for(lambda: reasons(service, leaked) == {"revoked"})
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
    wait_for(lambda: service.exchange(good).token != leaked, PATIENCE_S)


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
    wait_for(lambda: {ask().status for _ in range(10)} == {401})
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
    service = started(state={"max_stale": "2s"})
    token = idp.token()
    assert reasons(service, token) == {""}
    state = service.directory / "var" / "state.db"
    state.rename(state.with_name("moved.db"))
    assert reasons(service, token, 4) == {""}
    wait_for(lambda: reasons(service, token) == {"state_unavailable"})
    answer = service.get("/readyz")
    assert answer.status == 503
    assert "state.db" in answer.json["revocations"]["trouble"]
    assert service.exchange(token).headers["retry-after"]
    assert service.forward(token).status == 503
    state.with_name("moved.db").rename(state)
    wait_for(lambda: reasons(service, token) == {""} and service.is_ready())


def test_where_it_says_allow_an_outage_is_only_told(started, idp):
    service = started(state={"max_stale": "2s", "on_outage": {"revocation": "allow"}})
    state = service.directory / "var" / "state.db"
    state.rename(state.with_name("moved.db"))
    time.sleep(3)
    assert reasons(service, idp.token()) == {""}
    assert service.is_ready()
    assert b"sts_revocations_age_seconds" in service.get("/metrics").body


def test_a_worker_that_starts_later_knows_what_was_revoked(started, run, idp):
    service = started(workers=1)
    assert run(service, "revoke", "--source", "corporate-idp").returncode == 0
    wait_for(lambda: reasons(service, idp.token(), 2) == {"revoked"})
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: _refused(service, idp.token()), 20)


def _refused(service, token):
    try:
        return reasons(service, token, 2) == {"revoked"}
    except OSError:
        return False


SECRETS = {"STS_SECRET": "A" * 43, "REDIS_PASSWORD": "a-password-for-tests-only"}


@pytest.fixture
def behind_redis(started, redis_kind, tmp_path):
    """Two machines with one Redis between them, reached through a proxy."""
    server = RedisServer(redis_kind, tmp_path / "redis").start()
    proxy = Proxy(server.port)
    redis = {"url": f"redis://127.0.0.1:{proxy.port}", "password": {"env": "REDIS_PASSWORD"}}
    sections = {"redis": redis, "secret": {"env": "STS_SECRET"}, "workers": 1}
    sections["state"] = {"store": "redis", "max_stale": "2s"}
    yield server, proxy, lambda **more: started(SECRETS, **sections, **more)
    proxy.close()
    server.stop()


def test_a_revocation_on_one_machine_is_felt_on_the_other(behind_redis, run, idp):
    """RV-05."""
    _, _, start = behind_redis
    one, other = start(), start()
    token = idp.token()
    assert reasons(one, token, 3) == reasons(other, token, 3) == {""}
    assert run(one, "revoke", "--subject", "alice", environment=SECRETS).returncode == 0
    began = time.monotonic()
    wait_for(lambda: reasons(other, token, 3) == {"revoked"})
    assert time.monotonic() - began < PATIENCE_S
    found = json.loads(run(other, "revocations", "list", "--json", environment=SECRETS).stdout)
    assert [entry["what"] for entry in found["revocations"]] == ["subject"]


def test_redis_down_slow_and_back(behind_redis, run, idp):
    server, proxy, start = behind_redis
    service = start()
    token = idp.token()
    assert reasons(service, token, 3) == {""}
    proxy.mode = "stall"
    wait_for(lambda: reasons(service, token, 3) == {"state_unavailable"})
    began = time.monotonic()
    reasons(service, token, 20)
    assert time.monotonic() - began < 2  # no request waits for it
    slow = run(service, "revoke", "--subject", "x", environment=SECRETS)
    assert (slow.returncode, slow.stdout) == (3, "")
    assert "did not answer in time" in slow.stderr
    proxy.mode = "pass"
    wait_for(lambda: reasons(service, token, 3) == {""})
    server.stop()
    wait_for(lambda: reasons(service, token, 3) == {"state_unavailable"})
    assert run(service, "revocations", "list", environment=SECRETS).returncode == 3
    server.start()
    wait_for(lambda: reasons(service, token, 3) == {""})


def test_a_service_starts_without_its_redis_and_is_ready_when_it_comes(behind_redis):
    server, _, start = behind_redis
    server.stop()
    service = start(ready=False)
    wait_for(lambda: _status(service) == 503, 20)
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
    assert service.process.wait(20) == 1
    assert "maxmemory-policy noeviction" in service.log()
