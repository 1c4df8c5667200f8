"""RFC 9068: the profile of the tokens we issue, and what is demanded of those that come in."""

import base64
import json
import re
import time

import jwt
import pytest
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from harness import CLIENT, JWT, b64, decoded, unb64
from joserfc.jwk import KeySet
from pydantic import ValidationError

from sts.policy.settings import AudienceSettings

OUR_ISSUER = "https://sts.example.internal/tenant"
ORDERS = "https://orders.example.internal/api"
AT_JWT = {"typ": "at+jwt"}


def rfc9068(provider, **changes):
    """Good claims of a token in the profile's full shape."""
    return provider.claims(client_id="app", jti="1", **changes)


# What we issue.


def test_the_header_is_of_the_profile(ask, providers):
    """AT-01, JW-24."""
    header, _ = decoded(ask(providers["plain"].token()).token)
    assert header == {"alg": "ES256", "kid": header["kid"], "typ": "at+jwt"}


def test_the_required_claims_are_there_with_the_types_they_must_have(ask, providers, judged):
    """AT-03, AT-12, TE-31."""
    claims = judged(ask(providers["plain"].token()))
    types = {"iss": str, "exp": int, "aud": str, "sub": str, "client_id": str, "iat": int, "jti": str}
    assert {name: type(claims[name]) for name in types} == types
    assert abs(claims["iat"] - time.time()) < 60


def test_authlibs_validator_of_the_profile_accepts_the_token_and_refuses_a_changed_one(rfc, ask, providers):
    """AT-01, AT-03: authlib's reading of RFC 9068 §4, at a resource server that knows the issuer's JWKS alone."""

    class Backend(JWTBearerTokenValidator):
        def get_jwks(self):
            return KeySet.import_key_set(rfc.jwks())

    def read(token, backend=ORDERS):
        validator = Backend(OUR_ISSUER, backend)
        found = validator.authenticate_token(token)
        validator.validate_token(found, ["orders:read"], None)
        return found

    token = ask(providers["plain"].token()).token
    assert read(token)["client_id"] == CLIENT
    header, claims, signature = token.split(".")
    changed = unb64(claims).replace(b'"alice"', b'"mallo"')
    for bad, backend in ((token, "https://shop.example.internal"), (f"{header}.{b64(changed)}.{signature}", ORDERS)):
        with pytest.raises(InvalidTokenError):
            read(bad, backend)


def test_a_login_is_told_as_the_provider_told_it_and_not_made_up(ask, providers, judged):
    """AT-05: an exchange is no login."""
    plain, then = providers["plain"], int(time.time()) - 1800
    login = {"auth_time": then, "acr": "urn:acr:2", "amr": ["pwd", "otp"]}
    told = judged(ask(plain.token(**login)))
    assert {name: told[name] for name in login} == login
    assert login.keys().isdisjoint(judged(ask(plain.token())))


@pytest.mark.parametrize("roles", [["a", "b"], ["a"], "a"], ids=str)
def test_roles_are_a_list_of_texts_whatever_the_provider_sends(ask, providers, judged, roles):
    """AT-07."""
    found = judged(ask(providers["plain"].token(roles=roles)))["roles"]
    assert found == ([roles] if isinstance(roles, str) else roles)


@pytest.mark.parametrize("roles", [[1], {"a": 1}, [["a"]], [{"value": "a"}], 5], ids=str)
def test_roles_of_another_shape_are_refused_and_not_reshaped(ask, providers, error_of, roles):
    """AT-07."""
    assert error_of(ask(providers["plain"].token(roles=roles))) == (400, "invalid_request", "no_mapping")


def test_a_jti_has_128_random_bits_and_is_used_once_per_token(ask, providers, judged):
    """AT-12."""
    found = {judged(ask(providers["plain"].token(iat=int(time.time()) - n)))["jti"] for n in range(20)}
    assert len(found) == 20
    assert all(len(base64.urlsafe_b64decode(jti + "==")) >= 16 for jti in found)


def test_a_token_holds_what_its_audience_names_and_nothing_of_the_inbound_one(ask, providers, judged):
    """AT-12: neither the token nor a claim that nobody asked for."""
    inbound = providers["plain"].token(email="alice@example.com", given_name="Alice", jti="inbound-jti", sid="s")
    token = ask(inbound, audience="open").token
    assert set(judged(ask(inbound, audience="open"), "open")) == {
        "iss", "sub", "aud", "exp", "iat", "jti", "client_id", "act", "src_iat",
    }  # fmt: skip
    text = json.dumps(decoded(token))
    for part in (*inbound.split("."), "alice@example.com", "Alice", "inbound-jti"):
        assert part not in text


def test_a_subject_that_is_named_like_a_client_is_refused(ask, providers, error_of):
    """AT-04: every configured client, not only the one that asks."""
    for name in (CLIENT, "narrow"):
        assert error_of(ask(providers["plain"].token(sub=name)))[2] == "subject_collision"


