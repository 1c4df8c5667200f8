"""The requests of the Go, Java and Node clients, recorded on the wire from the running clients, replayed byte for byte.

Recorded from golang.org/x/oauth2 0.37.0 (Go 1.26), Spring Security 6.5.1 (over Java 17's HTTP client, which offers
HTTP/2 with each first request in clear text) and openid-client 6.8.9 (Node 20). Only host, length, token, client and
secret differ from the recording. What each client demands of an answer stands in `accept_…`, read in its source.
"""

import base64
import http.client
import json
import socket
from urllib.parse import quote

import pytest
from harness import CLIENT, SECRET, Answer

GRANT = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange"
URN = "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3A"
REQUESTED = f"requested_token_type={URN}access_token"

GO = (
    "POST /token HTTP/1.1\n"
    "Host: {host}\n"
    "User-Agent: Go-http-client/1.1\n"
    "Content-Length: {length}\n"
    "Authorization: Basic {basic}\n"
    "Content-Type: application/x-www-form-urlencoded\n"
    "X-Goog-Api-Client: gl-go/1.26.8 auth/unknown google-byoid-sdk source/programmatic sa-impersonation/false"
    " config-lifetime/false\n"
    "Accept-Encoding: gzip\n"
)
GO_FORM = (
    f"audience={{audience}}&{GRANT}&{REQUESTED}&scope={{scope}}&subject_token={{token}}&subject_token_type={URN}jwt"
)

SPRING = (
    "POST /token HTTP/1.1\n"
    "Connection: Upgrade, HTTP2-Settings\n"
    "Content-Length: {length}\n"
    "Host: {host}\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\n"
    "Upgrade: h2c\n"
    "User-Agent: Java-http-client/17.0.15\n"
    "Accept: application/json\n"
    "Authorization: Basic {basic}\n"
    "Content-Type: application/x-www-form-urlencoded\n"
)
SPRING_FORM = (
    f"{GRANT}&scope={{scope}}&{REQUESTED}&subject_token={{token}}&subject_token_type={URN}access_token"
    "&audience={audience}"
)

NODE = (
    "POST /token HTTP/1.1\n"
    "host: {host}\n"
    "connection: keep-alive\n"
    "accept: application/json\n"
    "authorization: Basic {basic}\n"
    "content-type: application/x-www-form-urlencoded;charset=UTF-8\n"
    "user-agent: openid-client/v6.8.9\n"
    "accept-language: *\n"
    "sec-fetch-mode: cors\n"
    "accept-encoding: gzip, deflate\n"
    "content-length: {length}\n"
)
NODE_FORM = f"subject_token={{token}}&subject_token_type={URN}jwt&audience={{audience}}&scope={{scope}}&{GRANT}"
NODE_POST = NODE.replace("authorization: Basic {basic}\n", "")
NODE_POST_FORM = NODE_FORM + "&client_id={client}&client_secret={secret}"


def java(text):
    """As `URLEncoder.encode`, which Spring calls for both halves of Basic."""
    return quote(text, safe=".-*_").replace("%20", "+").replace("~", "%7E")


def node(text):
    """As oauth4webapi's `formUrlEncode`: all but letters and digits."""
    return "".join(char if char.isascii() and char.isalnum() else f"%{ord(char):02X}" for char in text)


def accept_go(answer):
    """`stsexchange`: any 2xx; JSON with texts, and `expires_in` a number above 0; the type becomes the scheme."""
    assert 200 <= answer.status <= 299
    assert len(answer.body) <= 1 << 20
    assert type(answer.json["expires_in"]) is int
    assert answer.json["expires_in"] > 0
    for name in ("access_token", "issued_token_type", "token_type", "scope"):
        assert isinstance(answer.json[name], str)
    assert "refresh_token" not in answer.json
    return answer.json["access_token"]


def accept_spring(answer):
    """`OAuth2AccessTokenResponseHttpMessageConverter`: JSON, `token_type` Bearer or DPoP in any case, scope a text."""
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json["token_type"].lower() == "bearer"
    assert int(answer.json["expires_in"]) > 0
    assert isinstance(answer.json["scope"], str)
    return answer.json["access_token"]


