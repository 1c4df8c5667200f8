"""The forward-auth door: what it reads, what it answers."""

import json
import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sts.edge.forward_auth import ForwardAuthDoor, ForwardAuthSettings, bearer
from sts.edge.routes import Routes, RouteSettings
from sts.errors import (
    BAD_SIGNATURE,
    EXPIRED,
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    NO_KEY,
    NOT_ALLOWED,
    REASONS,
    REVOKED,
    Refusal,
)
from sts.model import TYPE_ACCESS_TOKEN, Ask, Credential, RequestFacts

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
ROUTES = {
    "orders": RouteSettings(path="/orders/**", methods=("GET", "POST"), audience="orders", scopes=("orders:read",)),
    "billing": RouteSettings(path="/billing/**", audience="billing"),
    "health": RouteSettings(path="/health", public=True),
    "preflight": RouteSettings(path="/**", preflight=True),
}


def door(**settings):
    names = ["X-User-ID", "X-Tenant-ID", "X-User-ID"]
    return ForwardAuthDoor(ForwardAuthSettings(**settings), Routes(ROUTES), names, {"orders": 3000, "billing": 3000})


@pytest.fixture
def ask(request_to, answer, client_id, secret):
    """Ask as nginx does; a header of None is left out. Returns the reply."""

    def send(uri="/orders/1", method="GET", headers=None, *, target=f"/forward-auth/{client_id}", at=None):
        given = {
            "X-Gateway-Secret": secret,
            "X-Original-Method": method,
            "X-Original-URI": uri,
            "X-Original-Host": "api.example.com",
            "Authorization": f"Bearer {TOKEN}",
            **(headers or {}),
        }
        kept = {name: value for name, value in given.items() if value is not None}
        return answer(at or door(), request_to("GET", target, kept))

    return send


def problem_of(reply):
    document = json.loads(reply.body)
    headers = dict(reply.headers)
    assert set(document) == {"type", "title", "status", "detail", "instance", "error_reason"}
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert document["status"] == reply.status
    assert document["instance"].endswith(headers["X-Request-ID"])
    assert headers["X-Auth-Reason"] == document["error_reason"] == document["type"].rpartition(":")[2]
    assert (reply.status == 503) == ("Retry-After" in headers)
    return reply.status, document["error_reason"], headers.get("WWW-Authenticate")


BARE = 'Bearer realm="sts"'
NARROW = (
    'Bearer realm="sts", error="insufficient_scope", '
    'error_description="The scope is not available to this request.", scope="orders:read"'
)
INVALID = 'Bearer realm="sts", error="invalid_token", error_description="The credential is not valid."'


# What passes.


def test_a_request_that_may_pass_gets_its_token_and_every_identity_header(ask, issued):
    """FA-06, FA-08."""
    reply = ask()
    assert reply.status == 200
    assert reply.body == b""
    assert dict(reply.headers) == {
        "Authorization": f"Bearer {issued.token}",
        "X-User-ID": "alice",
        "X-Tenant-ID": "-",
        "X-Token-Expires-At": str(issued.expires_at),
        "Cache-Control": "no-store",
        "X-Request-ID": "0123456789abcdef" * 2,
    }
    assert len({name.lower() for name, _ in reply.headers}) == len(reply.headers)


def test_another_token_header_holds_the_bare_token(ask, issued):
    headers = dict(ask(at=door(token_header="X-Internal-Token")).headers)
    assert headers["X-Internal-Token"] == issued.token
    assert "Authorization" not in headers


@pytest.mark.parametrize("credential", [None, f"Bearer {TOKEN}", "Bearer a,Bearer b", "nonsense"])
def test_a_public_route_reads_no_credential_and_mints_nothing(ask, answer, credential):
    """FA-06, FA-08, FA-11."""
    reply = ask("/health", headers={"Authorization": credential})
    assert reply.status == 200
    assert answer.asks[0].credential is None
    assert dict(reply.headers) == {
        "Authorization": "-",
        "X-User-ID": "-",
        "X-Tenant-ID": "-",
        "Cache-Control": "no-store",
        "X-Request-ID": "0123456789abcdef" * 2,
    }


def test_a_public_route_wants_the_client_proof_all_the_same(ask):
    assert problem_of(ask("/health", headers={"X-Gateway-Secret": None}))[:2] == (403, "client_refused")


