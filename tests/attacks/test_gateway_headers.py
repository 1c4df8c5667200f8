"""What a user can send through a gateway decides nothing: not which request it is, nor who asks (lessons 3.4, 3.5)."""

import pytest
from harness import SECRET

FORWARDING = {
    "X-Forwarded-Uri": "/health",
    "X-Forwarded-Path": "/health",
    "X-Forwarded-Prefix": "/health",
    "X-Forwarded-Method": "OPTIONS",
    "X-Forwarded-Host": "other.example.com",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-User": "root",
    "X-Forwarded-Access-Token": "x",
    "Forwarded": "for=127.0.0.1;host=other.example.com;proto=https",
    "X-Original-URL": "/health",
    "X-Original-Path": "/health",
    "X-Rewrite-URL": "/health",
    "X-Envoy-Original-Path": "/health",
    "X-Envoy-Original-Method": "OPTIONS",
    "X-Auth-Request-Redirect": "/health",
    "X-HTTP-Method-Override": "OPTIONS",
    "X-Method-Override": "OPTIONS",
    "X-Real-IP": "127.0.0.1",
    "X-User-ID": "root",
    "X-Tenant-ID": "root",
    "X-Token-Expires-At": "4000000000",
    "X-Auth-Reason": "none",
    "X-Client-Cert": "x",
    "Proxy-Authorization": f"Basic {SECRET}",
    "Cookie": "session=x; Authorization=Bearer x",
    "Via": "1.1 gateway",
    "Upgrade-Insecure-Requests": "1",
}


@pytest.mark.parametrize(("name", "value"), FORWARDING.items(), ids=FORWARDING)
def test_no_other_header_changes_the_decision(doors, idp, name, value):
    """FA-03, lesson 3.4 (oauth2-proxy CVE-2026-40575, Traefik GHSA-6384-m2mw-rf54, CVE-2026-52845, CVE-2026-39858)."""
    spoofed = [(name, value)]
    doors.refused(doors.at_forward(None, headers=spoofed), "missing_credential")
    doors.refused(doors.at_forward(idp.token(scope="billing:read"), headers=spoofed), "insufficient_scope")
    good = doors.at_forward(idp.token(), headers=spoofed)
    assert good.status == 200
    assert (good.headers["x-user-id"], good.headers["x-tenant-id"]) == ("alice", "agency-7")
    assert doors.event(good)[0]["route"] == "orders-read"


@pytest.mark.parametrize("name", ["X-SSL-Client-Verify", "X-SSL-Client-Cert", "Client-Cert", "X-Forwarded-Client-Cert"])
def test_a_certificate_that_the_user_says_it_has_is_refused(doors, idp, name):
    """CC-03: no good token makes up for it, since the gateway hands none on."""
    doors.refused(doors.at_forward(None, headers=[(name, "SUCCESS")]), "malformed")
    doors.refused(doors.at_forward(idp.token(), headers=[(name, "SUCCESS")]), "malformed")


def test_an_identity_header_of_the_user_never_survives(doors, idp):
    """FA-06, lesson 3.4 (Caddy CVE-2026-30851: a header that the answer lacked was left as the client sent it)."""
    forged = [("X-User-ID", "root"), ("X-Tenant-ID", "root"), ("X-Token-Expires-At", "4000000000")]
    for uri, token in (("/health", None), ("/health", "junk"), ("/billing/1", idp.token())):
        answer = doors.at_forward(token, uri, headers=forged)
        assert answer.status == 200
        assert [answer.headers[name] for name in ("x-user-id", "x-tenant-id")] == ["-", "-"]
        assert "root" not in str(answer.headers)
    assert doors.at_forward(None, "/health").headers["authorization"] == "-"
    without = doors.at_forward(idp.token(agency_id=None), headers=forged)
    assert (without.headers["x-user-id"], without.headers["x-tenant-id"]) == ("alice", "-")


def raw(service, *lines, target="/forward-auth/edge-gateway", method="GET"):
    """Send header lines as they are; returns status and body."""
    head = [f"{method} {target} HTTP/1.1", "Host: sts", "Connection: close", *lines, "", ""]
    answer = service.raw("\r\n".join(head).encode("latin-1"))
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def asked(token, uri="/orders/7"):
    return {
        "X-Gateway-Secret": SECRET,
        "X-Original-Method": "GET",
        "X-Original-URI": uri,
        "X-Original-Host": "api.example.com",
        "Authorization": f"Bearer {token}",
    }


def lines_of(headers):
    return [f"{name}: {value}" for name, value in headers.items()]


def test_the_raw_request_passes_as_it_stands(service, idp):
    assert raw(service, *lines_of(asked(idp.token())))[0] == 200