def accept_node(answer):
    """`processGenericTokenEndpointResponse`: exactly 200, JSON, `token_type` a text, `expires_in` above 0."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "www-authenticate" not in answer.headers
    assert answer.json["token_type"].lower() == "bearer"
    assert answer.json["expires_in"] > 0
    assert isinstance(answer.json["scope"], str)
    return answer.json["access_token"]


def refuse_go(answer):
    """Every non-2xx is shown with its body."""
    assert not 200 <= answer.status <= 299


def refuse_spring(answer):
    """Only 400 is read: as JSON, unless a `Bearer` challenge stands in a header, which then wins."""
    if answer.status == 400:
        assert isinstance(answer.json["error"], str)
        assert answer.headers["content-type"] == "application/json"
        assert "www-authenticate" not in answer.headers


def refuse_node(answer):
    """4xx and JSON with a text `error`; a challenge hides it, so there is none but with 401."""
    assert 400 <= answer.status <= 499
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json["error"], str)
    assert ("www-authenticate" in answer.headers) is (answer.status == 401)


CLIENTS = {
    "go": (GO, GO_FORM, str, accept_go, refuse_go),
    "spring": (SPRING, SPRING_FORM, java, accept_spring, refuse_spring),
    "node-basic": (NODE, NODE_FORM, node, accept_node, refuse_node),
    "node-post": (NODE_POST, NODE_POST_FORM, quote, accept_node, refuse_node),
}


@pytest.fixture
def replay():
    """Send the recorded request of a client; returns (its sockets, to be gone on with, and the answer)."""
    opened = []

    def replay(service, name, token, *, audience="orders", scope="", client=CLIENT, secret=SECRET):
        head, form, encode, _, _ = CLIENTS[name]
        values = {
            "token": token,
            "audience": audience,
            "scope": scope,
            "client": quote(client),
            "secret": quote(secret),
        }
        body = form.format(**values)
        basic = base64.b64encode(f"{encode(client)}:{encode(secret)}".encode()).decode()
        head = head.format(host=f"127.0.0.1:{service.port}", length=len(body), basic=basic)
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
        opened.append(connection)
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body.encode())
        with http.client.HTTPResponse(connection, method="POST") as answer:
            answer.begin()
            return Answer(answer.status, answer.getheaders(), answer.read())

    yield replay
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("scope", ["", "orders%3Aread+orders%3Awrite"])
def test_a_recorded_request_is_answered_as_its_client_demands(replay, service, idp, name, scope):
    token = CLIENTS[name][3](replay(service, name, idp.token(), scope=scope))
    claims = service.verified(token)
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("alice", CLIENT, "orders:read orders:write")


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"audience": "elsewhere"}, 400, "invalid_target"),
        ({"scope": "billing%3Aread"}, 400, "invalid_scope"),
        ({"token": "e30.e30.e30"}, 400, "invalid_request"),
        ({"secret": "wrong"}, 401, "invalid_client"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
)
def test_a_refusal_is_written_so_that_each_client_understands_it(replay, lasting, idp, name, changed, status, error):
    token = changed.get("token", idp.token())
    answer = replay(lasting, name, token, **{key: value for key, value in changed.items() if key != "token"})
    CLIENTS[name][4](answer)
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.headers["content-type"] == "application/json"
    assert all(value.isascii() for value in json.loads(answer.body).values())


@pytest.mark.parametrize("name", CLIENTS)
def test_a_secret_of_odd_characters_arrives_however_the_client_encodes_it(replay, lasting, odd_client, idp, name):
    """Go sends Basic raw, Spring encodes "~", openid-client everything but letters and digits (RFC 6749 §2.3.1)."""
    client, secret = odd_client
    answer = replay(lasting, name, idp.token(), client=client, secret=secret)
    assert lasting.verified(CLIENTS[name][3](answer))["client_id"] == client


def test_a_client_that_sends_no_audience_gets_its_default_one(replay, lasting, odd_client, idp):
    """Spring Security as it comes."""
    client, secret = odd_client
    answer = replay(lasting, "spring", idp.token(), audience="", client=client, secret=secret)
    assert lasting.verified(accept_spring(answer))["aud"] == "orders"


def test_the_offer_of_http_2_is_passed_over(replay, service, idp):
    """Java's client would go on in HTTP/2 after a 101; it takes an answer in HTTP/1.1 for no."""
    answer = replay(service, "spring", idp.token())
    assert answer.status == 200
    assert "upgrade" not in answer.headers
