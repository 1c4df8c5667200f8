import json

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sts.credentials.jwt import JwtKind, JwtSource, JwtSourceSettings
from sts.errors import (
    AUDIENCE_MISMATCH,
    BAD_ALGORITHM,
    BAD_SIGNATURE,
    BAD_TYPE,
    EXPIRED,
    MALFORMED,
    TOO_LARGE,
    UNKNOWN_ISSUER,
    UNKNOWN_KEY,
    Refusal,
)
from sts.jose import SUPPORTED
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN, TYPE_JWT, Credential, Principal
from sts.options import Place
from sts.trust.remote_jwks import FileJwks

NOW = 1_800_000_000.0
TYPES = [TYPE_JWT, TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN]
MINIMAL = {
    "type": "jwt",
    "issuer": "https://idp.example.com",
    "jwks_uri": "http://127.0.0.1:9000/jwks.json",
    "algorithms": ["RS256", "ES256"],
    "audience": "api-gateway",
    "identity": {"subject": "claims.sub"},
}


@pytest.fixture
def settings(tmp_path):
    def read(**changed):
        written = {name: value for name, value in {**MINIMAL, **changed}.items() if value is not ...}
        return JwtSourceSettings.model_validate(written, context=Place(tmp_path, {}))

    return read


@pytest.fixture
def kind(settings, jwks_file):
    """The kind over one source with these settings, its keys from the third party's file."""

    def make(**changed):
        source = settings(jwks_uri=..., jwks_file=str(jwks_file), **changed)
        return JwtKind([JwtSource("idp", source, FileJwks(source.jwks_file, source.algorithms))])

    return make


@pytest.fixture
def proven(kind):
    """Recognise and prove a token at a source with these settings."""

    def prove(token, declared=TYPE_ACCESS_TOKEN, **changed):
        one = kind(**changed)
        presented = one.recognise(Credential(declared, token))
        return one._by_issuer[MINIMAL["issuer"]].prove(presented, NOW)

    return prove


# Settings


def test_the_smallest_source_has_safe_defaults(settings):
    source = settings()
    assert source.audience == ("api-gateway",)
    assert source.audience_claim == "aud"
    assert source.token_types == ("access_token", "jwt")
    assert source.typ is None
    assert (source.leeway, source.stale_jwks) == (10, 3600)
    assert source.max_lifetime is source.max_age is source.max_auth_age is None
    assert source.enabled


