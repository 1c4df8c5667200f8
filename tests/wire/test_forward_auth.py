"""The question of a gateway, and what an end user may put beside it: status, reason, and never a fallback."""

import time

import pytest
from harness import CLIENT, ISSUER, SECRET, unb64

DOOR = "/forward-auth/{client_id}"


@pytest.fixture
def refused(asked, description):
    def refused(status, reason, more=(), **how):
        answer = asked(more, **how)
        assert (answer.status, answer.reason, answer.headers["x-auth-reason"]) == (status, reason, reason), answer
        description.check(DOOR, "get", answer)
        return answer

    return refused


def test_a_pass_hands_out_our_token_and_never_the_one_that_came_in(asked, description, credential):
    """FA-01, FA-06, FA-07, FA-08, FA-11."""
    answer = asked()
    assert answer.status == 200
    description.check(DOOR, "get", answer)
    assert answer.body == b""
    assert ISSUER.encode() in unb64(answer.token.split(".")[1])
    assert credential not in str(answer.headers)
    assert sum(len(name) + len(value) + 4 for name, value in answer.headers.items()) < 3500


def test_a_route_without_credential_answers_with_every_header_so_that_none_survives(asked):
    """FA-06: what a client forged is overwritten."""
    answer = asked([("X-User-ID", "root"), ("X-Tenant-ID", "root")], X_Original_URI="/health")
    assert answer.status == 200
    assert {answer.headers[name] for name in ("authorization", "x-user-id", "x-tenant-id")} == {"-"}


