"""contract/minimal.yaml as a user runs it: both doors over HTTP, judged by PyJWT."""

import base64
import hashlib
import time

import jwt
import pytest
from harness import ACCESS_TOKEN, GRANT, IDP, ISSUER, JWT, decoded, minimal


def test_an_exchanged_token_verifies_and_says_what_it_must(service, idp):
    """TE-13, TE-14, TE-17, AT-01, AT-03."""
    asked = time.time()
    answer = service.exchange(idp.token())
    answered = time.time()
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert answer.json["issued_token_type"] == ACCESS_TOKEN
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["scope"] == "orders:read orders:write"
    header, _ = decoded(answer.token)
    claims = service.verified(answer.token)
    assert header == {"alg": "ES256", "kid": header["kid"], "typ": "at+jwt"}
    assert claims["exp"] - answered - 1 <= answer.json["expires_in"] <= claims["exp"] - asked + 1
    assert 295 <= claims["exp"] - claims["iat"] <= 300
    assert {name: claims[name] for name in ("iss", "sub", "aud", "client_id", "scope", "tenant", "roles", "act")} == {
        "iss": ISSUER,
        "sub": "alice",
        "aud": "orders",
        "client_id": "edge-gateway",
        "scope": "orders:read orders:write",
        "tenant": "agency-7",
        "roles": ["accountant"],
        "act": {"sub": "edge-gateway", "iss": ISSUER},
    }
    assert set(claims) == {
        "iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "act", "src_iat", "tenant", "roles",
    }  # fmt: skip


def test_an_ec_key_of_the_provider_serves_as_well(service, idp):
    assert service.exchange(idp.token(idp.ec), token_type=JWT).status == 200


def test_the_same_request_is_answered_from_the_cache_and_says_what_is_left(service, idp):
    """Lesson C.1: `expires_in` is what remains."""
    token = idp.token()
    first, second = (service.exchange(token) for _ in range(2))
    for _ in range(4):  # each worker has a cache of its own
        second = service.exchange(token)
    assert service.verified(second.token)["jti"]
    assert any(event["cached"] for event in service.events()[-5:])
    assert second.json["expires_in"] <= first.json["expires_in"]


def test_a_token_never_outlives_the_credential(service, idp):
    """TE-30."""
    end = int(time.time()) + 120
    answer = service.exchange(idp.token(exp=end))
    assert service.verified(answer.token)["exp"] == end


def test_scopes_are_what_was_asked_and_never_more(service, idp):
    """TE-07, TE-08."""
    narrow = service.exchange(idp.token(), scope="orders:read")
    assert narrow.json["scope"] == service.verified(narrow.token)["scope"] == "orders:read"
    wide = service.exchange(idp.token(scope="orders:read"), scope="orders:read orders:write")
    assert (wide.status, wide.json["error"], wide.reason) == (400, "invalid_scope", "insufficient_scope")


def test_forward_auth_answers_with_the_token_and_every_identity_header(service, idp):
    """FA-06, FA-08."""
    answer = service.forward(idp.token())
    assert answer.status == 200
    claims = service.verified(answer.token)
    assert claims["scope"] == "orders:read"
    assert answer.headers["x-user-id"] == "alice"
    assert answer.headers["x-tenant-id"] == "agency-7"
    assert int(answer.headers["x-token-expires-at"]) == claims["exp"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]


def test_an_audience_without_headers_still_answers_each_of_the_configuration(service, idp):
    answer = service.forward(idp.token(), "/billing/1")
    assert (answer.status, answer.headers["x-user-id"], answer.headers["x-tenant-id"]) == (200, "-", "-")


def test_a_public_route_needs_the_gateway_and_no_credential(service):
    """FA-09."""
    answer = service.forward(None, "/health")
    assert answer.status == 200
    assert [answer.headers[name] for name in ("authorization", "x-user-id", "x-tenant-id")] == ["-", "-", "-"]
    refused = service.forward(None, "/health", X_Gateway_Secret="wrong")
    assert (refused.status, refused.headers["x-auth-reason"]) == (403, "client_refused")


