"""The token door: what it reads, what it answers."""

import base64
import json
from dataclasses import replace
from urllib.parse import quote, urlencode

import pytest

from sts.clients.assertion import ASSERTION_TYPE
from sts.edge.token import GRANT_TYPE, TokenDoor
from sts.errors import (
    EXPIRED,
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    NO_CONSENT,
    REASONS,
    SOURCE_UNREACHABLE,
    Refusal,
)
from sts.model import TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN, TYPE_JWT, Ask, Credential

DOOR = TokenDoor()
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln"
EXCHANGE = {
    "grant_type": GRANT_TYPE,
    "audience": "orders",
    "subject_token": TOKEN,
    "subject_token_type": TYPE_JWT,
}


@pytest.fixture
def basic(client_id, secret):
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


@pytest.fixture
def post(request_to, answer, basic):
    """Post a form; a parameter of None is left out. Returns the reply."""

    def send(changes=None, *, headers=None, target="/token", method="POST", extra=()):
        pairs = [(name, value) for name, value in {**EXCHANGE, **(changes or {})}.items() if value is not None]
        body = urlencode([*pairs, *extra]).encode()
        given = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": basic, **(headers or {})}
        kept = {name: value for name, value in given.items() if value is not None}
        return answer(DOOR, request_to(method, target, kept, body))

    return send


def error_of(reply):
    document = json.loads(reply.body)
    assert set(document) == {"error", "error_reason", "error_description"}
    assert reply.body.isascii()
    assert document["error_description"] == REASONS[document["error_reason"]].sentence
    headers = dict(reply.headers)
    assert headers["Cache-Control"] == "no-store"
    assert headers["Pragma"] == "no-cache"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Request-ID"]
    return reply.status, document["error"], document["error_reason"]


BAD_REQUEST = (400, "invalid_request", "malformed")
BAD_CLIENT = (401, "invalid_client", "client_refused")


# What is answered.


def test_a_token_is_handed_out_as_rfc_8693_says(post, issued):
    """TE-13, TE-14, TE-16, TE-17."""
    reply = post()
    assert reply.status == 200
    assert json.loads(reply.body) == {
        "access_token": issued.token,
        "issued_token_type": TYPE_ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "orders:read",
    }
    headers = dict(reply.headers)
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Pragma"] == "no-cache"
    assert headers["X-Request-ID"] == "0123456789abcdef" * 2


def test_issued_token_type_says_jwt_where_a_jwt_was_asked_for(post):
    """TE-14, TE-15."""
    assert json.loads(post({"requested_token_type": TYPE_JWT}).body)["issued_token_type"] == TYPE_JWT


def test_a_token_without_scopes_has_no_scope_in_the_answer(request_to, issued, now):
    """TE-08."""
    ask = Ask("token", Credential(TYPE_JWT, TOKEN))
    bare = replace(issued, scopes=None)
    assert "scope" not in json.loads(DOOR.allowed(request_to("POST", "/token"), ask, bare, now).body)


@pytest.mark.parametrize(("later", "left"), [(0, 300), (0.2, 299), (298.9, 1), (299.5, 1)])
def test_expires_in_is_a_positive_number_of_seconds_that_remain(request_to, issued, now, later, left):
    """TE-13."""
    ask = Ask("token", Credential(TYPE_JWT, TOKEN))
    document = json.loads(DOOR.allowed(request_to("POST", "/token"), ask, issued, now + later).body)
    assert document["expires_in"] == left
    assert isinstance(document["expires_in"], int)


# What is asked for.


def test_everything_a_request_names_reaches_the_ask(post, answer):
    post(
        {"scope": "b a b", "requested_token_type": TYPE_JWT, "actor_token": "x", "actor_token_type": TYPE_JWT},
        extra=[("audience", "billing"), ("resource", "https://a.example/x?y=1"), ("resource", "urn:b:c")],
        headers={"X-Request-ID": "trace-1"},
    )
    assert answer.asks == [
        Ask(
            door="token",
            credential=Credential(TYPE_JWT, TOKEN),
            audiences=("orders", "billing"),
            resources=("https://a.example/x?y=1", "urn:b:c"),
            scopes=("b", "a"),
            requested_type=TYPE_JWT,
            actor=Credential(TYPE_JWT, "x"),
        )
    ]


def test_what_is_absent_or_empty_is_nothing_asked(post, answer):
    """TE-20."""
    post({"audience": "", "scope": "", "requested_token_type": "", "actor_token": "", "resource": ""})
    assert answer.asks == [Ask(door="token", credential=Credential(TYPE_JWT, TOKEN))]


def test_unknown_parameters_are_ignored(post, answer):
    """TE-20."""
    assert post({"options": quote('{"userProject":"1"}'), "foo": "bar", "connector_id": "x"}).status == 200
    assert answer.asks[0].audiences == ("orders",)