TWINS = ("X_Original_URI", "X-Original_URI", "X_Gateway_Secret", "X_User_ID", "X_Forwarded_Proto", "X_Forwarded_Uri")


@pytest.mark.parametrize("name", TWINS)
def test_a_header_that_would_be_read_as_another_is_refused_by_the_server(service, idp, name):
    """Lesson 3.4 (Caddy CVE-2026-52845, Traefik CVE-2026-39858): WSGI folds `_` and `-` into one."""
    for twin in (f"{name}: /health", f"{name.lower()}: /health", f"{name.upper()}: /health"):
        assert raw(service, *lines_of(asked(idp.token())), twin)[0] == 400
        assert raw(service, twin, *lines_of(asked(idp.token())))[0] == 400
        alone = {
            key: value for key, value in asked(idp.token()).items() if key.replace("-", "_") != name.replace("-", "_")
        }
        assert raw(service, *lines_of(alone), twin)[0] == 400


DOUBLED = {
    "X-Original-Method": ("OPTIONS", 503, "profile_header_missing"),
    "X-Original-URI": ("/health", 503, "profile_header_missing"),
    "X-Original-Host": ("other.example.com", 503, "profile_header_missing"),
    "Authorization": ("Bearer x", 401, "invalid_credential"),
    "X-Gateway-Secret": ("wrong", 403, "client_refused"),
}


@pytest.mark.parametrize("name", DOUBLED)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_doubled_header_is_refused_whichever_comes_first(world, name, first):
    """Lesson 3.4 (Istio CVE-2026-26308: only the first of several values was looked at)."""
    value, status, reason = DOUBLED[name]
    token = world.first.token()
    for other in (value, asked(token)[name]):
        headers, line = lines_of(asked(token)), f"{name}: {other}"
        got, body = raw(world.service, *([line, *headers] if first else [*headers, line]))
        assert got == status
        assert f'"error_reason":"{reason}"'.encode() in body


@pytest.mark.parametrize("name", ["X-Original-Method", "X-Original-URI", "X-Original-Host"])
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_a_missing_word_of_the_gateway_is_not_taken_from_elsewhere(doors, service, idp, name, value):
    """FA-04: neither another convention's header nor our own request line stands in."""
    headers = {**asked(idp.token()), name: value, **FORWARDING}
    answer = service.request(
        "GET", "/forward-auth/edge-gateway/health", {k: v for k, v in headers.items() if v is not None}
    )
    doors.refused(answer, "profile_header_missing")


FOLDED = {
    "a folded line": "X-Original-URI: /orders/7\r\n /health",
    "a bare LF": "X-Original-URI: /orders/7\nX-Original-URI: /health",
    "a bare CR": "X-Original-URI: /orders/7\rX-Original-URI: /health",
    "NUL": "X-Original-URI: /orders/7\0/health",
    "a space before the colon": "X-Original-URI : /health",
    "no colon": "X-Original-URI",
    "no name": ": /health",
    "a name with a quote": 'X-"Original: /health',
    "two hosts": "Host: other",
    "a length and a coding": "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0",
}


@pytest.mark.parametrize("line", FOLDED.values(), ids=FOLDED)
def test_what_is_no_http_header_is_refused_by_the_server(service, idp, line):
    """docs/errors.md, "Answers that are not ours"."""
    headers = {name: value for name, value in asked(idp.token()).items() if name != "X-Original-URI"}
    assert raw(service, *lines_of(headers), line)[0] == 400


AMBIGUOUS = (
    *(
        "/orders/../health",
        "/orders/..",
        "/..",
        "/.",
        "/./orders/7",
        "/orders/./7",
        "/orders/7/.",
        "/health/../orders/7",
    ),
    *("//orders/7", "/orders//7", "/orders/7//", "//health", "///", "//api.example.com/health"),
    *("/orders/%2e%2e/health", "/orders/%2E%2e/health", "/orders/.%2e/health", "/%2e/health", "/orders%2f7"),
    *("/orders%2F7", "/health%2f..%2forders", "/orders/%5c7", "/orders/%5C..%5Chealth", "/orders\\..\\health"),
    *(
        "/orders/7%00",
        "/orders/7%00.css",
        "/orders/%0a7",
        "/orders/%0d%0aX",
        "/orders/%7f",
        "/orders/%25",
        "/%252e%252e",
    ),
    *("/orders/%252f7", "/orders/7;x=1", "/orders;/7", "/orders/..;/health", "/orders/%3b7", "/orders/%", "/orders/%2"),
    *("/health%3Fx", "/health%3f", "/orders/7%3Fx/../health", "/health%23x", "/health%23", "/orders%23/7", "/%23"),
    *("/health%20", "/orders%20/7", "/orders/7%20", "/health.", "/health..", "/orders./7", "/orders/.%20/health"),
    *("/orders/...", "/orders/.../7", "/health%20%20", "/health.%20", "/health%20."),
    *("/orders/%zz", "/orders/%u002e", "/orders/%c0%af7", "/orders/%c0%ae%c0%ae/health", "/orders/%e0%80%af"),
    *("/orders/%ff", "/orders/%ed%a0%80", "/orders/7#x", "/orders/7 x", "/orders/\t7", '/orders/"7"', "/orders/<7>"),
    *(
        "/orders/{7}",
        "/orders/|7",
        "/orders/^7",
        "/orders/`7`",
        "orders/7",
        "health",
        "*",
        "?",
        "#",
        "api.example.com:443",
    ),
    *(
        "http://api.example.com/health",
        "https://api.example.com/orders/7",
        "HTTP://api.example.com/health",
        "http:/health",
    ),
    *("http://api.example.com@other/health", "/orders/\u00e9", "/orders/\uff0e\uff0e/health", "/orders/\u2215health"),
)