def test_a_preflight_passes_only_as_a_preflight(ask):
    both = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "PUT", "Authorization": None}
    assert ask("/orders/1", "OPTIONS", both).status == 200
    assert dict(ask("/orders/1", "OPTIONS", both).headers)["Authorization"] == "-"
    for missing in ("Origin", "Access-Control-Request-Method"):
        assert problem_of(ask("/orders/1", "OPTIONS", {**both, missing: None}))[:2] == (403, "no_route")
    assert problem_of(ask("/other", "GET", both))[:2] == (403, "no_route")


def test_what_the_route_says_reaches_the_ask(ask, answer):
    ask(
        "/orders/1?x=1",
        headers={"X-Request-ID": "trace-1", "X-Original-Proto": "https", "X-Original-Addr": "192.0.2.7"},
    )
    assert answer.asks == [
        Ask(
            door="forward_auth",
            credential=Credential(TYPE_ACCESS_TOKEN, TOKEN),
            audiences=("orders",),
            scopes=("orders:read",),
            route="orders",
            request=RequestFacts("GET", "api.example.com", "/orders/1", "https", "192.0.2.7"),
        )
    ]


def test_a_route_without_scopes_asks_for_none(ask, answer):
    ask("/billing/1")
    assert answer.asks[0].scopes is None


@pytest.mark.parametrize("suffix", ["", "/", "/orders/1", "/a/../b", "?x=1", "/x?y", "//", "/%2e%2e"])
def test_any_suffix_of_the_path_is_ignored(ask, client_id, suffix):
    """FA-02."""
    assert ask(target=f"/forward-auth/{client_id}{suffix}").status == 200


# Who asks.


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (None, {"X-Gateway-Secret": None}),
        (None, {"X-Gateway-Secret": ""}),
        (None, {"X-Gateway-Secret": "wrong"}),
        (None, {"X-Gateway-Secret": "edge-gateway-secret-for-tests-only,edge-gateway-secret-for-tests-only"}),
        (None, {"X-Gateway-Secret": "edge-gateway-secret-for-tests-only,"}),
        (None, {"X-Gateway-Secret": "\xe9"}),
        ("/forward-auth/unknown", {}),
        ("/forward-auth/no-profile", {}),
        ("/forward-auth/", {}),
        ("/forward-auth", {}),
        ("/forward-auth//edge-gateway", {}),
        ("/forward-auth/edge%2Dgateway", {}),
        ("/forward-auth/edge-gateway;x", {}),
        ("/forward-auth/" + "x" * 129, {}),
        ("http://sts.example.internal/forward-auth/edge-gateway", {}),
        ("/forward-auth?/edge-gateway", {}),
        ("edge-gateway", {}),
    ],
)
def test_a_client_that_is_not_proven_gets_one_and_the_same_answer(ask, client_id, target, changes):
    """FA-09."""
    reply = ask(headers=changes, target=target or f"/forward-auth/{client_id}")
    assert problem_of(reply) == (403, "client_refused", None)
    assert reply == ask(headers={"X-Gateway-Secret": "another wrong one"})


@pytest.mark.parametrize("doubled", ["a,a", "a,", ",a", ","])
def test_a_doubled_secret_is_no_good_one(request_to, doubled):
    caller = door().caller(request_to("GET", "/forward-auth/edge", {"X-Gateway-Secret": doubled}))
    assert (caller.secret, caller.evidence) == ("", "secret")


# What is refused.


@pytest.mark.parametrize(
    "authorization", [None, "", "Basic YTpi", f"DPoP {TOKEN}", f"Bearer\t{TOKEN}", f"Bearer{TOKEN}", TOKEN]
)
def test_no_bearer_token_is_no_credential(ask, authorization):
    """BE-01, DP-10."""
    assert problem_of(ask(headers={"Authorization": authorization})) == (401, "missing_credential", BARE)


@pytest.mark.parametrize(
    "rest",
    ["", " ", "a,Bearer b", "a, b", "a b", "a,", "a\tb", 'a"b', "a=b", "=", "é", "a\x00", "{}", "a;b"],
)
def test_anything_but_exactly_one_bearer_token_is_malformed(ask, answer, rest):
    """BE-02, BE-06."""
    assert problem_of(ask(headers={"Authorization": f"Bearer {rest}"})) == (401, "invalid_credential", INVALID)
    assert answer.refusals[-1].reason.name == "malformed"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_read_without_regard_to_case(scheme):
    """BE-06."""
    assert bearer(f"{scheme} {TOKEN}") == Credential(TYPE_ACCESS_TOKEN, TOKEN)


