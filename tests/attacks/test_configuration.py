"""A configuration that would leave a door open is refused at load, all its faults by name (lesson 2.17)."""

import copy
import json
import subprocess
import sys

import pytest

FAULTS = {
    "no algorithm at all": ("algorithms", []),  # JW-01, LIB-J01
    "the algorithm none": ("algorithms", ["none"]),  # JW-03
    "a spelling of none": ("algorithms", ["nOnE"]),  # JW-02
    "a symmetric algorithm": ("algorithms", ["HS256"]),  # JW-05
    "a symmetric one beside others": ("algorithms", ["RS256", "HS256"]),  # JW-05, LIB-J01
    "an algorithm in small letters": ("algorithms", ["rs256"]),  # JW-02
    "an algorithm of encryption": ("algorithms", ["RSA1_5"]),  # JW-13
    "no audience at all": ("audience", []),  # JW-21, LIB-J11
    "an empty audience": ("audience", [""]),  # JW-21
    "no audience written": ("audience", None),  # JW-21
    "no consent": ("audiences", None),  # lesson 2.17: with several sources it must be written
    "no namespace": ("namespace", None),  # lesson 2.16
    "the namespace of another": ("namespace", "first"),  # lesson 2.16
    "keys over plain http": ("jwks_uri", "http://idp.example.com/jwks.json"),  # JW-23
    "keys from a name for loopback": ("jwks_uri", "http://localhost:9000/jwks.json"),  # JW-23
    "keys from a file URL": ("jwks_uri", "file:///etc/passwd"),  # JW-23
    "keys from nowhere": ("jwks_uri", None),
    "a leeway of an hour": ("leeway", "1h"),  # JW-29
    "our own issuer": ("issuer", "https://sts.example.internal"),  # TE-33
    "another source's issuer": ("issuer", "https://first.example"),  # lesson 2.11
    "no subject": ("identity", {"scopes": "claims.scope"}),
    "a rule that is none": ("require", "claims.sub =="),
    "a rule that is always a text": ("require", "'true'"),
    "an unknown key": ("verify_signature", False),
}
CLAIMS = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "act", "may_act", "cnf")


@pytest.fixture(scope="module")
def told(world, tmp_path_factory, make_source):
    """What `sts check` says of one configuration with all the faults, one source or audience for each."""
    document = copy.deepcopy(world.configuration)
    for number, (key, value) in enumerate(FAULTS.values()):
        made = make_source(f"fault-{number}", jwks_uri="https://idp.example.com/jwks.json")
        made[key] = value
        document["sources"][f"fault-{number}"] = {name: one for name, one in made.items() if one is not None}
    document["sources"]["faultless"] = make_source("faultless", jwks_uri="https://idp.example.com/jwks.json")
    for claim in CLAIMS:
        document["audiences"][f"writes-{claim}"] = {"claims": {claim: "identity.subject"}}
    directory = tmp_path_factory.mktemp("faults")
    (directory / "file.jwks.json").write_text(json.dumps({"keys": world.file.keys}))
    (directory / "sts.yaml").write_text(json.dumps(document, indent=1))
    done = subprocess.run(
        [sys.executable, "-m", "sts", "check", str(directory / "sts.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=FAULTS)
def test_a_source_that_would_believe_too_much_does_not_load(told, number):
    """JW-01, JW-02, JW-03, JW-05, JW-13, JW-21, JW-23, JW-29, TE-33, lessons 2.11, 2.16, 2.17."""
    assert f" sources.fault-{number}" in told


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_mapping_cannot_write_what_only_the_service_may_say(told, claim):
    """JW-32, lesson 3.8 (Authorino lets custom claims overwrite iss, exp, sub)."""
    assert f"audiences.writes-{claim}" in told


def test_what_is_right_is_not_complained_of(told):
    """Else a name in the report would prove nothing."""
    assert "sources.first " not in told
    assert "sources.faultless" not in told
    assert "audiences.orders " not in told
    assert "clients.twin" not in told
