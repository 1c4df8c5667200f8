"""nginx with the shipped configuration between the real service and a backend that believes its headers."""

import json
import socket

import pytest
from harness import minimal

FORGED = "X-User-ID: admin\r\nX-Tenant-ID: other\r\nX_User_ID: admin\r\nX-Token-Expires-At: 9999999999\r\n"


@pytest.fixture
def port(start_nginx, service, backend):
    return start_nginx(service.port, backend.port)


@pytest.fixture
def ask(port, send):
    """Send a request through nginx; `token` goes into `Authorization`."""

    def ask(target="/orders/1", token=None, method="GET", headers=""):
        if token is not None:
            headers += f"Authorization: Bearer {token}\r\n"
        head = f"{method} {target} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{headers}\r\n"
        return send(port, head.encode("latin-1"))

    return ask


def internal(service, seen):
    """The claims of the token that the backend saw, verified by PyJWT."""
    scheme, _, token = seen["headers"]["authorization"].partition(" ")
    assert scheme == "Bearer"
    return service.verified(token)


def test_a_good_token_becomes_an_internal_one_and_identity_headers(ask, service, idp):
    inbound = idp.token()
    seen = ask(token=inbound).seen
    claims = internal(service, seen)
    assert (claims["sub"], claims["scope"], claims["client_id"]) == ("alice", "orders:read", "edge-gateway")
    assert (seen["headers"]["x-user-id"], seen["headers"]["x-tenant-id"]) == ("alice", "agency-7")
    assert seen["headers"]["x-token-expires-at"] == str(claims["exp"])
    assert inbound not in json.dumps(seen)


def test_the_method_decides_which_scope_the_token_holds(ask, service, idp):
    assert internal(service, ask(token=idp.token(), method="DELETE").seen)["scope"] == "orders:write"


def test_forged_identity_headers_are_replaced(ask, idp):
    """FA-06."""
    seen = ask(token=idp.token(), headers=FORGED).seen
    assert (seen["headers"]["x-user-id"], seen["headers"]["x-tenant-id"]) == ("alice", "agency-7")
    assert "admin" not in json.dumps(seen)


def test_an_identity_without_the_attribute_does_not_leave_the_forged_one(ask, idp):
    headers = ask(token=idp.token(agency_id=None), headers=FORGED).seen["headers"]
    assert "x-tenant-id" not in headers


def test_a_public_route_passes_without_token_and_without_forged_headers(ask, idp):
    for token in (None, idp.token(), "rubbish"):
        headers = ask("/health", token=token, headers=FORGED).seen["headers"]
        assert not {"authorization", "x-user-id", "x-tenant-id", "x-token-expires-at", "x_user_id"} & set(headers)


def test_no_token_is_401_with_a_bare_challenge(ask, backend):
    """BE-01."""
    answer = ask(headers=FORGED)
    assert (answer.status, answer.header("x-auth-reason")) == (401, "missing_credential")
    assert answer.header("www-authenticate") == 'Bearer realm="sts"'
    assert backend.requests == []


def test_an_expired_token_is_401_and_says_so(ask, idp, backend):
    answer = ask(token=idp.token(exp=1_000_000, iat=999_000))
    assert (answer.status, answer.header("x-auth-reason")) == (401, "expired")
    assert 'error="invalid_token"' in answer.header("www-authenticate")
    assert backend.requests == []


def test_a_forged_token_is_401_and_says_no_more(ask, idp, backend):
    head, claims, _ = idp.token().split(".")
    answer = ask(token=f"{head}.{claims}.{'A' * 342}")
    assert (answer.status, answer.header("x-auth-reason")) == (401, "invalid_credential")
    assert backend.requests == []


def test_a_token_without_the_routes_scope_is_403(ask, idp, backend):
    """BE-04."""
    answer = ask(token=idp.token(scope="billing:read"))
    assert (answer.status, answer.header("x-auth-reason")) == (403, "insufficient_scope")
    assert backend.requests == []