@pytest.mark.parametrize("name", ["X_Original_Method", "X_Original_URI", "X_Original_Host"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_a_gateway_that_does_not_say_which_request_it_is_gets_503(refused, name, value):
    """FA-04: never "/", never GET."""
    refused(503, "profile_header_missing", **{name: value})


@pytest.mark.parametrize("method", ["G T", "GET,POST", "GET, GET", "GET\t", "A" * 33, "GET/", "(GET)"])
def test_a_method_that_is_none_is_a_fault_of_the_gateway(asked, method):
    answer = asked(X_Original_Method=method)
    assert answer.status == (200 if method == "GET\t" else 503)  # space around a value is no part of it


SPOOFED = {
    "X-Forwarded-Method": "GET",
    "X-Forwarded-Uri": "/health",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Prefix": "/health",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;host=evil.example",
    "X-Original-URL": "/health",
    "X-Rewrite-URL": "/health",
    "X-Envoy-Original-Path": "/health",
    "X-HTTP-Method-Override": "OPTIONS",
    "X-HTTP-Method": "OPTIONS",
    "X-Method-Override": "OPTIONS",
    "X-Auth-Request-Redirect": "/health",
    "X-Original-Forwarded-For": "127.0.0.1",
    "X-Client-Cert": "MIIB",
    "X-User-ID": "root",
    "X-Token-Expires-At": "4000000000",
    "Script-Name": "/forward-auth",
    "Connection": "X-Gateway-Secret",
}


@pytest.mark.parametrize("name", ["X-SSL-Client-Verify", "X-SSL-Client-Cert", "Client-Cert", "X-Forwarded-Client-Cert"])
def test_a_certificate_header_from_a_gateway_that_may_hand_none_on_is_refused(asked, name):
    """CC-03: it is the end user's own, since this gateway sends none."""
    answer = asked([(name, "SUCCESS")])
    assert (answer.status, answer.headers["x-auth-reason"]) == (401, "invalid_credential")


@pytest.mark.parametrize("name", SPOOFED)
def test_the_headers_of_other_conventions_change_nothing(asked, refused, name):
    """FA-03: neither what passes nor what does not."""
    more = [(name, SPOOFED[name])]
    assert asked(more).headers["x-user-id"] == "alice"
    refused(403, "no_route", more, X_Original_URI="/nowhere")
    refused(401, "missing_credential", more, Authorization=None)
    refused(503, "profile_header_missing", more, X_Original_URI=None)


@pytest.mark.parametrize(
    ("name", "value", "status", "reason"),
    [
        ("X-Gateway-Secret", SECRET, 403, "client_refused"),
        ("X-Gateway-Secret", "x", 403, "client_refused"),
        ("X-Original-Method", "GET", 503, "profile_header_missing"),
        ("X-Original-Host", "api.example.com", 503, "profile_header_missing"),
        ("Authorization", "Bearer x", 401, "invalid_credential"),
        ("Authorization", "Basic eDp5", 401, "invalid_credential"),
        ("Authorization", "", 401, "invalid_credential"),
    ],
)
def test_a_doubled_header_is_none(asked, description, name, value, status, reason):
    """BE-06, FA-03: it arrives joined with a comma, wherever the second one stands."""
    answer = asked([(name, value)])
    assert answer.reason == reason
    assert answer.status == status or (reason == "client_refused" and answer.status == 503)
    description.check(DOOR, "get", answer)


@pytest.mark.parametrize("first", ["/orders/7", "/orders/7?x="])
def test_a_doubled_target_is_none(refused, first):
    """FA-04: the header must stand there once, else a gateway that adds it lets the user choose."""
    refused(503, "profile_header_missing", [("X-Original-URI", "/billing/7")], X_Original_URI=first)


def test_optional_headers_that_are_doubled_are_not_believed(asked):
    """FA-03: neither scheme nor address; no rule reads them here, so the request passes."""
    more = [("X-Original-Proto", "https"), ("X-Original-Proto", "http"), ("X-Original-Addr", "1.1.1.1")] * 2
    assert asked(more).status == 200


# Credentials.


def test_nothing_presented_is_a_bare_challenge(refused):
    """BE-01."""
    for how in ({"Authorization": None}, {"Authorization": ""}, {"Authorization": "Basic eDp5"}):
        assert refused(401, "missing_credential", **how).headers["www-authenticate"] == 'Bearer realm="sts"'


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer a;b", "Bearer \xe9", "Bearer =", "Bearer a=b"]
)
def test_anything_but_one_token_is_invalid(asked, description, value):
    """BE-02, BE-03, BE-06: 401, since nginx makes a 500 of 400."""
    answer = asked(Authorization=value.encode("latin-1"))
    assert answer.status == 401
    assert answer.reason in ("invalid_credential", "missing_credential")
    description.check(DOOR, "get", answer)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_read_without_regard_to_case(asked, credential, scheme):
    """BE-06."""
    assert asked(Authorization=f"{scheme} {credential}").status == 200


@pytest.mark.parametrize("where", ["query", "body", "cookie", "header"])
def test_a_token_anywhere_else_is_not_read(asked, credential, where):
    """BE-05."""
    how = {
        "query": {"target": f"/forward-auth/{CLIENT}?access_token={credential}"},
        "body": {
            "method": "POST",
            "body": f"access_token={credential}".encode(),
            "Content_Type": "application/x-www-form-urlencoded",
        },
        "cookie": {"Cookie": f"access_token={credential}"},
        "header": {"X_Access_Token": credential, "Proxy_Authorization": f"Bearer {credential}"},
    }[where]
    answer = asked(Authorization=None, **how)
    assert (answer.status, answer.reason) == (401, "missing_credential")


def test_a_scope_that_is_missing_is_named(refused, idp):
    """BE-04."""
    answer = refused(403, "insufficient_scope", Authorization=f"Bearer {idp.token(scope='billing:read')}")
    assert 'scope="orders:read"' in answer.headers["www-authenticate"]


def test_the_body_is_never_read(asked):
    """FA-02: neither form nor garbage, up to the limit of what is taken in at all."""
    for method in ("POST", "PUT", "DELETE", "GET", "OPTIONS"):
        for body in (b"", b"\0" * 100, b"grant_type=x", b"a" * 65536, b"a" * 200_000):
            assert asked(method=method, body=body).status == 200


# Paths.

AMBIGUOUS = (
    *("/orders/../billing/1", "/orders/./7", "/orders/..", "/./orders/7", "/orders/%2e%2e/billing", "/orders/%2E%2E/x"),
    *("/orders/.%2e/x", "/orders%2f7", "/orders%2F7", "/orders/%5c7", "/orders\\7", "/orders/..\\x", "/orders/%252e"),
    *("/orders/%25", "/orders/%00", "/orders/%0a", "/orders/%0d%0aX", "/orders/%7f", "/orders/%", "/orders/%4"),
    *("/orders/7%3Fx", "/orders%3f", "/orders/7%23x", "/orders./7", "/orders/7.", "/orders%20/7", "/orders/7%20"),
    *("/orders/%zz", "//orders/7", "/orders//7", "/orders/7//", "///", "/orders;a=b/7", "/orders/7;x", "/orders/%3bx"),
    *("/orders/%c0%af", "/orders/%c0%ae%c0%ae/x", "/orders/%ff", "/orders/%ed%a0%80", "/orders/%u002e", "orders/7"),
    *("http://api.example.com/orders/7", "https://evil.example/orders/7", "*", "api.example.com:443", "?x", "#x"),
    *("/orders/7#x", "/orders/<x>", '/orders/"x"', "/orders/{x}", "/orders/|", "/orders/^", "/orders/`", "/orders/[x]"),
    *("/orders/a b", "/orders/\t7", "/orders/\xe9", "/orders/\xff", "/orders/7\x01".replace("\x01", "\xa0")),
)


@pytest.mark.parametrize("path", AMBIGUOUS, ids=ascii)
def test_a_path_that_can_be_read_in_two_ways_is_refused(refused, path):
    """FA-05."""
    refused(403, "ambiguous_path", X_Original_URI=path.encode("latin-1"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/orders/7", 200),
        ("/orders", 200),
        ("/orders/", 200),
        ("/orders/%37", 200),
        ("/%6frders/7", 200),
        ("/orders/a.b/..c/...d", 200),
        ("/orders/%C3%A9", 200),
        ("/orders/7?x=../../../etc/passwd", 200),
        ("/orders/7?//;%00", 200),
        ("/orders/" + "a" * 8000, 200),
        ("/ORDERS/7", 403),
        ("/ordersx/7", 403),
        ("/health/", 403),
        ("/", 403),
        ("/billing%20x/1", 403),
    ],
)
def test_a_path_with_one_reading_is_matched_by_it(asked, path, status):
    """FA-05: the query is none of the path."""
    assert asked(X_Original_URI=path).status == status


@pytest.mark.parametrize("path", ["/health", "/healt%68", "/%68ealth", "/health?x"])
def test_a_public_path_is_public_in_all_spellings_that_mean_it(asked, path):
    assert asked(X_Original_URI=path, Authorization=None).status == 200


@pytest.mark.parametrize(
    "host",
    ["api.example.com:443", "API.Example.COM", "api.example.com.", "api.example.com.:80"],
)
def test_one_host_has_many_spellings(asked, host):
    assert asked(X_Original_Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "api.example.com.evil.example", "api.example.com@evil.example", "api.example.com/x", "-"),
        *(
            "api.example.com:x",
            "api.example.com:1:2",
            "api.example.com..",
            "[::1",
            "api_.example.com:443443",
            "\uff41pi",
        ),
        *("xapi.example.com", "api.example.com\xa0", "a" * 300, "*", "*.example.com", "%61pi.example.com"),
    ],
    ids=ascii,
)
def test_another_host_has_no_route(refused, host):
    """No fault of the gateway: the end user chooses this value."""
    refused(403, "no_route", X_Original_Host=host.encode("utf-8"))


