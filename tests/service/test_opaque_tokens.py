"""Opaque tokens as a user runs them: a real authorization server behind both doors, judged by PyJWT."""

import json
import time

import pytest
import yaml
from harness import ID_TOKEN, JWT, Service, minimal, wait_for
from opaque import AuthorizationServer, source

TTL = 1.5
"""Seconds for which the service believes an answer, in tests that wait for them."""


def with_source(idp, server, **changes):
    """contract/minimal.yaml with a second source, for opaque tokens."""
    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"]["legacy"] = source(server, match={"prefix": "op_"}, **changes)
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    document["workers"] = 1
    return document


@pytest.fixture(scope="module")
def as_():
    server = AuthorizationServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def opaque_service(idp, as_, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("opaque"), json.dumps(with_source(idp, as_)))
    yield running
    assert running.stop() == 0, running.log()


def test_an_opaque_token_becomes_an_internal_one_at_both_doors(opaque_service, as_):
    """BE-01: the same identity, whichever door."""
    token = as_.token()
    at_token, at_forward = opaque_service.exchange(token), opaque_service.forward(token)
    assert (at_token.status, at_forward.status) == (200, 200)
    for answer in (at_token, at_forward):
        claims = opaque_service.verified(answer.token)
        assert claims["sub"] == "op|batch"
        assert claims["act"] == {"sub": "edge-gateway", "iss": "https://sts.example.internal"}
    assert at_token.json["scope"] == "orders:read orders:write"
    assert as_.times(token) == 1
    event = opaque_service.events()[-1]
    assert (event["source"], event["kind"], event["outcome"]) == ("legacy", "introspection", "allowed")


def test_a_jwt_still_goes_to_its_issuer_alone(opaque_service, as_, idp):
    """IN-06."""
    before = len(as_.asked)
    assert opaque_service.exchange(idp.token()).status == 200
    assert opaque_service.exchange(idp.token(iss="https://evil.example")).reason == "unknown_issuer"
    assert opaque_service.exchange(idp.token() + "x").reason in {"bad_signature", "malformed"}
    assert len(as_.asked) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "elsewhere"}, "audience_mismatch"),
        ({"aud": None}, "audience_mismatch"),
        ({"iss": "https://evil.example"}, "unknown_issuer"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"cnf": {"jkt": "x"}}, "binding_failed"),
        ({"sub": None}, "no_mapping"),
        ({"scope": None}, "insufficient_scope"),
        ({"exp": "soon"}, "malformed"),
        ({"token_type": "refresh_token"}, "bad_type"),
        ({"active": "true"}, "revoked"),
    ],
)
def test_what_the_server_says_is_judged_as_a_jwts_claims_are(opaque_service, as_, changes, reason):
    """IN-02, IN-04, IN-05, TE-12, MT-07."""
    token = as_.token(**changes)
    assert opaque_service.exchange(token).reason == reason
    assert opaque_service.forward(token).status in {401, 403}
    assert [event["reason"] for event in opaque_service.events()[-2:]] == [reason, reason]


def test_a_token_nobody_issued_and_a_revoked_one_are_refused(opaque_service, as_):
    revoked = as_.token()
    as_.revoke(revoked)
    for token in ("op_made-up", revoked):
        answer = opaque_service.exchange(token)
        assert (answer.status, answer.json["error"], answer.reason) == (400, "invalid_request", "revoked")
        forwarded = opaque_service.forward(token)
        assert (forwarded.status, forwarded.headers["x-auth-reason"]) == (401, "invalid_credential")
        assert 'error="invalid_token"' in forwarded.headers["www-authenticate"]


def test_a_token_ends_no_later_than_the_opaque_one(opaque_service, as_):
    """TE-30."""
    end = int(time.time()) + 120
    assert opaque_service.verified(opaque_service.exchange(as_.token(exp=end)).token)["exp"] == end


def test_junk_and_other_types_never_reach_the_server(opaque_service, as_):
    """IN-07."""
    before = len(as_.asked)
    for token, reason in (("op_" + "x" * 40_000, "too_large"), ("op_a b", "malformed"), ("zz_1", "unknown_issuer")):
        assert opaque_service.exchange(token).reason == reason
    for declared in (JWT, ID_TOKEN, "urn:example:opaque"):
        assert opaque_service.exchange(as_.token(), token_type=declared).reason in {"malformed", "bad_type"}
    assert len(as_.asked) == before


def test_no_token_stands_in_log_or_audit(opaque_service, as_):
    token = as_.token()
    opaque_service.exchange(token)
    opaque_service.forward(token)
    assert token[3:] not in opaque_service.log() + opaque_service.audit_file.read_text(encoding="utf-8")


def test_what_came_of_questions_is_counted(opaque_service, as_):
    opaque_service.exchange(as_.token())
    opaque_service.exchange("op_nobodys")
    found = opaque_service.get("/metrics").body.decode()
    for outcome in ("active", "inactive"):
        assert f'sts_introspections_total{{outcome="{outcome}",source="legacy"}}' in found


