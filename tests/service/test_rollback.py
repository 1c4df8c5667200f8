"""An older key ring put back under a running service: no worker takes it, not even one that starts afterwards."""

import os
import shutil
import signal
import subprocess
import sys

import jwt
import pytest
from harness import minimal, wait_for

NUMBERS = {"jwks_max_age": "1s", "verifier_refresh": "1s", "clock_skew": "1s", "poll": "100ms"}


@pytest.fixture
def service(make_service, idp, configured):
    """Two workers, and keys that may be rotated after about three seconds."""
    return make_service(configured(minimal(idp), {"workers": 2, "keys": NUMBERS}))


@pytest.fixture
def put():
    """Put a copy of the ring in its place, whole, as an operator who restores a backup."""

    def put(copy):
        new = copy.with_name("restored")
        shutil.copy(copy, new)  # the mode as well
        new.replace(copy.with_name("keyring.json"))

    return put


def rotated(service):
    command = [sys.executable, "-m", "sts", "keys", "rotate", "-c", str(service.file)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def signed_with(service, idp):
    answer = service.exchange(idp.token())
    assert answer.status == 200, answer
    return jwt.get_unverified_header(answer.token)["kid"]


def ring_version(service):
    return service.get("/readyz").json["ring_version"]


def test_a_worker_that_starts_later_refuses_the_ring_that_its_siblings_refuse(service, idp, put):
    ring = service.directory / "var" / "keyring.json"
    older, newer = ring.with_name("older"), ring.with_name("newer")
    shutil.copy(ring, older)
    former = signed_with(service, idp)
    first = ring_version(service)
    wait_for(lambda: rotated(service), every=0.5)
    shutil.copy(ring, newer)
    survivor, killed = service.workers()
    service.everywhere(lambda: ring_version(service) == first + 1)
    present = signed_with(service, idp)
    assert present != former
    document = service.jwks()

    put(older)
    wait_for(lambda: f"has seen version {first + 1}" in service.log())
    assert service.reload()["event"] == "reload refused, nothing has changed"  # it would write on top of the old ring
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: service.log().count("worker cannot start") >= 2)  # the master tries again
    assert [signed_with(service, idp) for _ in range(20)] == [present] * 20
    assert service.jwks() == document
    os.kill(survivor, signal.SIGSTOP)
    try:
        assert service.raw(b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n", 1.5) == b""  # nobody else answers
    finally:
        os.kill(survivor, signal.SIGCONT)

    put(newer)
    os.kill(survivor, signal.SIGSTOP)
    try:
        assert wait_for(lambda: signed_with(service, idp)) == present  # by the one in the killed one's place
        assert service.jwks() == document
    finally:
        os.kill(survivor, signal.SIGCONT)
    assert service.workers() > {survivor}
    assert service.process.poll() is None