def test_a_lower_case_method_is_another_method(refused):
    refused(403, "no_route", X_Original_Method="get")


# The door's own target.


@pytest.mark.parametrize("suffix", ["", "/", "/a/b", "/../..", "//", "/%2e%2e", "/;x", "?a=b", "/\\", "/" + "a" * 3000])
def test_any_suffix_of_the_door_is_the_door(asked, suffix):
    """FA-02."""
    assert asked(target=f"/forward-auth/{CLIENT}{suffix}").status == 200


@pytest.mark.parametrize(
    "target",
    [
        *("/forward-auth", "/forward-auth/", "/forward-auth//", "/forward-auth/edge%2Dgateway", "/forward-auth/nobody"),
        *("/forward-auth/Edge-Gateway", "/forward-auth/edge-gateway;x", "/forward-auth/../forward-auth/edge-gateway"),
        *("http://a/forward-auth/edge-gateway", f"/forward-auth/{'a' * 129}", "/forward-auth/%00"),
    ],
)
def test_a_client_is_known_by_one_spelling(asked, description, target):
    """FA-09: the one refusal that a wrong secret gets, whatever is wrong."""
    answer = asked(target=target)
    assert answer.reason == "client_refused"
    assert answer.status in (403, 503)
    description.check(DOOR, "get", answer)


def test_only_what_is_written_as_the_door_is_the_door(asked):
    """Elsewhere there is nothing, so a gateway denies."""
    for target in ("//forward-auth/edge-gateway", "/forward-authx/edge-gateway", "/%66orward-auth/edge-gateway", "/x"):
        assert asked(target=target).status == 404


def test_no_door_ever_redirects_or_keeps_anybody_waiting(asked, description):
    """FA-01, FA-10: each status of the matrix, at once."""
    matrix = {
        200: {},
        401: {"Authorization": None},
        403: {"X_Original_URI": "/nowhere"},
        503: {"X_Original_URI": None},
    }
    for status, how in matrix.items():
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PROPFIND", "CONNECT"):
            began = time.monotonic()
            answer = asked(method=method, **how)
            assert answer.status == status
            assert time.monotonic() - began < 10
            assert answer.headers["cache-control"] == "no-store"
            if method != "CONNECT":
                description.check(DOOR, "head" if method == "HEAD" else "get", answer)
