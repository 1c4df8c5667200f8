"""The drill: two services of two workers each over one key ring, callers and verifiers that never pause, operators that
rotate as soon as they may, two at once, and one key that is stolen. Not one token is refused that should not be.

The schedule is accelerated: what takes minutes takes seconds. The verifiers are two independent libraries with JWKS
caches of their own, which they keep for as long as they may and never refresh for an unknown `kid`.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter

import jwt
import pytest
import yaml
from harness import ISSUER, Service, decoded, minimal, wait_for
from redis_servers import KINDS, RedisServer

from keys import rotation
from keys.errors import GuardRefused
from scripts import servers
from sts.cli.keys.opening import open_ring
from sts.settings import load

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # authlib.jose is on its way out, and as independent as ever
    from authlib.jose import JsonWebKey, JsonWebToken

ROTATIONS = 10
TTL = 5.0
MAX_AGE, REFRESH = 1.0, 0.3
KEYS = {
    "jwks_max_age": "1s",
    "verifier_refresh": "300ms",
    "clock_skew": "200ms",
    "poll": "100ms",
    "store_grace": "30s",
}
GUARD = 1.0 + 0.3 + 0.2 + 0.1


class Verifier:
    """A backend with its own copy of the JWKS, fetched from whichever service answers."""

    def __init__(self, services, read, verify):
        self.services, self.read, self.verify = services, read, verify
        self.lock, self.keys, self.until = threading.Lock(), None, 0.0

    def claims(self, token):
        with self.lock:
            if time.monotonic() > self.until:
                began = time.monotonic()
                service = random.choice(self.services)  # noqa: S311 - any will do
                self.keys = self.read(service.jwks())
                self.until = began + MAX_AGE + REFRESH
            keys = self.keys
        return self.verify(token, keys)


def by_pyjwt(token, keys):
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=["ES256"], audience="orders", issuer=ISSUER, leeway=1)


def by_authlib(token, keys):
    claims = JsonWebToken(["ES256"]).decode(token, keys)
    claims.validate(leeway=1)
    assert (claims["iss"], claims["aud"]) == (ISSUER, "orders")
    return claims


class Drill:
    """Callers at both services; every token is verified at once, and again at the end of its life."""

    def __init__(self, services, idp):
        self.services, self.idp = services, idp
        self.verifiers = [
            Verifier(services, jwt.PyJWKSet.from_dict, by_pyjwt),
            Verifier(services, JsonWebKey.import_key_set, by_authlib),
        ]
        self.exchanged, self.verified, self.failures = Counter(), Counter(), []
        self.late = []  # (when, token): to be verified again
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=[one], daemon=True) for one in services]
        self.threads.append(threading.Thread(target=self.look_again, daemon=True))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def call(self, service):
        number = 0
        while not self.over.is_set():
            number += 1
            inbound = self.idp.token(self.idp.ec, jti=f"{service.port}-{number}")
            for _ in range(2):  # a new token, then the cached one
                answer = service.exchange(inbound)
                if answer.status != 200:
                    self.failures.append(("exchange", repr(answer)))
                    continue
                kid = jwt.get_unverified_header(answer.token)["kid"]
                self.exchanged[kid] += 1
                self.check(answer.token, kid, "at once")
                self.late.append((time.monotonic() + answer.json["expires_in"] - 1.5, answer.token, kid))
            self.over.wait(0.03)

    def look_again(self):
        while not self.over.is_set():
            now = time.monotonic()
            due = [one for one in self.late if one[0] <= now]
            self.late = [one for one in self.late if one[0] > now]
            for _, token, kid in due[:: max(1, len(due) // 20)]:
                self.check(token, kid, "at its end")
            self.over.wait(0.1)

    def check(self, token, kid, when):
        for verifier in self.verifiers:
            try:
                verifier.claims(token)
                self.verified[kid] += when == "at once"
            except Exception as error:  # noqa: BLE001 - two libraries, and any of their errors is a refusal
                if decoded(token)[1]["exp"] < time.time():
                    continue  # this machine came too late, the token was refused rightly
                self.failures.append((kid, f"{when}: {type(error).__name__} {error}"))


def operator(service, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "sts", "keys", *arguments, "--json", "-c", str(service.file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out.startswith("{") else {}, err


@pytest.fixture(params=["file", "redis"])
def services(request, tmp_path, idp):
    """Two services over one ring: in one file, or on two "machines" with one Redis."""
    document = yaml.safe_load(minimal(idp))
    document["audiences"]["orders"]["ttl"] = f"{TTL:.0f}s"
    document["audiences"]["billing"]["ttl"] = "2s"
    document.update({"workers": 2, "threads": 8, "keys": {**KEYS, "store": request.param}})
    server = None
    if request.param == "redis":
        kind = next((kind for kind in KINDS if servers.find(KINDS[kind])), None)
        if kind is None:
            pytest.skip("there is neither redis-server nor valkey-server on this machine")
        server = RedisServer(kind, tmp_path / kind).start()
        (tmp_path / "secret").write_text("0b" * 32)
        document.update({"secret": {"file": str(tmp_path / "secret")}, "redis": server.settings})
        document["state"] = {"store": "redis"}
    else:
        document["var"] = str(tmp_path / "var")
    running = [Service(tmp_path / name, json.dumps(document), ready=False) for name in ("one", "two")]  # at once
    for service in running:
        wait_for(service.is_complete)
        service.everywhere(service.is_ready)
    yield running
    assert [service.stop() for service in running] == [0, 0], [service.log() for service in running]
    if server:
        server.stop()


def rotate_once(services):
    """Two operators at once, each at a machine of his own, as soon as it is allowed; the kid that signs then."""
    found = []

    def operate(service):
        settings = load(service.file)
        while not found:
            try:
                ring, done = rotation.rotate(open_ring(settings), time.time, settings.wanted())
                found.append((ring.version, ring.signing("ES256").kid, done))
            except GuardRefused as refused:
                if found:
                    return  # it came second, and was told
                time.sleep(refused.seconds + 0.01)

    operators = [threading.Thread(target=operate, args=[service]) for service in services]
    for one in operators:
        one.start()
    for one in operators:
        one.join(60)
    return max(found)[1]


def test_ten_rotations_and_one_revocation_under_load_refuse_nothing_but_the_revoked(services, idp):
    """RO-02, RO-03, RO-05, RO-06."""
    with Drill(services, idp) as drill:
        signed = []
        for _ in range(ROTATIONS):
            signed.append(rotate_once(services))
            wait_for(lambda: signed[-1] in drill.exchanged)
        assert len(set(signed)) == ROTATIONS
        time.sleep(GUARD)
        assert drill.failures == []

        stolen = signed[-1]
        inbound = [idp.token(idp.ec, jti="kept") for _ in services]
        held = [service.exchange(token).token for service, token in zip(services, inbound, strict=True)]
        assert {jwt.get_unverified_header(token)["kid"] for token in held} == {stolen}
        status, outside, err = told(operator(services[1], "revoke", stolen, "--yes"))
        assert (status, outside["revoked"], outside["out_of_sight"]) == (0, [stolen], []), err
        assert '"action":"revoked"' in err  # the audit
        revoked_at = time.monotonic()
        assert outside["unknown_for"] == 0  # the standby had been published for the guard's time
        for service, token in zip(services, inbound, strict=True):
            # every worker, whichever answers: the cached token is void
            for _ in range(8):
                again = service.exchange(token).token
                assert jwt.get_unverified_header(again)["kid"] != stolen
            assert stolen not in {key["kid"] for key in service.jwks()["keys"]}
        time.sleep(max(0.0, revoked_at + outside["believed_for"] - time.monotonic()))
        for verifier in drill.verifiers:
            for token in held:
                with pytest.raises(Exception, match=r"(?i)key|kid"):
                    verifier.claims(token)
        assert rotate_once(services) != stolen
        time.sleep(1.0)
    refused = [failure for failure in drill.failures if failure[0] != stolen]
    assert refused == []
    good = {kid: count for kid, count in drill.exchanged.items() if kid != stolen}
    assert {kid: 2 * count for kid, count in good.items()} == {kid: drill.verified[kid] for kid in good}
    assert sum(good.values()) > 5 * ROTATIONS
    wait_for(lambda: len({service.get("/readyz").json["ring_version"] for service in services}) == 1)


def test_a_service_that_is_cut_off_holds_a_rotation_back_until_it_publishes_no_more(services, idp):
    """RO-05: Verifiers may still get a JWKS without the next key from it."""
    rotate_once(services)
    cut = services[1]
    workers = wait_for(lambda: [one for one in reports(services[0]) if one["version"] == 2])
    assert len(workers) >= 2
    # Stopped as a whole it looks at nothing, though its peers do not know whether it answers.
    stopped = cut.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        rotate_once(services)
        time.sleep(GUARD + 0.3)
        status, facts, err = told(operator(services[0], "rotate"))
        assert (status, facts["why"]) == (1, "guard"), err
        assert facts["replica"].split("-")[-2] in {str(pid) for pid in stopped}
        assert "out of sight" in err
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    rotate_once(services)
    assert cut.exchange(idp.token()).status == 200


def reports(service):
    out, _ = operator(service, "list").communicate(timeout=60)
    return json.loads(out)["replicas"]