# What is refused.


def test_grant_type_decides_first_and_nothing_falls_through(post):
    """TE-01."""
    assert error_of(post({"grant_type": None})) == BAD_REQUEST
    for grant_type in ("client_credentials", "refresh_token", GRANT_TYPE.upper(), GRANT_TYPE + "/"):
        reply = post({"grant_type": grant_type, "subject_token": None})
        assert error_of(reply) == (400, "unsupported_grant_type", "malformed")


@pytest.mark.parametrize("value", [None, ""])
def test_subject_token_and_its_type_are_both_required(post, value):
    """TE-02."""
    assert error_of(post({"subject_token": value})) == (400, "invalid_request", "missing_credential")
    assert error_of(post({"subject_token_type": value})) == BAD_REQUEST


def test_actor_token_and_its_type_go_together(post):
    """TE-03."""
    assert error_of(post({"actor_token": "x"})) == BAD_REQUEST
    assert error_of(post({"actor_token_type": TYPE_JWT})) == BAD_REQUEST


@pytest.mark.parametrize(
    "resource",
    [
        "/x",
        "x",
        "//a/x",
        "https:",
        "https://a#f",
        "https://a#",
        "https://a b",
        "https://a/%zz",
        "1https://a",
        "https://é",
    ],
)
def test_a_resource_is_an_absolute_uri_without_fragment(post, resource):
    """TE-04."""
    assert error_of(post({"audience": None, "resource": resource})) == (400, "invalid_target", "malformed")


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "a  b", " a", "a ", "a\tb", "é", "a\x00"])
def test_a_scope_is_written_as_rfc_6749_says(post, scope):
    """TE-07."""
    assert error_of(post({"scope": scope})) == (400, "invalid_scope", "malformed")


@pytest.mark.parametrize(
    "requested",
    [
        TYPE_ID_TOKEN,
        "urn:ietf:params:oauth:token-type:refresh_token",
        "urn:ietf:params:oauth:token-type:saml2",
        "jwt",
        "x",
    ],
)
def test_an_unknown_requested_token_type_is_refused(post, requested):
    """TE-09."""
    assert error_of(post({"requested_token_type": requested})) == BAD_REQUEST


def test_what_is_not_supported_is_refused_and_not_ignored(post):
    """TE-34, DP-01."""
    assert error_of(post({"authorization_details": "[]"})) == BAD_REQUEST
    assert error_of(post(headers={"DPoP": "x.y.z"})) == BAD_REQUEST


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_is_answered(post, method):
    """EP-01."""
    reply = post(method=method)
    assert error_of(reply) == (405, "invalid_request", "malformed")
    assert dict(reply.headers)["Allow"] == "POST"


def test_a_token_in_the_query_fails(post):
    """TE-21."""
    query = "/token?" + urlencode(EXCHANGE)
    assert error_of(post(dict.fromkeys(EXCHANGE), target=query)) == BAD_REQUEST
    assert error_of(post(target="/token?subject_token=x")) == BAD_REQUEST


def test_a_target_in_absolute_form_is_refused(post):
    assert error_of(post(target="http://sts.example.internal/token")) == BAD_REQUEST


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(EXPIRED), (400, "invalid_request", "expired")),
        (Refusal(NO_CONSENT), (400, "invalid_target", "no_consent")),
        (Refusal(INSUFFICIENT_SCOPE, scope="a"), (400, "invalid_scope", "insufficient_scope")),
    ],
)
def test_a_refusal_further_on_has_its_documented_shape(post, answer, refusal, expected):
    """TE-06, TE-12, EP-09."""
    answer.refuse = refusal
    reply = post()
    assert error_of(reply) == expected
    assert "WWW-Authenticate" not in dict(reply.headers)


@pytest.mark.parametrize("reason", [SOURCE_UNREACHABLE, INTERNAL_ERROR])
def test_a_fault_of_ours_is_503_and_says_when_to_come_back(post, answer, reason):
    """EP-09."""
    answer.refuse = Refusal(reason)
    reply = post()
    assert error_of(reply) == (503, "temporarily_unavailable", reason.name)
    assert int(dict(reply.headers)["Retry-After"]) > 0


def test_no_answer_repeats_what_came_in(post, answer):
    """TE-35, ER-02."""
    marked = 'MARK"\r\né'
    for changes in ({"grant_type": marked}, {"scope": marked}, {"resource": marked}, {"requested_token_type": marked}):
        reply = post(changes)
        assert reply.status == 400
        assert b"MARK" not in reply.body + repr(reply.headers).encode()
    answer.refuse = Refusal(EXPIRED, secret_fact="MARK")
    assert b"MARK" not in post().body


# Who asks.