def test_every_key_of_the_contract_is_read(settings, tmp_path):
    source = settings(
        enabled=True,
        jwks_uri="https://idp.example.com/jwks",
        ca_file="corporate-root.pem",
        audience=["api-gateway", "other"],
        audiences=["*"],
        namespace="",
        token_types=["access_token", "jwt", "id_token"],
        typ=["at+jwt", "JWT"],
        leeway="10s",
        max_lifetime="24h",
        max_age="12h",
        max_auth_age="8h",
        stale_jwks="1h",
        require="claims.email_verified == true",
        identity={"subject": "claims.sub", "email": "claims.email"},
    )
    assert source.ca_file.path == tmp_path / "corporate-root.pem"
    assert (source.max_lifetime, source.max_age, source.max_auth_age) == (86400, 43200, 28800)
    assert source.trusted("idp").issuer == MINIMAL["issuer"]
    assert JwtSourceSettings.not_yet == {"envelope"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": ["RS256", "HS256"]},
        {"algorithms": ["rs256"]},
        {"algorithms": ["ES256K"]},
        {"algorithms": ...},
        {"audience": []},
        {"audience": ""},
        {"audience": ["api", ""]},
        {"audience": ...},
        {"audience_claim": ""},
        {"issuer": ""},
        {"issuer": ...},
        {"token_types": []},
        {"token_types": ["refresh_token"]},
        {"typ": []},
        {"typ": [""]},
        {"leeway": "61s"},
        {"leeway": 10},
        {"jwks_uri": ...},
        {"jwks_file": "jwks.json"},
        {"discovery": True},
        {"jwks_uri": ..., "discovery": True, "issuer": "idp"},
        {"jwks_uri": ..., "discovery": True, "issuer": "http://idp.example.com"},
        {"jwks_uri": ..., "jwks_file": "jwks.json", "ca_file": "ca.pem"},
        {"jwks_uri": "http://idp.example.com/jwks"},
        {"jwks_uri": "https://user:secret@idp.example.com/jwks"},
        {"identity": ...},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_source_that_would_accept_too_much_or_nothing_is_a_fault(wrong, settings):
    """JW-01, AT-09."""
    with pytest.raises(ValidationError):
        settings(**wrong)


@pytest.mark.parametrize("algorithm", sorted(SUPPORTED))
def test_every_supported_algorithm_may_be_configured(algorithm, settings):
    """JW-01, JW-40."""
    assert settings(algorithms=[algorithm]).algorithms == (algorithm,)


def test_discovery_and_a_file_stand_for_jwks_uri(settings, tmp_path):
    assert settings(jwks_uri=..., discovery=True).trusted("idp").discovery
    assert settings(jwks_uri=..., jwks_file="a.json").trusted("idp").jwks_file.path == tmp_path / "a.json"


# A good token


@pytest.mark.parametrize("kid", ["rsa", "ec"])
@pytest.mark.parametrize("declared", [TYPE_JWT, TYPE_ACCESS_TOKEN])
def test_a_good_token_becomes_a_principal_of_facts(kid, declared, idp, proven):
    extra = {"nbf": NOW - 5, "auth_time": NOW - 60, "jti": "id", "act": {"sub": "a"}, "may_act": {"sub": "b"}}
    extra |= {"acr": "mfa", "amr": ["pwd", "otp"]}
    principal = proven(idp.token(kid=kid, cnf={"jkt": "x"}, **extra), declared)
    assert principal == Principal(
        kind="jwt",
        source="idp",
        issuer="https://idp.example.com",
        subject="alice",
        audience=("api-gateway",),
        reach=NOT_APPLICABLE,
        expires_at=NOW + 600,
        not_before=NOW - 5,
        issued_at=NOW,
        since=NOW,
        auth_time=NOW - 60,
        fresh_until=NOT_APPLICABLE,
        confirmation={"jkt": "x"},
        act={"sub": "a"},
        may_act={"sub": "b"},
        acr="mfa",
        amr=["pwd", "otp"],
        jti="id",
        proof_key=principal.proof_key,
        attributes={**idp.claims, **extra, "cnf": {"jkt": "x"}},
    )


def test_what_a_token_leaves_out_is_none(idp, proven):
    principal = proven(idp.token(without=["iat", "sub"]))
    absent = ("subject", "not_before", "issued_at", "auth_time", "confirmation", "act", "may_act")
    assert [getattr(principal, name) for name in absent] == [None] * 7


def test_the_proof_names_a_key_in_force(idp, kind):
    one = kind()
    source = one._by_issuer[MINIMAL["issuer"]]
    principal = source.prove(one.recognise(Credential(TYPE_JWT, idp.token())), NOW)
    assert source.key_current(principal.proof_key)
    assert not source.key_current("another")


def test_nothing_but_the_end_is_judged_by_the_proof(idp, proven):
    """`admit` judges, for every kind; the proof of a token for somebody else is still a proof."""
    assert proven(idp.token(exp=NOW + 1, nbf=NOW + 900, aud="elsewhere")).audience == ("elsewhere",)


def forged(token):
    """The same claims under a signature that is none of the issuer's."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{'AAAA' if signature[:4] != 'AAAA' else 'BBBB'}{signature[4:]}"


def test_an_expired_token_is_refused_before_its_signature_and_its_key_are_looked_at(idp, settings, refused):
    source = JwtSource("idp", settings(), keys=None)  # a look at a key would be an AttributeError
    for token in (idp.token(exp=NOW), forged(idp.token(exp=NOW - 60))):
        presented = JwtKind([source]).recognise(Credential(TYPE_JWT, token))
        with refused(EXPIRED) as caught:
            source.prove(presented, NOW)
        assert caught.value.facts["unverified"] is True


@pytest.mark.parametrize("changes", [{"aud": "elsewhere"}, {"without": ["aud"]}, {"nbf": NOW + 900}], ids=str)
def test_before_its_signature_a_token_is_refused_for_nothing_else_that_it_claims(idp, proven, refused, changes):
    """A forger is not told what the source demands."""
    with refused(BAD_SIGNATURE):
        proven(forged(idp.token(**changes)))


def test_limits_are_those_of_the_settings(settings):
    source = JwtSource("idp", settings(audience=["a", "b"], leeway="20s", max_age="1h"), keys=None)
    assert source.limits.audiences == {"a", "b"}
    assert (source.limits.leeway, source.limits.max_age, source.limits.max_auth_age) == (20, 3600, None)


def test_another_claim_may_name_the_audience(idp, proven, refused):
    token = idp.token(without=["aud"], client_id="app")
    assert proven(token, audience_claim="client_id").audience == ("app",)
    with refused(AUDIENCE_MISMATCH):
        proven(token)
    with refused(MALFORMED):
        proven(idp.token(azp=5, without=["aud"]), audience_claim="azp")


def test_another_claim_stands_in_for_no_aud_that_names_somebody_else(idp, proven):
    token = idp.token(aud="other-service", client_id="app")
    assert proven(token, audience_claim="client_id").audience == ("other-service",)


# Which source


def test_the_issuer_is_looked_up_exactly_and_before_anything_is_fetched(idp, settings, refused):
    """AT-09, JW-20."""

    class NeverAsked:
        def keys_for(self, *_):
            raise AssertionError

    kind = JwtKind([JwtSource("idp", settings(), NeverAsked())])
    for issuer in (
        "https://idp.example.com/",
        "HTTPS://idp.example.com",
        "https://idp.example.co",
        "https://evil.example",
        "",
    ):
        with refused(UNKNOWN_ISSUER):
            kind.recognise(Credential(TYPE_JWT, idp.token(iss=issuer)))
    with refused(UNKNOWN_ISSUER):
        kind.recognise(Credential(TYPE_JWT, idp.token(without=["iss"])))


def test_the_key_of_one_issuer_proves_nothing_for_another(idp, settings, jwks_file, tmp_path, refused):
    """JW-20. RFC 8725 §3.8."""
    other = {
        **idp.jwks()["keys"][0],
        "n": pyjwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)[
            "n"
        ],
    }
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"keys": [other]}))
    first = settings(jwks_uri=..., jwks_file=str(jwks_file))
    second = settings(jwks_uri=..., jwks_file=str(path), issuer="https://other.example.com")
    sources = {
        name: JwtSource(name, source, FileJwks(source.jwks_file, source.algorithms))
        for name, source in (("first", first), ("second", second))
    }
    kind = JwtKind(sources.values())
    presented = kind.recognise(Credential(TYPE_JWT, idp.token(iss="https://other.example.com")))
    assert presented.source == "second"
    with refused(BAD_SIGNATURE):
        sources["second"].prove(presented, NOW)


def test_what_does_not_look_signed_is_left_to_others_as_access_token_only(kind, refused):
    for opaque in ("op_5f9c", "a.b.c", "", "x" * 40_000, "\N{SNOWMAN}"):
        assert kind().recognise(Credential(TYPE_ACCESS_TOKEN, opaque)) is None
    for declared in (TYPE_JWT, TYPE_ID_TOKEN):
        with refused(MALFORMED):
            kind().recognise(Credential(declared, "op_5f9c"))


def test_what_looks_signed_goes_nowhere_else(idp, kind, refused):
    for broken, reason in (
        (idp.token() + "=", MALFORMED),
        (idp.token()[:-1], MALFORMED),
        (idp.token().rpartition(".")[0] + ".", BAD_SIGNATURE),
        (idp.token(iss="https://unknown.example.com"), UNKNOWN_ISSUER),
        (idp.token(padding="x" * 20_000), TOO_LARGE),
    ):
        with refused(reason):
            kind().recognise(Credential(TYPE_ACCESS_TOKEN, broken))


# Types


def test_a_jwe_is_no_signed_token(kind, refused):
    """JW-07."""
    jwe = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA"
    assert kind().recognise(Credential(TYPE_ACCESS_TOKEN, jwe)) is None
    with refused(BAD_TYPE):
        kind().recognise(Credential(TYPE_JWT, jwe))


ID_MARKS = [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"typ": "ID"}, {"nonce": None}]


@pytest.mark.parametrize("mark", ID_MARKS, ids=str)
@pytest.mark.parametrize("declared", TYPES)
def test_an_id_token_is_one_whatever_it_is_declared_as(mark, declared, idp, kind, refused):
    """TE-11."""
    token = idp.token(**mark)
    with refused(BAD_TYPE):
        kind().recognise(Credential(declared, token))
    assert kind(token_types=["id_token"]).recognise(Credential(declared, token))


@pytest.mark.parametrize(
    ("declared", "allowed", "passes"),
    [
        (TYPE_JWT, ["jwt"], True),
        (TYPE_JWT, ["access_token"], False),
        (TYPE_ACCESS_TOKEN, ["access_token"], True),
        (TYPE_ACCESS_TOKEN, ["jwt", "id_token"], False),
        (TYPE_ID_TOKEN, ["id_token"], True),
        (TYPE_ID_TOKEN, ["jwt", "access_token"], False),
    ],
)
def test_a_source_takes_the_declared_types_it_names(declared, allowed, passes, idp, kind, refused):
    """TE-11."""
    credential = Credential(declared, idp.token(typ="Bearer"))
    if passes:
        assert kind(token_types=allowed).recognise(credential).token_type == declared
    else:
        with refused(BAD_TYPE):
            kind(token_types=allowed).recognise(credential)


def test_a_logout_token_is_no_credential(idp, kind, refused):
    """JW-24."""
    logout = idp.token(events={"http://schemas.openid.net/event/backchannel-logout": {}}, sid="s")
    for declared in TYPES:
        with refused(BAD_TYPE):
            kind(token_types=["access_token", "jwt", "id_token"]).recognise(Credential(declared, logout))


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_ordinary_header_types_pass(typ, idp, proven):
    """AT-08."""
    assert proven(idp.token(header={"typ": typ}))


@pytest.mark.parametrize(
    "typ",
    [
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "txntoken+jwt",
        "client-authentication+jwt",
        "JOSE",
        " ",
        "text/JWT",
        "JWE",
    ],
)
def test_any_other_explicit_type_is_refused(typ, idp, kind, refused):
    """AT-08, JW-24."""
    with refused(BAD_TYPE):
        kind().recognise(Credential(TYPE_JWT, idp.token(header={"typ": typ})))


ACCESS_TOKEN = {"client_id": "app", "jti": "id"}


def test_a_source_may_demand_rfc_9068(idp, proven, refused):
    """AT-08."""
    assert proven(idp.token(header={"typ": "at+jwt"}, **ACCESS_TOKEN), typ=["at+jwt"])
    assert proven(idp.token(header={"typ": "at+jwt"}, **ACCESS_TOKEN), typ=["application/AT+JWT"])
    for typ in (None, "JWT"):
        with refused(BAD_TYPE):
            proven(idp.token(header={"typ": typ}, **ACCESS_TOKEN), typ=["at+jwt"])


@pytest.mark.parametrize("name", ["exp", "aud", "sub", "client_id", "iat", "jti"])
def test_rfc_9068_wants_all_its_claims(name, idp, proven, refused):
    """AT-03."""
    token = idp.token(without=[name], header={"typ": "at+jwt"}, claims={**idp.claims, **ACCESS_TOKEN})
    with refused(AUDIENCE_MISMATCH if name == "aud" else MALFORMED) as caught:
        proven(token, typ=["at+jwt"])
    assert caught.value.facts["claim"] == name
    if name not in {"exp", "aud"}:
        assert proven(token, typ=["at+jwt", "JWT"])


@pytest.mark.parametrize(("name", "reason"), [("exp", MALFORMED), ("aud", AUDIENCE_MISMATCH)])
def test_expiry_and_audience_must_be_there(name, reason, idp, proven, refused):
    """JW-21, JW-28. Lessons part 2, no. 13: a missing claim must not skip its check."""
    with refused(reason):
        proven(idp.token(without=[name]))


def test_a_client_id_is_a_text(idp, proven, refused):
    with refused(MALFORMED):
        proven(idp.token(client_id=["app"]))


# Proof


def test_the_algorithm_is_the_sources_before_the_keys_are_asked(idp, kind, refused):
    """JW-01."""
    with refused(BAD_ALGORITHM):
        kind(algorithms=["ES256"]).recognise(Credential(TYPE_JWT, idp.token(kid="rsa")))


def test_an_algorithm_and_key_that_do_not_fit_are_refused(idp, proven, refused):
    """JW-04."""
    token = pyjwt.encode(idp.claims, idp.keys["rsa"], "RS256", headers={"kid": "ec"})
    with refused(BAD_ALGORITHM):
        proven(token)


def test_a_kid_is_only_compared(idp, proven, refused):
    """JW-22."""
    for kid in ("../../etc/passwd", "x' OR '1'='1", "http://169.254.169.254/", "RSA"):
        with refused(UNKNOWN_KEY):
            proven(idp.token(header={"kid": kid}))


def test_a_token_without_kid_is_proven_by_the_key_that_fits(idp, proven):
    assert proven(pyjwt.encode(idp.claims, idp.keys["rsa"], "RS256"))


def test_a_key_that_the_token_brings_along_proves_nothing(idp, proven, refused):
    """JW-22. Embedded `jwk`, `jku`, `x5u` (RFC 8725 §3.10): the attacker's key signs, the header offers it."""
    evil = rsa.generate_private_key(65537, 2048)
    own = pyjwt.algorithms.RSAAlgorithm.to_jwk(evil.public_key(), as_dict=True)
    offers = {"jwk": own, "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/", "x5c": ["AAAA"]}
    with refused(BAD_SIGNATURE):
        proven(pyjwt.encode(idp.claims, evil, "RS256", headers={"kid": "rsa", **offers}))


def test_changed_claims_are_refused(idp, proven, refused):
    head, _, signature = idp.token().split(".")
    forged = idp.token(sub="root").split(".")[1]
    with refused(BAD_SIGNATURE):
        proven(f"{head}.{forged}.{signature}")


# Laws


@given(st.text(max_size=100) | st.text("eyJ.-_A=", max_size=60), st.sampled_from(TYPES))
def test_arbitrary_text_is_refused_or_left_to_others(text, declared):
    try:
        assert JwtKind([]).recognise(Credential(declared, text)) is None
    except Refusal:
        return
    assert declared == TYPE_ACCESS_TOKEN


def test_facts_of_a_refusal_hold_no_claim(idp, kind):
    for token in (
        idp.token(sub=["marked"]),
        idp.token(iss="marked"),
        idp.token(header={"typ": "marked"}),
        "marked.x.y",
    ):
        with pytest.raises(Refusal) as caught:
            kind().recognise(Credential(TYPE_JWT, token))
        assert "marked" not in str(caught.value.facts)