def test_the_most_specific_route_names_the_scope(service, idp):
    """BE-04."""
    reader = idp.token(scope="orders:read")
    assert service.forward(reader).status == 200
    refused = service.forward(reader, method="DELETE")
    assert (refused.status, refused.headers["x-auth-reason"]) == (403, "insufficient_scope")
    assert 'scope="orders:write"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"aud": "elsewhere"}, "audience_mismatch"),
        ({"iss": "https://evil.example"}, "unknown_issuer"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"sub": None}, "no_mapping"),
        ({"cnf": {"jkt": "x"}}, "binding_failed"),
    ],
)
def test_both_doors_refuse_alike(service, idp, changes, reason):
    """TE-12, AT-11, BE-03."""
    token = idp.token(**changes)
    at_token, at_forward = service.exchange(token), service.forward(token)
    assert (at_token.status, at_token.json["error"], at_token.reason) == (400, "invalid_request", reason)
    assert at_forward.status == (403 if reason == "no_mapping" else 401)
    events = service.events()[-2:]
    assert [event["reason"] for event in events] == [reason, reason]


def test_allow_is_asked_and_its_refusal_told_alike_to_all(service, idp):
    answer = service.exchange(idp.token(roles=["clerk"]), "billing")
    assert (answer.status, answer.reason) == (400, "not_allowed")


def test_no_token_at_all_is_a_bare_challenge(service):
    """BE-01."""
    answer = service.forward(None)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "error" not in answer.headers["www-authenticate"]


def test_an_actor_token_names_who_acts_and_is_not_dropped(service, idp):
    """TE-25: not even where the client may bring none, which is the default."""
    actor = {"actor_token": idp.token(sub="robot"), "actor_token_type": ACCESS_TOKEN}
    named = idp.token(may_act={"iss": idp.issuer, "sub": "robot"})
    assert service.verified(service.exchange(named, **actor).token)["act"] == {"sub": "robot", "iss": idp.issuer}
    assert service.exchange(idp.token(), **actor).reason == "actor_refused"


def test_a_wrong_secret_and_an_unknown_client_get_the_same_answer(service, idp):
    """EP-06, EP-07."""
    form = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": JWT, "audience": "orders"}
    wrong, unknown = service.post(form, secret="wrong"), service.post(form, client="nobody")
    assert wrong.status == unknown.status == 401
    assert wrong.body == unknown.body
    assert wrong.headers["www-authenticate"].startswith("Basic")


def test_a_token_of_our_own_is_no_credential(service, idp):
    """TE-33."""
    own = service.exchange(idp.token()).token
    assert service.exchange(own).reason == "unknown_issuer"
    assert service.forward(own).status == 401


def test_the_public_documents_let_a_backend_find_the_keys(service):
    """MD-06, JK-01."""
    first = service.get("/.well-known/oauth-authorization-server")
    second = service.get("/.well-known/openid-configuration")
    assert first.body == second.body
    assert first.json["issuer"] == ISSUER
    answer = service.get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert len(jwt.PyJWKSet.from_dict(answer.json).keys) == 2
    again = service.get("/.well-known/jwks.json", {"If-None-Match": answer.headers["etag"]})
    assert again.status == 304


def test_an_unknown_page_is_no_door(service):
    assert service.get("/").status == 404
    assert service.get("/tokens").status == 404


def test_a_backend_that_asks_for_evidence_is_told_of_the_login_at_both_doors_and_from_the_cache(
    make_service, configured, make_idp
):
    """AT-05: the values are the provider's own."""
    idp = make_idp()
    service = make_service(configured(minimal(idp), {"workers": 1, "audiences/orders/evidence": True}))
    login = {"auth_time": int(time.time()) - 3600, "acr": "urn:mfa", "amr": ["pwd", "otp"]}
    token = idp.token(jti="token-7", **login)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"token-7").digest()).decode().rstrip("=")
    for answer in (service.exchange(token), service.exchange(token), service.forward(token)):
        claims = service.verified(answer.token)
        assert {name: claims[name] for name in login} == login
        assert claims["evidence"] == {"iss": IDP, "jti_hash": digest}
    assert login.keys().isdisjoint(service.verified(service.exchange(token, "billing").token, "billing"))
