"""From one algorithm to another while requests come in: a reload publishes the new key, a rotation lets it sign."""

import json
import subprocess
import sys

import jwt
import pytest
import yaml
from harness import ISSUER, minimal, wait_for

NUMBERS = {
    "jwks_max_age": "200ms",
    "verifier_refresh": "200ms",
    "clock_skew": "100ms",
    "poll": "100ms",
    "store_grace": "30s",
}


@pytest.fixture
def service(make_service, idp, configured):
    return make_service(configured(minimal(idp), {"workers": 2, "keys": NUMBERS, "audiences/orders/ttl": "5m"}))


def command(service, *arguments):
    words = [sys.executable, "-m", "sts", "keys", *arguments, "--json", "-c", str(service.file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def rotated(service):
    return command(service, "rotate")[0] == 0


def verified(service, token, algorithm):
    header = jwt.get_unverified_header(token)
    assert header["alg"] == algorithm
    key = next(key for key in service.jwks()["keys"] if key["kid"] == header["kid"])
    assert key["alg"] == algorithm
    public = jwt.PyJWK(key).key
    return jwt.decode(token, public, algorithms=[algorithm], audience="orders", issuer=ISSUER)


def write(service, configured, changes):
    document = yaml.safe_load(service.file.read_text())
    service.write(configured(json.dumps(document), changes))


def test_an_algorithm_is_changed_by_configuration_and_rotation_without_a_gap(service, idp, configured):
    before = service.exchange(idp.token()).token
    verified(service, before, "ES256")
    write(service, configured, {"keys/algorithm": "PS256", "audiences/billing/algorithm": "ES384"})
    assert service.reload()["event"] == "reloaded"
    # at every worker, whatever it has seen of the ring: tokens as before, and the new keys are out
    for number in range(12):
        verified(service, service.exchange(idp.token(jti=f"reloaded-{number}")).token, "ES256")
    service.everywhere(lambda: {key["alg"] for key in service.jwks()["keys"]} == {"ES256", "PS256", "ES384"})
    wait_for(lambda: rotated(service), every=0.3)
    later = idp.token(jti="later")
    service.everywhere(lambda: jwt.get_unverified_header(service.exchange(later).token)["alg"] == "PS256")
    for number in range(12):
        verified(service, service.exchange(idp.token(jti=f"rotated-{number}")).token, "PS256")
    assert jwt.get_unverified_header(service.exchange(idp.token(), "billing").token)["alg"] == "ES384"
    verified(service, before, "ES256")  # what was out stays good
    states = {(key["algorithm"], key["state"]) for key in command(service, "list")[1]["keys"]}
    assert states == {
        *(("ES256", "retired"), ("PS256", "active"), ("PS256", "published")),
        *(("ES384", "active"), ("ES384", "published")),
    }
    detail = service.get("/readyz").json["keys"]
    assert {name: detail[name]["due_in_s"] > 0 for name in detail} == {"PS256": True, "ES384": True}


def test_a_service_that_stops_says_that_it_publishes_no_more(service):
    replicas = wait_for(lambda: _of_version_one(service))
    assert len(replicas) == 2
    assert service.stop() == 0
    assert command(service, "list")[1]["replicas"] == []


def _of_version_one(service):
    found = command(service, "list")[1]["replicas"]
    return found if len(found) == 2 else None
