"""nginx with the shipped configuration, in front of a stand-in for the service: what the gateway itself must do."""

import json
import socket

import pytest

SECRET = "edge-gateway-secret-for-tests-only"
TOKEN = "Bearer internal.token.signature"
ALLOW = (200, [("Authorization", TOKEN), ("X-User-ID", "alice"), ("X-Tenant-ID", "-"), ("X-Token-Expires-At", "1800")])
PUBLIC = (200, [("Authorization", "-"), ("X-User-ID", "-"), ("X-Tenant-ID", "-"), ("X-Token-Expires-At", "-")])
FORGED = (
    "X-User-ID: admin\r\nX-Tenant-ID: other\r\nX-Token-Expires-At: 9999999999\r\nX-Gateway-Secret: guess\r\n"
    "X-Original-URI: /health\r\nX-Original-Method: GET\r\nX-Original-Host: other\r\nX-Original-Proto: https\r\n"
    "X-Original-Addr: 10.0.0.1\r\nX-Auth-Reason: none\r\nX-Request-ID: mine\r\nForwarded: for=10.0.0.1\r\n"
    "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: other\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /a\r\n"
    "X-Real-IP: 10.0.0.1\r\n"
)


def request(headers="", line="GET /orders/1 HTTP/1.1", body=""):
    return f"{line}\r\nHost: api.example.com\r\nConnection: close\r\n{headers}\r\n{body}".encode("latin-1")


@pytest.fixture
def port(start_nginx, stand_in, backend):
    return start_nginx(stand_in.port, backend.port)


def test_an_allowed_request_carries_the_internal_token_in_place_of_the_inbound_one(port, send, stand_in):
    """FA-11."""
    stand_in.says = ALLOW
    seen = send(port, request("Authorization: Bearer inbound\r\n")).seen
    assert seen["headers"]["authorization"] == TOKEN
    assert "Bearer inbound" not in json.dumps(seen)
    assert seen["headers"]["x-user-id"] == "alice"


def test_the_sentinel_becomes_no_header(port, send, stand_in):
    """FA-06."""
    stand_in.says = ALLOW
    assert "x-tenant-id" not in send(port, request()).seen["headers"]