@pytest.mark.parametrize("path", AMBIGUOUS, ids=repr)
def test_a_path_that_can_be_read_in_two_ways_is_refused(doors, idp, path):
    """FA-05, lesson 3.5 (heimdall CVE-2026-42274, CVE-2026-42272; Oathkeeper; Envoy CVE-2021-29492; Istio)."""
    for token in (idp.token(), None):
        doors.refused(doors.at_forward(token, path.encode()), "ambiguous_path")
    doors.refused(doors.at_forward(None, path.encode() + b"?x=/health"), "ambiguous_path")


UNKNOWN = (
    *("/health/", "/health/x", "/Health", "/HEALTH", "/healthz", "/health.css", "/health,", "/health&", "/health%20x"),
    *("/", "/order", "/orders7", "/Orders/7", "/x/orders/7", "/orders%20x/7", "/~", "/%20health", "/health%C2%A0"),
)


@pytest.mark.parametrize("path", UNKNOWN)
def test_a_path_beside_a_route_is_none(doors, idp, path):
    """FA-05, lesson 3.5 (Tokenetes: patterns that matched by luck): no prefix, no case, no decoding lets through."""
    doors.refused(doors.at_forward(idp.token(), path), "no_route")


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/orders/7?next=//x/../%2e%00", "orders-read"),
        ("/order%73/7", "orders-read"),
        ("/%6f%72%64%65%72%73/7", "orders-read"),
        ("/orders/%C3%A9", "orders-read"),
        ("/orders/a%20b", "orders-read"),
        ("/orders/...x", "orders-read"),
        ("/orders/.hidden", "orders-read"),
        ("/orders/7/", "orders-read"),
        ("/orders", "orders-read"),
        ("/health?x", "health"),
        ("/he%61lth", "health"),
    ],
)
def test_a_path_with_one_reading_finds_its_route(doors, idp, path, route):
    """Lesson 3.5: escaped unreserved characters are what they stand for, and a query is no path."""
    answer = doors.at_forward(idp.token(), path)
    assert (answer.status, doors.event(answer)[0]["route"]) == (200, route)


HOSTS = {
    "no_route": (
        *(
            "other.example.com",
            "api.example.com.evil.example",
            "evil-api.example.com",
            "example.com",
            "api.example.com/x",
        ),
        *("api.example.com@evil", "evil@api.example.com", "api.example.com:x", "api.example.com:443:443", "[::1]", "*"),
        *(
            "api.example.com..",
            ".api.example.com",
            "api..example.com",
            "api.example.com\\x",
            "api%2eexample.com",
            "127.0.0.1",
        ),
        *(
            "api.example.com#",
            "api.example.com?",
            "\u0430pi.example.com",
            "api.ex\u00e4mple.com",
            "xn--api.example.com",
            "a b",
        ),
    ),
    "profile_header_missing": ("api.example.com, other", "other, api.example.com", "api.example.com,"),
}


@pytest.mark.parametrize(("reason", "host"), [(reason, host) for reason, hosts in HOSTS.items() for host in hosts])
def test_a_host_that_is_not_the_routes_finds_none(doors, service, idp, reason, host):
    """Lesson 3.5 (heimdall CVE-2026-42273)."""
    headers = {**asked(idp.token()), "X-Original-Host": host.encode()}
    doors.refused(service.request("GET", "/forward-auth/edge-gateway", headers), reason)


@pytest.mark.parametrize("host", ["API.example.com", "api.example.COM", "api.example.com:8443", "api.example.com."])
def test_a_host_is_found_without_case_port_and_final_dot(doors, service, idp, host):
    """Lesson 3.5 (heimdall CVE-2026-42273: a rule that compares the case is stepped around)."""
    answer = service.request("GET", "/forward-auth/edge-gateway", {**asked(idp.token()), "X-Original-Host": host})
    assert (answer.status, doors.event(answer)[0]["route"]) == (200, "orders-read")


