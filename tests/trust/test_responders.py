"""OCSP in the background: real sockets, and no request that waits."""

import shutil
import subprocess
import threading
import time

import pytest
from harness import free_port
from pki import Authority

from scripts.nginx import stop
from sts.trust.fetch import Answer, Fetcher
from sts.x509.responders import COOL_DOWN, MAX_FETCHES, REFRESH_AFTER, Responders
from sts.x509.revocation import REVOKED, Good, Unknown

NOW = 1_000_000.0


@pytest.fixture
def responders(clock):
    return Responders(Fetcher(), clock)


def asker(responders, ca, leaf, clock):
    return lambda: responders.status(leaf.certificate, ca.certificate, clock())


def test_the_first_question_is_answered_in_the_background(responders, peer, partner_ca, clock, until):
    """XC-11."""
    leaf = partner_ca.issue(responder=f"{peer.url}/ocsp")
    peer.answers(partner_ca.ocsp(leaf), Content_Type="application/ocsp-response", Connection="close")
    ask = asker(responders, partner_ca, leaf, clock)
    with peer.silent():
        assert isinstance(ask(), Unknown)
    until(lambda: ask() == Good(NOW + 3600))
    assert len(peer.requests) == 1
    assert peer.requests[0].startswith("POST /ocsp ")
    assert "application/ocsp-request" in peer.requests[0]


def test_an_answer_is_kept_and_renewed_before_its_end(responders, peer, partner_ca, clock, until):
    leaf = partner_ca.issue(responder=peer.url)
    peer.answers(partner_ca.ocsp(leaf), Connection="close")
    ask = asker(responders, partner_ca, leaf, clock)
    until(lambda: isinstance(ask(), Good))
    clock.now += 3600 * REFRESH_AFTER - 1
    assert isinstance(ask(), Good)
    assert len(peer.requests) == 1
    peer.answers(partner_ca.ocsp(leaf, "revoked"), Connection="close")
    clock.now += 2
    before = responders.generation
    assert isinstance(ask(), Good)  # the old word stands until the new one is there
    until(lambda: ask() is REVOKED)
    assert responders.generation > before
    clock.now += 1e6
    assert ask() is REVOKED


def test_what_is_decided_under_a_new_generation_has_heard_of_the_revocation(peer, partner_ca, clock, until):
    """Else a token that is minted between the two would be kept as if nothing had been learned since."""
    leaf = partner_ca.issue(responder=peer.url)
    seen = []

    class Watched(Responders):
        @property
        def generation(self):
            return self.counted

        @generation.setter
        def generation(self, value):
            self.counted = value
            if value:
                seen.append(self.status(leaf.certificate, partner_ca.certificate, clock()))

    peer.answers(partner_ca.ocsp(leaf, "revoked"), Connection="close")
    responders = Watched(Fetcher(), clock)
    ask = asker(responders, partner_ca, leaf, clock)
    until(lambda: ask() is REVOKED)
    until(lambda: seen)
    assert seen == [REVOKED]


def test_an_answer_past_its_time_vouches_for_nobody(responders, peer, partner_ca, clock, until):
    """XC-10."""
    leaf = partner_ca.issue(responder=peer.url)
    peer.answers(partner_ca.ocsp(leaf), Connection="close")
    ask = asker(responders, partner_ca, leaf, clock)
    until(lambda: isinstance(ask(), Good))
    peer.answers(b"", 500, Connection="close")
    clock.now += 3600
    assert isinstance(ask(), Unknown)


def test_a_responder_that_fails_is_left_alone_for_a_while(responders, peer, partner_ca, clock, until):
    leaf = partner_ca.issue(responder=peer.url)
    peer.answers(b"busy", 503, Connection="close")
    ask = asker(responders, partner_ca, leaf, clock)
    until(lambda: "503" in ask().why)
    assert responders.trouble
    for _ in range(5):
        ask()
    assert len(peer.requests) == 1
    peer.answers(partner_ca.ocsp(leaf), Connection="close")
    clock.now += COOL_DOWN
    until(lambda: isinstance(ask(), Good))
    assert not responders.trouble


@pytest.mark.parametrize("url", ["http://10.0.0.1/ocsp", "ldap://a/x", "file:///etc/passwd", "http://localhost:1/"])
def test_a_url_that_may_not_be_fetched_is_not(responders, partner_ca, clock, until, url):
    """JW-23."""
    leaf = partner_ca.issue(responder=url)
    ask = asker(responders, partner_ca, leaf, clock)
    until(lambda: ask().why.startswith("the OCSP responder: "))


def test_a_certificate_without_a_responder_is_unknown(responders, partner_ca, clock):
    ask = asker(responders, partner_ca, partner_ca.issue(), clock)
    assert "names no" in ask().why


def test_slow_responders_hold_no_request_and_few_threads(partner_ca, clock):
    gate, begun = threading.Event(), []

    class Slow:
        def ask(self, _method, url, _headers, _body=None):
            begun.append(url)
            gate.wait(60)
            return Answer(500, {}, b"")

    responders = Responders(Slow(), clock)
    for number in range(MAX_FETCHES + 3):
        leaf = partner_ca.issue(responder=f"http://127.0.0.1:{number + 1}/")
        assert isinstance(asker(responders, partner_ca, leaf, clock)(), Unknown)
    assert len(begun) <= MAX_FETCHES
    gate.set()


def test_openssls_own_responder_is_understood(responders, clock, tmp_path, until):
    """An independent judge: `openssl ocsp` answers for its own index of certificates."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    clock.now = time.time()
    ca, port = Authority(now=clock.now), free_port()
    good, revoked = (ca.issue(responder=f"http://127.0.0.1:{port}/") for _ in range(2))
    (tmp_path / "ca.pem").write_text(ca.pem)
    (tmp_path / "ca.key").write_text(ca.key_pem)
    lines = [
        f"{state}\t360101000000Z\t{since}\t{holder.certificate.serial_number:X}\tunknown\t/CN=billing\n"
        for state, since, holder in (("V", "", good), ("R", "250101000000Z", revoked))
    ]
    (tmp_path / "index.txt").write_text("".join(lines))
    command = ["openssl", "ocsp", "-index", "index.txt", "-port", str(port), "-rsigner", "ca.pem", "-rkey", "ca.key"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, "-CA", "ca.pem", "-nmin", "60"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        until(lambda: b"waiting for" in (tmp_path / "log").read_bytes())  # a probe would be its first request
        ask = asker(responders, ca, good, clock)
        until(lambda: isinstance(ask(), Good))
        assert clock.now < ask().until <= clock.now + 3600
        ask = asker(responders, ca, revoked, clock)
        until(lambda: ask() is REVOKED)
    finally:
        stop(process)