def test_a_rule_of_the_audience_denies_with_403(ask, idp, backend):
    answer = ask("/billing/1", token=idp.token(roles=["clerk"]))
    assert (answer.status, answer.header("x-auth-reason"), backend.requests) == (403, "not_allowed", [])


def test_a_path_without_a_route_is_403(ask, idp, backend):
    answer = ask("/unknown", token=idp.token())
    assert (answer.status, answer.header("x-auth-reason"), backend.requests) == (403, "no_route", [])


def test_options_needs_a_route_and_a_credential_like_any_method(ask, idp, backend):
    preflight = "Origin: https://app.example.com\r\nAccess-Control-Request-Method: PUT\r\n"
    assert [ask(method="OPTIONS", token=token, headers=preflight).status for token in (None, idp.token())] == [403, 403]
    assert ask("/billing/1", method="OPTIONS", headers=preflight).status == 401
    assert backend.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/health/../orders/1",
        "/health/..;/orders/1",
        "/orders//1",
        "//orders/1",
        "/orders/./1",
        "/orders/%2e%2e/health",
        "/orders%2f1",
        "/orders/%5c1",
        "/orders/%00",
        "/orders/%2500",
        "/health%3F/../orders",
        "/orders/1%23",
        "/orders./1",
        "/orders/1%20",
        "/orders/1;v=2",
        "/orders/\\1",
        "/orders/%zz",
        "/orders/%",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_never_reaches_the_backend(ask, idp, backend, target):
    """FA-05."""
    answer = ask(target, token=idp.token())
    assert (answer.status, answer.header("x-auth-reason")) in {(403, "ambiguous_path"), (400, None)}
    assert backend.requests == []


@pytest.mark.parametrize("target", ["/health", "/health?x=1", "/health?next=/../orders"])
def test_a_query_changes_no_decision_and_reaches_the_backend(ask, backend, target):
    assert (ask(target).status, backend.requests) == (200, [target])


def test_an_encoded_letter_is_the_same_path_to_both(ask, idp, backend):
    answer = ask("/%6frders/1", token=idp.token())
    assert (answer.status, backend.requests) == (200, ["/%6frders/1"])


@pytest.mark.parametrize("header", ["X-Original-URI: /health", "X-Original-Method: OPTIONS", "X-Original-Host: other"])
def test_a_client_cannot_tell_the_service_another_request(ask, backend, header):
    """FA-03."""
    assert ask(headers=f"{header}\r\n").status == 401
    assert backend.requests == []


def test_two_tokens_in_one_request_are_never_taken_for_one(ask, service, idp):
    """BE-06."""
    answer = ask(token=idp.token(), headers=f"Authorization: Bearer {idp.token(sub='bob')}\r\n")
    assert answer.status in {400, 401} or internal(service, answer.seen)["sub"] == "bob"  # the first, which was judged


def test_the_gateways_secret_must_be_the_clients(start_nginx, service, backend, send, idp):
    """FA-09."""
    port = start_nginx(service.port, backend.port, secret="another")
    head = f"GET /health HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {idp.token()}\r\nConnection: close"
    answer = send(port, f"{head}\r\n\r\n".encode())
    assert (answer.status, answer.header("x-auth-reason"), backend.requests) == (403, "client_refused", [])


def test_a_websocket_reaches_the_backend_with_the_internal_token(port, service, idp):
    upgrade = (
        f"GET /orders/stream HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{FORGED}"
        f"Authorization: Bearer {idp.token()}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as reader:
        client.sendall(upgrade.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        client.sendall(b"ping")
        assert reader.read(4) == b"ping"
    seen = json.loads(dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])["X-Seen"])
    headers = dict(seen["headers"])
    assert internal(service, {"headers": headers})["sub"] == headers["x-user-id"] == "alice"


def test_a_service_that_stops_denies_everything(start_nginx, make_service, idp, backend, send):
    # Not even a public path may pass while nobody can say so.
    service = make_service(minimal(idp))
    port = start_nginx(service.port, backend.port)
    request = b"GET /health HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"
    assert send(port, request).status == 200
    service.stop()
    assert [send(port, request).status for _ in range(3)] == [503, 503, 503]
    assert len(backend.requests) == 1
