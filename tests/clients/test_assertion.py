"""Clients with signed assertions (RFC 7523), made by PyJWT."""

import json
import statistics
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError

from sts.clients.assertion import ASSERTION_TYPE, AssertionClient
from sts.clients.failures import Failures
from sts.clients.registry import Clients, World
from sts.errors import REPLAYED, STATE_UNAVAILABLE, Refusal
from sts.model import Caller, Client, Peer
from sts.options import KeptFile
from sts.trust.issuers import Issuers

NOW = 1_800_000_000.0
ISSUER = "https://sts.example.internal"
EC, RSA, STRANGE = (
    ec.generate_private_key(ec.SECP256R1()),
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
)
JWKS = {
    "keys": [
        {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "ec"},
        {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "rsa"},
    ]
}


class Marks:
    """A store for marks, which may be out of reach."""

    def __init__(self):
        self.seen, self.out = {}, None

    def mark(self, kind, *parts, until):
        if self.out is not None:
            raise Refusal(self.out, why="out")
        if (kind, parts) in self.seen:
            raise Refusal(REPLAYED, why="seen")
        self.seen[kind, parts] = until


@pytest.fixture
def marks():
    return Marks()


@pytest.fixture
def prove(proven, marks):
    """Prove an assertion, or claims that are signed first."""

    def prove(assertion, settings=None, client_id="gateway", **more):
        caller = Caller("token", client_id, None, Peer("127.0.0.1"), assertion=assertion, **more)
        keys = Issuers(lambda: NOW, 4).keys
        return proven(settings or client(), caller, issuer=ISSUER, keys=keys, marks=marks)

    return prove


def client(**settings):
    written = {"auth": "private_key_jwt", "audiences": ["orders"]}
    written["jwks_file"] = KeptFile(Path("gateway.jwks.json"), json.dumps(JWKS).encode())
    return AssertionClient.model_validate(
        {name: one for name, one in {**written, **settings}.items() if one is not None}
    )


def signed(key=EC, alg="ES256", header=None, **changes):
    good = {
        "iss": "gateway", "sub": "gateway", "aud": ISSUER, "exp": NOW + 60, "iat": NOW - 1, "jti": "one",
    }  # fmt: skip
    claims = {name: one for name, one in {**good, **changes}.items() if one is not None}
    return jwt.encode(claims, key, alg, {"kid": "ec" if key is EC else "rsa", **(header or {})})


def test_a_good_assertion_proves_the_client_once(prove, marks):
    """PK-01, PK-05."""
    assertion = signed()
    assert isinstance(prove(assertion), Client)
    assert prove(assertion)["why"] == "the assertion was used before"
    assert isinstance(prove(signed(jti="two")), Client)
    assert all(until >= NOW + 60 for until in marks.seen.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [ISSUER]},
        {"header": {"typ": "client-authentication+jwt"}},
        {"header": {"typ": "application/client-authentication+jwt"}},
        {"header": {"typ": None}},
        {"iat": None},
        {"nbf": NOW},
        {"exp": NOW + 300},
        {"key": RSA, "alg": "RS256"},
        {"key": RSA, "alg": "PS384"},
    ],
    ids=" ".join,
)
def test_whatever_the_standard_leaves_open_is_taken(prove, changes):
    """PK-03, PK-06."""
    assert isinstance(prove(signed(**changes)), Client)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"sub": "other"},
        {"iss": "other", "sub": "other"},
        {"iss": None},
        {"sub": None},
        {"aud": ISSUER + "/token"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": [ISSUER, ISSUER]},
        {"aud": []},
        {"aud": None},
        {"aud": "gateway"},
        {"exp": None},
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": NOW + 320},
        {"iat": NOW - 320},
        {"iat": NOW + 20},
        {"nbf": NOW + 20},
        {"jti": None},
        {"jti": ""},
        {"jti": "x" * 257},
        {"jti": 7},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "dpop+jwt"}},
        {"key": STRANGE, "header": {"kid": "ec"}},
        {"header": {"kid": "unknown"}},
        {"header": {"crit": ["x"], "x": 1}},
        {"key": STRANGE, "header": {"kid": "ec", "jwk": ECAlgorithm.to_jwk(STRANGE.public_key(), as_dict=True)}},
        {"key": RSA, "alg": "RS256", "header": {"kid": "ec"}},
    ],
    ids=" ".join,
)
def test_everything_else_is_refused_and_leaves_no_mark(prove, marks, changes):
    """PK-01, PK-02, PK-03, PK-04, PK-05, PK-06, PK-07."""
    facts = prove(signed(**changes))
    assert isinstance(facts, dict)
    assert facts["why"]
    assert not marks.seen