def test_a_revocation_there_stops_new_requests_after_the_ttl_and_not_after_ours(make_service, idp, as_):
    """IN-09, CA-03: the cache of minted tokens ends with what was known, though the token would live for minutes."""
    service = make_service(json.dumps(with_source(idp, as_, cache_ttl=f"{int(TTL * 1000)}ms")))
    token = as_.token()
    first = service.exchange(token)
    known_at = last_asked = time.monotonic()
    as_.revoke(token)
    asking = time.monotonic()
    while (answer := service.exchange(token)).status == 200:
        assert answer.token == first.token  # nothing is minted anew from what is known no more
        last_asked = asking
        time.sleep(0.02)
        asking = time.monotonic()
    assert answer.reason == "revoked"
    assert last_asked - known_at < TTL
    assert service.verified(first.token)["exp"] > time.time() + 100
    assert service.forward(token).status == 401
    assert service.verified(first.token)  # what was handed out lives to its end: docs/opaque-tokens.md says so


def test_a_disabled_source_refuses_its_tokens_cached_ones_too_and_asks_nobody(make_service, idp, as_):
    """IN-06: nor do they fall to the source that takes the rest."""
    document = with_source(idp, as_)
    document["sources"]["rest"] = {**source(as_), "namespace": "rest"}
    service = make_service(json.dumps(document))
    token = as_.token()
    assert service.exchange(token).status == 200
    before = as_.times(token)
    document["sources"]["legacy"]["enabled"] = False
    service.write(json.dumps(document))
    assert service.reload()["event"] == "reloaded"
    wait_for(lambda: service.exchange(token).reason == "unknown_issuer")
    assert service.forward(token).status == 401
    assert as_.times(token) == before


def test_a_kind_whose_credential_has_no_scopes_takes_them_from_the_mapping(make_service, idp, as_):
    """Unknown is not all: a server that names no scopes gives what the mapping writes, and nothing without."""
    document = with_source(idp, as_, identity={"subject": "claims.sub", "scopes": "['orders:read']"})
    document["sources"]["rest"] = {**source(as_, identity={"subject": "claims.sub"}), "namespace": "rest"}
    service = make_service(json.dumps(document))
    token = as_.token(scope=None)
    answer = service.exchange(token)
    assert (answer.status, answer.json["scope"]) == (200, "orders:read")
    assert service.exchange(token, scope="orders:write").reason == "insufficient_scope"
    assert service.forward(token, method="DELETE").headers["x-auth-reason"] == "insufficient_scope"
    assert service.forward(token).status == 200
    as_.prefix = "rest-"
    unmapped = as_.token()
    as_.prefix = "op_"
    assert service.exchange(unmapped).reason == "insufficient_scope"
    assert service.forward(unmapped).headers["x-auth-reason"] == "insufficient_scope"


# Consent (three written parts, in both directions)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("clients", "edge-gateway", "audiences"), ["billing"]),
        (("clients", "edge-gateway", "sources"), ["corporate-idp"]),
        (("sources", "legacy", "audiences"), ["billing"]),
    ],
    ids=["the client does not list the audience", "nor the source", "nor the source the audience"],
)
def test_each_part_of_the_consent_missing_alone_refuses_at_both_doors(make_service, idp, as_, path, value):
    """BE-04: and it is the one that is missing, for the other kind of credential passes where it is not concerned."""
    document = with_source(idp, as_)
    section, name, key = path
    document[section][name][key] = value
    if key == "audiences" and section == "clients":
        document["clients"][name].pop("default_audience", None)
    service = make_service(json.dumps(document))
    opaque, signed = as_.token(), idp.token()
    answer = service.exchange(opaque)
    assert (answer.status, answer.json["error"], answer.reason) == (400, "invalid_target", "no_consent")
    forwarded = service.forward(opaque)
    assert (forwarded.status, forwarded.headers["x-auth-reason"]) == (403, "no_consent")
    assert as_.times(opaque) == 0  # refused before anything is asked
    expected = "no_consent" if section == "clients" and key == "audiences" else None
    for other in (service.exchange(signed), service.forward(signed)):
        assert (other.reason if other.status != 200 else None) == expected
    if key == "sources":
        document["clients"][name]["sources"] = ["legacy"]
        service.write(json.dumps(document))
        assert service.reload()["event"] == "reloaded"
        wait_for(lambda: service.exchange(opaque).status == 200)
        assert service.exchange(signed).reason == "no_consent"


def test_with_all_three_written_it_passes_at_both_doors(make_service, idp, as_):
    document = with_source(idp, as_, audiences=["orders"])
    document["clients"]["edge-gateway"].update({"audiences": ["orders", "billing"], "sources": ["legacy"]})
    service = make_service(json.dumps(document))
    token = as_.token()
    assert (service.exchange(token).status, service.forward(token).status) == (200, 200)
    assert service.exchange(token, "billing").reason == "no_consent"
    assert service.forward(token, "/billing/1").headers["x-auth-reason"] == "no_consent"