def test_a_client_proves_itself_in_the_form_as_well(post, client_id, secret):
    """EP-05."""
    assert post({"client_id": client_id, "client_secret": secret}, headers={"Authorization": None}).status == 200


def test_client_id_beside_basic_is_fine_where_it_is_the_same(post, client_id):
    """TE-27."""
    assert post({"client_id": client_id}).status == 200
    assert error_of(post({"client_id": "another"})) == BAD_REQUEST


def test_two_ways_of_client_authentication_are_refused(post, client_id, secret):
    """EP-03."""
    assert error_of(post({"client_id": client_id, "client_secret": secret})) == BAD_REQUEST
    assertion = {"client_assertion": "x.y.z", "client_assertion_type": "urn:x"}
    assert error_of(post(assertion)) == BAD_REQUEST
    assert error_of(post({**assertion, "client_secret": secret}, headers={"Authorization": None})) == BAD_REQUEST


def test_a_way_of_authentication_that_is_not_the_clients_is_refused(post, client_id):
    """EP-05, PK-01."""
    for written in ("urn:x", ASSERTION_TYPE):
        changes = {"client_id": client_id, "client_assertion": "x.y.z", "client_assertion_type": written}
        assert error_of(post(changes, headers={"Authorization": None})) == BAD_CLIENT
        assert error_of(post({**changes, "client_id": None}, headers={"Authorization": None})) == BAD_CLIENT
    assert error_of(post({"client_id": client_id}, headers={"Authorization": None})) == BAD_CLIENT
    assert error_of(post({"client_assertion_type": ASSERTION_TYPE}, headers={"Authorization": None})) == BAD_REQUEST
    assert error_of(post(headers={"Authorization": "Bearer x.y.z"})) == BAD_CLIENT
    assert error_of(post({"client_id": client_id}, headers={"Authorization": "Bearer x.y.z"})) == BAD_CLIENT


def encoded(text):
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def test_basic_halves_are_unquoted_once_so_that_raw_and_encoded_senders_pass(post, client_id, secret):
    """EP-04."""
    every = "".join(f"%{ord(character):02X}" for character in secret)
    for scheme in ("Basic", "basic", "BASIC"):
        for text in (
            f"{client_id}:{secret}",
            f"{client_id.replace('-', '%2D')}:{every}",
            f"{client_id}:{quote(secret)}",
        ):
            assert post(headers={"Authorization": scheme + encoded(text)[5:]}).status == 200
    twice = every.replace("%", "%25")
    assert error_of(post(headers={"Authorization": encoded(f"{client_id}:{twice}")})) == BAD_CLIENT


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YTpi,Basic YTpi",
        "Basic ZWRnZS1nYXRld2F5OmVkZ2UtZ2F0ZXdheS1zZWNyZXQtZm9yLXRlc3RzLW9ubHk",  # unpadded
        "Basic\tYTpi",
        "Bearer YTpi",
        "Digest username=x",
        encoded("edge-gateway"),
        encoded(""),
        encoded(":"),
        encoded("edge-gateway:"),
        encoded(":edge-gateway-secret-for-tests-only"),
        encoded("edge-gateway:wrong"),
        encoded("unknown:edge-gateway-secret-for-tests-only"),
        encoded("a:b:c"),
        encoded(b"edge-gateway:\xff\xfe"),
        encoded("edge-gateway:%ff"),
        encoded("edge-gateway:%ZZ"),
        encoded("edge gateway:x"),
        encoded("x" * 129 + ":x"),
        encoded("edge-gateway\x00:edge-gateway-secret-for-tests-only"),
        "Basic \xe9",
    ],
)
def test_a_client_that_is_not_proven_gets_one_and_the_same_answer(post, authorization):
    """EP-04, EP-06, EP-07."""
    reply = post(headers={"Authorization": authorization})
    assert error_of(reply) == BAD_CLIENT
    assert dict(reply.headers)["WWW-Authenticate"] == 'Basic realm="sts"'
    assert reply.body == post(headers={"Authorization": encoded("nobody:nothing")}).body


def test_an_anonymous_caller_is_refused(post, client_id):
    """TE-29, EP-06."""
    assert error_of(post(headers={"Authorization": None})) == BAD_CLIENT
    assert error_of(post({"client_id": client_id}, headers={"Authorization": None})) == BAD_CLIENT
    reply = post({"client_id": client_id, "client_secret": "wrong"}, headers={"Authorization": None})
    assert error_of(reply) == BAD_CLIENT
    assert dict(reply.headers)["WWW-Authenticate"] == 'Basic realm="sts"'


def test_the_client_is_proven_before_anything_is_read_of_what_it_asks(post):
    assert error_of(post({"grant_type": "x"}, headers={"Authorization": encoded("a:b")})) == BAD_CLIENT