@pytest.mark.parametrize("text", ["", "x", "x.y.z", "e30.e30.", "a.b.c.d.e", "é.é.é", "x" * 20_000])
def test_what_is_no_jwt_is_refused(prove, marks, text):
    assert isinstance(prove(text), dict)
    assert not marks.seen


def test_a_secret_key_and_no_signature_prove_nothing(prove):
    """PK-07, JW-01."""
    good = {"iss": "gateway", "sub": "gateway", "aud": ISSUER, "exp": NOW + 60, "jti": "one"}
    for text in (jwt.encode(good, "x" * 64, "HS256"), jwt.encode(good, None, "none")):
        assert isinstance(prove(text), dict)


def test_only_the_algorithms_that_are_written_may_sign(prove):
    """PK-07."""
    only = client(algorithms=["PS256"])
    assert isinstance(prove(signed(RSA, "PS256"), only), Client)
    for other in (signed(RSA, "RS256"), signed()):
        assert prove(other, only)["alg"] in ("RS256", "ES256")


def test_a_client_that_is_refused_for_another_reason_has_used_nothing_up(prove, marks):
    assert isinstance(prove(signed(), client(networks=["10.0.0.0/8"])), dict)
    assert isinstance(prove(signed(), client(enabled=False)), dict)
    assert not marks.seen


def test_a_store_that_cannot_be_reached_is_our_fault(prove, marks):
    """PK-05: never a replay let through, never the client's fault."""
    marks.out = STATE_UNAVAILABLE
    with pytest.raises(Refusal) as caught:
        prove(signed())
    assert caught.value.reason is STATE_UNAVAILABLE


def test_keys_that_cannot_be_fetched_are_no_proof_and_the_audit_says_why(prove):
    """Another answer than an unknown client's would tell that there is such a client."""
    unreachable = client(jwks_file=None, jwks_uri="http://127.0.0.1:9/jwks")
    facts = prove(signed(), unreachable)
    assert (facts["fault"], facts["why"][:41]) == ("source_unreachable", "the client's keys cannot be fetched: not ")


def test_an_unknown_client_takes_as_long_as_a_wrong_signature():
    """EP-07: signature, key and client are wrong by turns, and the time does not say which."""
    clients = Clients(
        {"gateway": client()},
        Failures(time.monotonic),
        World(issuer=ISSUER, keys=Issuers(lambda: NOW, 4).keys, marks=Marks(), clock=lambda: NOW),
    )
    calls = {
        "wrong signature": ("gateway", signed(STRANGE, header={"kid": "ec"})),
        "unknown key": ("gateway", signed(STRANGE, header={"kid": "another"})),
        "unknown client": ("another", signed(STRANGE, iss="another", sub="another", header={"kid": "ec"})),
    }
    times = {name: [] for name in calls}
    for _ in range(150):
        for name, (client_id, assertion) in calls.items():
            caller = Caller("token", client_id, None, Peer("127.0.0.1"), assertion=assertion)
            began = time.thread_time_ns()
            with pytest.raises(Refusal):
                clients.prove(caller)
            times[name].append(time.thread_time_ns() - began)
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


@pytest.mark.parametrize(
    "written",
    [
        {"jwks_file": None},
        {"jwks_uri": "https://gateway.example/jwks"},
        {"jwks_file": None, "jwks_uri": "http://gateway.example/jwks"},
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"ca_file": KeptFile(Path("ca.pem"), b"")},
    ],
)
def test_keys_are_written_in_one_place(written):
    with pytest.raises(ValidationError):
        client(**written)


def test_the_type_is_the_one_of_the_standard():
    assert ASSERTION_TYPE == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