RESERVED = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "scope",
    "act",
    "may_act",
    "cnf",
    "typ",
    "azp",
]


@pytest.mark.parametrize("name", RESERVED)
def test_no_mapping_writes_a_claim_that_the_service_answers_for(name):
    """JW-32: the configuration does not load."""
    with pytest.raises(ValidationError, match="reserved"):
        AudienceSettings.model_validate({"claims": {name: "identity.subject"}})
    assert AudienceSettings.model_validate({"claims": {f"x_{name}": "identity.subject"}})


# What we accept.


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_usual_header_types_pass_in_every_spelling(ask, providers, typ):
    """AT-08, JW-25."""
    assert ask(providers["plain"].token(header={"typ": typ})).status == 200


@pytest.mark.parametrize(
    "typ",
    ["txntoken+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "token-introspection+jwt", "JOSE", "jws", "x/at+jwt"],
)
def test_a_token_of_another_explicit_type_is_refused(ask, providers, error_of, typ):
    """AT-08, JW-24."""
    answer = ask(providers["plain"].token(header={"typ": typ}))
    assert error_of(answer) == (400, "invalid_request", "bad_type")


def test_a_source_may_demand_the_profile(ask, providers, error_of):
    """AT-08."""
    strict = providers["strict"]
    for typ in ("at+jwt", "application/at+jwt"):
        assert ask(strict.rsa.sign(rfc9068(strict), {"typ": typ})).status == 200
    for typ in ("JWT", None):
        assert error_of(ask(strict.rsa.sign(rfc9068(strict), {"typ": typ})))[2] == "bad_type"


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_the_profile_wants_every_one_of_its_claims(ask, providers, error_of, name):
    """AT-03, AT-08."""
    strict = providers["strict"]
    kept = {claim: value for claim, value in rfc9068(strict).items() if claim != name}
    status, code, _ = error_of(ask(strict.rsa.sign(kept, AT_JWT)))
    assert (status, code) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://plain.example.com/"}, "unknown_issuer"),
        ({"iss": "https://PLAIN.example.com"}, "unknown_issuer"),
        ({"aud": "api"}, "audience_mismatch"),
        ({"aud": ["api-gateway-2", "x"]}, "audience_mismatch"),
        ({"aud": []}, "audience_mismatch"),
        ({"aud": None}, "audience_mismatch"),
        ({"exp": None}, "malformed"),
    ],
    ids=str,
)
def test_issuer_and_audience_are_compared_exactly(ask, providers, error_of, changes, reason):
    """AT-09, JW-21."""
    answer = ask(providers["plain"].token(**changes))
    assert error_of(answer) == (400, "invalid_request", reason)


def test_the_signature_is_the_issuers_and_its_algorithm_configured(ask, providers, error_of):
    """AT-09, JW-20."""
    plain, strict = providers["plain"], providers["strict"]
    foreign = strict.rsa.sign(plain.claims())  # the same key id, another issuer's key
    assert error_of(ask(foreign))[2] == "bad_signature"
    other = jwt.encode(plain.claims(), plain.rsa.private, "RS512", headers={"kid": plain.rsa.kid})
    assert error_of(ask(other))[2] == "bad_algorithm"


def test_a_token_that_has_ended_is_refused_at_once_and_a_start_may_be_a_little_ahead(ask, providers, error_of):
    """AT-09, JW-29: the skew helps clocks that differ, never a token that is over."""
    plain, now = providers["plain"], int(time.time())
    assert error_of(ask(plain.token(exp=now)))[2] == "expired"
    assert ask(plain.token(nbf=now + 5, iat=now + 5)).status == 200
    assert error_of(ask(plain.token(nbf=now + 300)))[2] == "not_yet_valid"
    assert error_of(ask(plain.token(iat=now + 300)))[2] == "not_yet_valid"


def test_an_encrypted_token_is_refused_as_long_as_no_source_reads_one(ask, error_of):
    """AT-10, JW-07."""
    jwe = ".".join(
        [b64({"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": "rsa-1"}), *(b64(b"x" * 16) for _ in range(4))]
    )
    assert error_of(ask(jwe, subject_token_type=JWT)) == (400, "invalid_request", "bad_type")
    assert error_of(ask(jwe)) == (400, "invalid_request", "unknown_issuer")


@pytest.mark.parametrize(
    "changes",
    [{"exp": 1}, {"aud": "x"}, {"iss": "https://x.example"}, {"cnf": {"jkt": "x"}}, {"nbf": 4_000_000_000}],
    ids=str,
)
def test_at_forward_auth_a_token_that_fails_is_401_invalid_token(rfc, providers, changes):
    """AT-11, BE-03."""
    answer = rfc.forward(providers["plain"].token(**changes))
    assert answer.status == 401
    assert re.match(
        r'Bearer realm="sts", error="invalid_token", error_description="[^"\\]+"$', answer.headers["www-authenticate"]
    )