def test_a_public_answer_leaves_neither_the_inbound_token_nor_forged_headers(port, send, stand_in):
    """FA-06, FA-11."""
    stand_in.says = PUBLIC
    headers = send(port, request(FORGED + "Authorization: Bearer inbound\r\n")).seen["headers"]
    ours = {"host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip"}
    assert set(headers) == ours
    assert (headers["x-forwarded-for"], headers["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert (headers["x-forwarded-host"], headers["x-forwarded-proto"]) == ("api.example.com", "http")


def test_a_header_that_the_service_forgot_is_removed_not_passed(port, send, stand_in):
    """FA-06."""
    stand_in.says = (200, [("Authorization", TOKEN)])
    assert not {"x-user-id", "x-tenant-id", "x-token-expires-at"} & set(send(port, request(FORGED)).seen["headers"])


def test_underscore_twins_of_identity_headers_do_not_reach_the_backend(port, send, stand_in):
    """FA-06."""
    stand_in.says = ALLOW
    twins = "X_User_ID: admin\r\nX_User-ID: admin\r\nX_Tenant_ID: other\r\n"
    headers = send(port, request(twins)).seen["headers"]
    assert [name for name in headers if "_" in name] == []
    assert headers["x-user-id"] == "alice"


@pytest.mark.parametrize("spelling", ["x-user-id", "X-USER-ID", "x-UsEr-iD"])
def test_the_spelling_of_a_forged_header_does_not_matter(port, send, stand_in, spelling):
    stand_in.says = ALLOW
    assert send(port, request(f"{spelling}: admin\r\n{spelling}: root\r\n")).seen["headers"]["x-user-id"] == "alice"


def test_a_client_cannot_have_the_token_dropped_as_a_hop_by_hop_header(port, send, stand_in):
    stand_in.says = ALLOW
    raw = b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close, Authorization, X-User-ID\r\n\r\n"
    headers = send(port, raw).seen["headers"]
    assert (headers["authorization"], headers["x-user-id"]) == (TOKEN, "alice")


def test_the_service_is_asked_about_the_raw_request_with_the_gateways_secret(port, send, stand_in):
    stand_in.says = ALLOW
    line = "DELETE /orders/%31?a=b&c=%20d HTTP/1.1"
    send(port, request(FORGED + "Authorization: Bearer inbound\r\nCookie: c=1\r\n", line))
    method, path, pairs = stand_in.asked[-1]
    headers = dict(pairs)
    assert len(headers) == len(pairs)
    assert (method, path) == ("GET", "/forward-auth/edge-gateway")
    assert headers.pop("x-request-id") != "mine"
    del headers["host"]
    assert headers == {
        "authorization": "Bearer inbound",
        "x-gateway-secret": SECRET,
        "x-original-method": "DELETE",
        "x-original-uri": "/orders/%31?a=b&c=%20d",
        "x-original-host": "api.example.com",
        "x-original-proto": "http",
        "x-original-addr": "127.0.0.1",
    }


def test_the_backend_gets_the_very_target_that_was_judged(port, send, stand_in):
    stand_in.says = ALLOW
    seen = send(port, request(line="GET /a/../orders//%2e%2E/1;x=y?q=%2f HTTP/1.1")).seen
    assert dict(stand_in.asked[-1][2])["x-original-uri"] == seen["target"] == "/a/../orders//%2e%2E/1;x=y?q=%2f"


def test_a_body_reaches_the_backend_and_never_the_service(port, send, stand_in):
    """FA-02."""
    stand_in.says = ALLOW
    for _ in range(3):  # a body on the kept connection would be read as the next request
        seen = send(port, request("Content-Length: 5\r\n", "POST /orders HTTP/1.1", "hello")).seen
        assert (seen["method"], seen["body"]) == ("POST", "hello")
    assert [method for method, _, _ in stand_in.asked] == ["GET"] * 3
    assert not {"content-length", "transfer-encoding"} & set(dict(stand_in.asked[-1][2]))


def test_a_chunked_body_reaches_the_backend_and_never_the_service(port, send, stand_in):
    stand_in.says = ALLOW
    chunked = request("Transfer-Encoding: chunked\r\n", "POST /orders HTTP/1.1", "5\r\nhello\r\n0\r\n\r\n")
    assert send(port, chunked).seen["body"] == "hello"
    assert not {"content-length", "transfer-encoding"} & set(dict(stand_in.asked[-1][2]))


@pytest.mark.parametrize(
    "status", [200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 404, 405, 429, 431, 500, 502, 503]
)
def test_nothing_but_a_200_with_the_token_header_opens_the_door(port, send, stand_in, backend, status):
    """FA-01."""
    stand_in.says = (status, [("Location", "/"), ("X-User-ID", "alice")] + ([] if status == 200 else [ALLOW[1][0]]))
    answer = send(port, request())
    assert answer.status in {502, 503}
    assert backend.requests == []


@pytest.mark.parametrize("value", ["", "Bearer", "Basic YTpi", "internal.token.signature", "Bearer a b", "--"])
def test_a_200_with_something_else_in_the_token_header_opens_nothing(port, send, stand_in, backend, value):
    stand_in.says = (200, [("Authorization", value), ("X-User-ID", "alice")])
    assert (send(port, request()).status, backend.requests) == (502, [])


def test_a_401_passes_on_with_its_challenge_and_reason(port, send, stand_in, backend):
    stand_in.says = (401, [("WWW-Authenticate", 'Bearer realm="sts"'), ("X-Auth-Reason", "missing_credential")])
    answer = send(port, request())
    assert (answer.status, answer.header("www-authenticate")) == (401, 'Bearer realm="sts"')
    assert (answer.header("x-auth-reason"), backend.requests) == ("missing_credential", [])


def test_a_403_passes_on_with_its_reason(port, send, stand_in, backend):
    stand_in.says = (403, [("X-Auth-Reason", "no_route")])
    answer = send(port, request())
    assert (answer.status, answer.header("x-auth-reason"), backend.requests) == (403, "no_route", [])


def test_a_503_is_told_as_such_and_may_be_tried_again(port, send, stand_in):
    stand_in.says = (503, [("X-Auth-Reason", "source_unreachable")])
    answer = send(port, request())
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    assert answer.header("x-auth-reason") == "source_unreachable"


def test_a_service_that_is_down_denies(start_nginx, backend, send):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
        port = start_nginx(nobody.getsockname()[1], backend.port)
        assert send(port, request("Authorization: Bearer inbound\r\n")).status == 503
    assert backend.requests == []


def test_a_service_that_hangs_up_denies(start_nginx, backend):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = start_nginx(silent.getsockname()[1], backend.port)
        silent.settimeout(60)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(request())
            silent.accept()[0].close()
            assert b" 503 " in client.recv(4096).partition(b"\r\n")[0]
    assert backend.requests == []


def test_the_internal_location_cannot_be_asked_from_outside(port, send, stand_in):
    stand_in.says = ALLOW
    assert [send(port, request(line=f"GET {path} HTTP/1.1")).status for path in ("/_sts", "/%5Fsts", "//_sts")] == [
        404
    ] * 3
    assert stand_in.asked == []


def test_a_host_that_nobody_serves_is_refused_without_asking(port, send, stand_in):
    stand_in.says = ALLOW
    assert send(port, b"GET / HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n").status == 421
    assert stand_in.asked == []


def test_the_host_of_the_request_line_wins_and_is_the_one_that_is_judged(port, send, stand_in):
    stand_in.says = ALLOW
    raw = b"GET http://api.example.com/orders HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n"
    seen = send(port, raw).seen
    assert dict(stand_in.asked[-1][2])["x-original-host"] == seen["headers"]["host"] == "api.example.com"


def test_options_is_asked_about_like_any_other_method(port, send, stand_in, backend):
    stand_in.says = (401, [("WWW-Authenticate", "Bearer")])
    preflight = "Origin: https://app.example.com\r\nAccess-Control-Request-Method: PUT\r\n"
    assert send(port, request(preflight, "OPTIONS /orders/1 HTTP/1.1")).status == 401
    headers = dict(stand_in.asked[-1][2])
    assert (headers["x-original-method"], headers["origin"]) == ("OPTIONS", "https://app.example.com")
    assert headers["access-control-request-method"] == "PUT"
    assert backend.requests == []


def test_a_large_answer_of_the_service_fits(port, send, stand_in):
    """FA-07."""
    token = "Bearer " + "a" * 3000 + "." + "b" * 3000 + "." + "c" * 1000
    stand_in.says = (200, [("Authorization", token), ("X-User-ID", "alice")])
    assert send(port, request()).seen["headers"]["authorization"] == token


def test_many_and_long_headers_of_the_client_do_not_reach_the_service(port, send, stand_in):
    stand_in.says = ALLOW
    many = "".join(f"X-Some-{n}: {'v' * 100}\r\n" for n in range(120)) + f"Cookie: {'c' * 7000}\r\n"
    assert send(port, request(many)).status in {200, 431}  # the echo backend has a limit of its own
    assert len(stand_in.asked[-1][2]) < 12


def test_a_websocket_is_opened_with_the_internal_token_and_carries_bytes_both_ways(port, stand_in):
    stand_in.says = ALLOW
    upgrade = (
        b"GET /orders/stream HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-User-ID: admin\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as reader:
        client.sendall(upgrade)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
        seen = dict(json.loads(lines["X-Seen"])["headers"])
        client.sendall(b"ping")
        assert reader.read(4) == b"ping"
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (seen["authorization"], seen["x-user-id"]) == (TOKEN, "alice")
    assert (seen["upgrade"], seen["connection"]) == ("websocket", "upgrade")


def test_a_websocket_that_is_refused_is_not_opened(port, send, stand_in, backend):
    stand_in.says = (403, [])
    assert send(port, request("Upgrade: websocket\r\n")).status == 403
    assert backend.requests == []