METHODS = (
    "get",
    "Get",
    "GETX",
    "POST ",
    "GET,POST",
    "GET, OPTIONS",
    "G\u00cbT",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PATCH",
    "*",
)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_method_that_no_route_names_is_refused(doors, service, idp, method):
    """FA-02: methods are compared letter by letter, and OPTIONS is one like any other."""
    headers = {**asked(idp.token()), "X-Original-Method": method.encode()}
    answer = service.request("GET", "/forward-auth/edge-gateway", headers)
    if method == "POST ":  # HTTP strips it (RFC 9110 §5.5): POST has a route
        assert doors.event(answer)[0]["route"] == "orders-write"
    else:
        broken = not method.isascii() or "," in method
        doors.refused(answer, "profile_header_missing" if broken else "no_route")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
def test_our_own_door_asks_for_the_credential_under_every_method(service, method):
    """FA-01, FA-02 (LIB-F01: Flask would answer OPTIONS with 200 by itself)."""
    headers = {name: value for name, value in asked("x").items() if name != "Authorization"}
    answer = service.request(method, "/forward-auth/edge-gateway", headers)
    assert answer.status == 401
    assert answer.headers["x-auth-reason"] == "missing_credential"


TARGETS = (
    *("//forward-auth/edge-gateway", "/./forward-auth/edge-gateway", "/x/../forward-auth/edge-gateway"),
    *(
        "/%66orward-auth/edge-gateway",
        "/forward-auth%2fedge-gateway",
        "/Forward-Auth/edge-gateway",
        "/forward-auth;x/edge",
    ),
    *(
        "/forward-auth//edge-gateway",
        "/forward-auth/",
        "/forward-auth",
        "/forward-auth/../edge-gateway",
        "/forward-auth?x",
    ),
    *(
        "/forward-auth/%65dge-gateway",
        "/forward-auth/edge-gateway%00",
        "/forward-auth/edge-gateway;x",
        "/forward-auth/*",
    ),
    *(
        "http://sts/forward-auth/edge-gateway",
        "https://sts/forward-auth/edge-gateway/x",
        "http://x@sts/forward-auth/edge-gateway",
    ),
)


@pytest.mark.parametrize("target", TARGETS)
def test_a_door_is_found_only_as_it_is_written(service, idp, target):
    """FA-01, lesson 3.5: no spelling of our own path answers anything but no, and none redirects."""
    for credential in (lines_of(asked(idp.token())), lines_of(asked(idp.token(), "/health"))):
        status, _ = raw(service, *credential, target=target)
        assert status in {403, 404}


@pytest.mark.parametrize(
    "target", ["http://sts/token", "//token", "/token/", "/Token", "/%74oken", "/token;x", "/token?x=1"]
)
def test_the_token_door_is_found_only_as_it_is_written(service, idp, target):
    status, _ = raw(service, *lines_of(asked(idp.token())), "Content-Length: 0", target=target, method="POST")
    assert status in {400, 404, 405, 415}


AUTHORIZATIONS = {
    "missing_credential": ("", "Basic eDp5", "Token {t}", "DPoP {t}", "{t}", "BearerX {t}", "Bearer\t{t}"),
    "malformed": (
        "Bearer",
        "Bearer ",
        "Bearer {t} {t}",
        "Bearer {t},Bearer {t}",
        "Bearer {t}, Basic x",
        "Bearer {t};",
        'Bearer "{t}"',
    ),
}


@pytest.mark.parametrize(
    ("reason", "value"), [(reason, value) for reason, all_ in AUTHORIZATIONS.items() for value in all_]
)
def test_an_authorization_header_holds_one_bearer_token_or_none(doors, service, idp, reason, value):
    """RFC 6750 §2.1, LIB-G05."""
    token = idp.token()
    written = value.format(t=token)
    answer = service.request("GET", "/forward-auth/edge-gateway", {**asked(token), "Authorization": written})
    doors.refused(answer, reason, token)


def test_a_token_anywhere_else_is_not_read(doors, service, idp):
    """Design §5.3: query, body, cookie and other headers are never read (RFC 6750 §5.3)."""
    token = idp.token()
    headers = dict(asked(token, f"/orders/7?access_token={token}").items())
    del headers["Authorization"]
    headers |= {"Cookie": f"access_token={token}", "X-Access-Token": token, "X-Forwarded-Access-Token": token}
    body = f"access_token={token}".encode()
    answer = service.request("POST", f"/forward-auth/edge-gateway?access_token={token}"[:4000], headers, body)
    doors.refused(answer, "missing_credential", token)