@given(st.text(string.printable + "é", max_size=30))
def test_a_bearer_token_is_one_token68_or_a_refusal(text):
    """BE-06."""
    valid = re.fullmatch(r" *[A-Za-z0-9._~+/-]+=*", text)
    try:
        read = bearer("Bearer " + text)
    except Refusal as refusal:
        name = refusal.reason.name
    else:
        name = read.value
    assert name == (text.strip(" ") if valid else "malformed")


@given(st.text(max_size=30))
def test_no_text_at_all_breaks_the_reading_of_authorization(text):
    try:
        read = bearer(text)
    except Refusal as refusal:
        read = refusal
    assert isinstance(read, Credential | Refusal)


def test_the_query_and_the_body_are_no_place_for_a_credential(ask):
    """BE-05."""
    reply = ask(f"/orders/1?access_token={TOKEN}", headers={"Authorization": None})
    assert problem_of(reply) == (401, "missing_credential", BARE)


@pytest.mark.parametrize("header", ["X-Original-Method", "X-Original-URI", "X-Original-Host"])
def test_a_missing_profile_header_is_503(ask, header):
    """FA-04."""
    assert problem_of(ask(headers={header: None})) == (503, "profile_header_missing", None)


def test_a_request_without_route_and_an_ambiguous_path_are_403(ask):
    """FA-05."""
    assert problem_of(ask("/other")) == (403, "no_route", None)
    assert problem_of(ask("/orders/../health")) == (403, "ambiguous_path", None)
    assert problem_of(ask("/orders/1", "DELETE")) == (403, "no_route", None)


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (
            Refusal(EXPIRED),
            (401, "expired", f'{BARE}, error="invalid_token", error_description="The credential has expired."'),
        ),
        (Refusal(REVOKED), (401, "invalid_credential", INVALID)),
        (Refusal(BAD_SIGNATURE), (401, "invalid_credential", INVALID)),
        (Refusal(NOT_ALLOWED), (403, "not_allowed", None)),
        (
            Refusal(INSUFFICIENT_SCOPE, scope="orders:read"),
            (
                403,
                "insufficient_scope",
                NARROW,
            ),
        ),
        (Refusal(NO_KEY), (503, "no_key", None)),
        (Refusal(INTERNAL_ERROR), (503, "internal_error", None)),
    ],
)
def test_a_refusal_further_on_has_its_documented_shape(ask, answer, refusal, expected):
    """BE-03, BE-04, ER-01."""
    answer.refuse = refusal
    assert problem_of(ask()) == expected


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda reason: reason.name)
def test_every_reason_denies_in_a_way_that_gateways_understand(request_to, reason):
    """FA-01, BE-08, ER-01, ER-02."""
    reply = door().refused(request_to("GET", "/forward-auth/x"), reason, {"scope": "x", "why": "MARK"})
    status, name, challenge = problem_of(reply)
    assert status in (401, 403, 503)
    if status == 401:
        assert challenge
        assert name in ("missing_credential", "expired", "invalid_credential")
    assert b"MARK" not in reply.body + repr(reply.headers).encode()


def test_an_answer_that_gateways_could_not_buffer_is_refused(ask, answer, issued):
    """FA-07."""
    answer.issued = replace(issued, token="x" * 3000)
    reply = ask()
    assert reply.status == 200
    assert sum(len(name) + len(value) + 4 for name, value in reply.headers) < 4000
    answer.issued = replace(answer.issued, headers={"X-User-ID": "u" * 800})
    assert problem_of(ask()) == (403, "token_too_large", None)


# The settings.


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-Internal-Token"])
def test_the_token_header_can_be_chosen(name):
    assert ForwardAuthSettings(token_header=name).token_header.lower() == name.lower()


@pytest.mark.parametrize(
    "name", ["Cookie", "Set-Cookie", "X-Request-ID", "X-Forwarded-For", "X Token", "", "Content-Length"]
)
def test_the_token_header_cannot_be_one_with_another_meaning(name):
    with pytest.raises(ValidationError):
        ForwardAuthSettings(token_header=name)
