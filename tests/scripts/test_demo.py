"""`make demo` is the first thing that people run, so it is run here too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(module, *arguments):
    # A service of the caller's own, and colours forced by the surroundings, must not get in.
    strange = {"STS_CONFIG": "/nowhere", "STS_VAR": "/nowhere"}
    kept = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "PY_COLORS"}}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=kept | strange,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def demo():
    return run("scripts.demo")


def test_the_demo_does_what_it_says(demo):
    assert demo.returncode == 0, demo.stdout[-6000:] + demo.stderr
    assert "FAILED" not in demo.stdout


def test_the_demo_shows_six_refusals_with_their_error_bodies(demo):
    for reason in ("expired", "audience_mismatch", "bad_signature", "bad_algorithm", "unknown_issuer", "no_consent"):
        assert f'"error_reason": "{reason}"' in demo.stdout


def test_the_demo_shows_an_encrypted_token_that_its_backend_opens(demo):
    """JW-06, JW-07."""
    assert '"cty": "JWT"' in demo.stdout
    for told in ("found a signed token", "bare claims, encrypted by anybody: refused", "nobody encrypted: refused"):
        assert told in demo.stdout


def test_the_demo_shows_an_api_key_from_its_making_to_its_revocation(demo):
    for told in (
        "shown this once",
        "opens the route",
        "kept nowhere",
        "a typing error: refused",
        "revoked: refused",
    ):
        assert told in demo.stdout


def test_the_demo_shows_a_partners_certificate_that_becomes_an_internal_token(demo):
    assert "spiffe://partners.example/billing" in demo.stdout
    for told in (
        "its credential",
        "no secret: binding_failed",
        "a revoked certificate: revoked",
        "not even a handshake",
    ):
        assert told in demo.stdout


def test_the_demo_shows_an_opaque_token_and_a_backend_that_asks(demo):
    """IN-09."""
    for told in (
        "an opaque token is exchanged",
        "the server was asked once",
        "the backend is told what its token says",
        "not active, and no more",
        "a bad opaque token: audience_mismatch",
        "refused here within `cache_ttl`",
    ):
        assert told in demo.stdout


def test_the_demo_uses_no_colours_on_a_pipe_and_keeps_its_lines_short(demo):
    assert "\x1b" not in demo.stdout
    tables = [line for line in demo.stdout.splitlines() if line.startswith(" ") and not line.startswith("   ")]
    assert tables
    assert max(map(len, tables)) <= 120


def test_the_demo_fails_when_a_promise_does_not_hold():
    broken = "from scripts.demo import __main__ as demo, steps; steps.refusals = lambda *_: 1 / 0; exit(demo.main())"
    done = subprocess.run(
        [sys.executable, "-c", broken], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "ZeroDivisionError" in done.stdout) == (1, True)
