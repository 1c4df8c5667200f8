"""docs/errors.md says which requests the HTTP server answers itself. Each row is tried, on both sides of its edge."""

import re
import socket
from pathlib import Path

import pytest
from harness import CLIENT, SECRET

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Answers that are not ours")[1].split("\n## ")[0]
ROWS = [
    (status, when.replace("\\|", "|"))
    for status, when in re.findall(r"^\| (\d+|none) \| (.*) \|$", SECTION, re.MULTILINE)
]

GET = b"GET /healthz HTTP/1.1\r\n"
ASK = f"POST /forward-auth/{CLIENT} HTTP/1.1\r\n".encode()
POST = b"POST /token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
HOST = b"Host: sts\r\nConnection: close\r\n"
GATEWAY = (
    f"X-Gateway-Secret: {SECRET}\r\nX-Original-Method: GET\r\nX-Original-URI: /health\r\n"
    "X-Original-Host: api.example.com\r\n"
).encode()
END = b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"3\r\na=b\r\n0\r\n\r\n"
MARK = b"zq9mark"


def with_line(line):
    return line + END + HOST + END


def with_headers(*lines, first=None):
    """The same odd headers at both doors and at a page."""
    starts = [first] if first else [GET, ASK, POST]
    return [start + HOST + GATEWAY + b"".join(line + END for line in lines) + END for start in starts]


def body_of(*lines):
    return [request + CHUNKS for request in (*with_headers(*lines, first=ASK), *with_headers(*lines, first=POST))]


CASES = {
    "the request line has not three parts with one space between them, or the version is not `HTTP/1.x`": [
        *(with_line(line) for line in (b"GET /healthz", b"GET  /healthz HTTP/1.1", b"GET /healthz HTTP/2.0", b"GET")),
        *(
            with_line(line)
            for line in (b"GET /healthz HTTP/1.1 x", b"GET /healthz http/1.1", b"GET /healthz HTTP/1.1 ")
        ),
        *(with_line(line) for line in (b"GET\t/healthz\tHTTP/1.1", b"GET /a b HTTP/1.1", b" GET /healthz HTTP/1.1")),
        *(with_line(line) for line in (b"HTTP/1.1 200 OK", b"GET /healthz HTTP/0.9", b"GET /healthz HTTP/11.1", b"")),
        with_line(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # the preface of HTTP/2
        with_line(b"GET /healthz HTTP/1." + MARK),
    ],
    "the method is not 3 to 20 of `A-Z`, digits and `!$%&'*+-.^_|~`": [
        *(
            with_line(b"%s /healthz HTTP/1.1" % method)
            for method in (b"get", b"Get", b"GE", b"A" * 21, b"G#T", b"G\0T")
        ),
        *(with_line(b"%s /healthz HTTP/1.1" % method) for method in (b"G,T", b"G\xc9T", b"(GET)", MARK)),
    ],
    "the target is not printable ASCII, or neither begins with `/`, nor is an absolute URI, or `*` for OPTIONS": [
        with_line(b"GET %s HTTP/1.1" % target)
        for target in (b"/\xe9", b"/\x7f", b"/\0", b"/a\x01", b"/\t", b"healthz", b"?x", b"http://[::1/x", b"*", MARK)
    ],
    "a line of the head ends with LF alone, or a header is folded over two lines": [
        b"GET /healthz HTTP/1.1\nHost: a\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: a\r\n\r\n",
        *with_headers(b"X: a\r\n b"),
        *with_headers(b"X: a\r\n\tb"),
        *with_headers(b"X-Gateway-Secret:\r\n " + MARK),
        *with_headers(b" X: a"),
    ],
    "a header has no colon, an empty name, a space before the colon, or a control character": [
        request
        for line in (b"X", MARK, b": a", b"X : a", b"X\t: a", b"X: a\0b", b"X: \x01", b"X: a\rb", b"X: \x7f", b"X\0: a")
        for request in with_headers(line)
    ]
    + [request for line in (b"X\xe9: a", b"X(: a", b"X,Y: a", b"\xff: a") for request in with_headers(line)],
    "a header name holds `_` (it would be read as the name with `-`)": [
        request
        for name in (
            b"X_Original_URI",
            b"X_Forwarded_Uri",
            b"X-Original_Host",
            b"X_Gateway_Secret",
            b"_",
            b"Content_Length",
        )
        for request in with_headers(name + b": 1")
    ],
    "`Host`, `Content-Length` or `Content-Type` stands twice": [
        *with_headers(b"Host: sts"),
        *with_headers(b"host: other"),
        *with_headers(b"Content-Length: 0", b"Content-Length: 0"),
        *with_headers(b"Content-Length: 0", b"content-length: 5"),
        *with_headers(b"Content-Type: application/x-www-form-urlencoded", b"Content-Type: text/plain"),
    ],
    "`Content-Length` is no number, or stands beside `Transfer-Encoding`": [
        request
        for value in (b"", b"x", b"-1", b"+1", b"1.0", b"0x1", b"1_0", b"1, 1", b"1 1", b"\xb2", b"\xbd", b"9" * 5000)
        for request in with_headers(b"Content-Length: " + value)
    ]
    + body_of(CHUNKED.strip(), b"Content-Length: 13")
    + body_of(b"Content-Length: 13", CHUNKED.strip()),
    "`Transfer-Encoding` is repeated, does not end with `chunked`, or comes with HTTP/1.0": [
        *body_of(CHUNKED.strip(), CHUNKED.strip()),
        *body_of(b"Transfer-Encoding: chunked, chunked"),
        *body_of(b"Transfer-Encoding: gzip"),
        *body_of(b"Transfer-Encoding: identity"),
        *body_of(b"Transfer-Encoding: chunked, gzip"),
        *body_of(b"Transfer-Encoding: chunked, identity"),
        b"POST /token HTTP/1.0\r\n" + CHUNKED + END + CHUNKS,
    ],
    "a body comes in more than 2048 chunks": [POST + HOST + CHUNKED + END + b"1\r\na\r\n" * 2_100 + MARK],
    "the request line is longer than 4094 bytes": [
        with_line(b"GET /%s HTTP/1.1" % (b"a" * (4095 - 14))),
        with_line(b"GET /token?%s HTTP/1.1" % (b"a" * 60_000)),
    ],
    "an `Expect` header other than `100-continue`": [
        *with_headers(b"Expect: x"),
        *with_headers(b"Expect:"),
        *with_headers(b"Expect: 100-continue, x"),
    ],
    "a header field is longer than 8190 bytes, or there are more than 100, or the head is longer than 64 KiB": [
        *with_headers(b"X: " + b"a" * (8191 - 5)),
        *with_headers(b"Authorization: Bearer " + b"a" * 14_000),
        *with_headers(*[b"X: a"] * 101),
    ],
    "a transfer coding that is not known": [
        *body_of(b"Transfer-Encoding: x"),
        *body_of(b"Transfer-Encoding: xchunked"),
        *body_of(b"Transfer-Encoding: chunked, x"),
        *body_of(b"Transfer-Encoding:"),
        *body_of(b"Transfer-Encoding: chunked;q=1"),
    ],
    "the request has not arrived whole after 10 seconds, or its sender closes before it has": [
        b"",
        b"\r\n",
        b"GET",
        GET + HOST,
        GET + HOST + GATEWAY,
        POST + HOST + b"Content-Length: 10\r\n\r\na=b",
        POST + HOST + CHUNKED + b"\r\n5\r\na=b",
        POST + HOST + CHUNKED + b"\r\n3\r\na=b\r\n",
        POST + HOST + CHUNKED + b"\r\n3\r\na=b\r\n0\r\n",
    ],
}


def test_each_row_of_the_page_is_tried_and_no_other():
    assert [when for _, when in ROWS] == list(CASES)


@pytest.mark.parametrize(("status", "when"), ROWS, ids=[when for _, when in ROWS])
def test_the_http_server_answers_as_the_page_says_and_repeats_nothing(raw, status, when):
    """ER-02: at both doors, once, and nothing of what was sent."""
    for request in CASES[when]:
        answers = raw(request, half_close=status == "none")
        assert [str(answer.status) for answer in answers] == [] if status == "none" else [status], request
        for answer in answers:
            assert "error_reason" not in answer.body.decode()
            assert MARK not in answer.body
            assert SECRET.encode() not in answer.body
            assert answer.headers["connection"] == "close"
            assert "x-request-id" not in answer.headers


@pytest.mark.parametrize("coding", ["x", "gzip", "identity", "chunked, gzip"], ids=repr)
def test_a_coding_that_is_refused_anyway_is_not_waited_for(raw, coding):
    for start in (ASK, POST):
        (answer,) = raw(start + HOST + f"Transfer-Encoding: {coding}\r\n\r\n".encode(), seconds=1.0)
        assert answer.status in (400, 501)


def test_a_head_without_end_is_refused(raw):
    """The answer may be lost where the peer still sends."""
    answers = raw(GET + b"X: a\r\n" * 12_000)
    assert [answer.status for answer in answers] in ([431], [])


# The other side of each edge.


@pytest.mark.parametrize(
    "request_",
    [
        with_line(b"GET /healthz HTTP/1.0"),
        with_line(b"GET /healthz HTTP/1.2"),
        b"\r\n" + with_line(b"GET /healthz HTTP/1.1"),
        with_line(b"GET http://sts/healthz HTTP/1.1"),
        with_line(b"GET /healthz?a=b HTTP/1.1"),
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        GET + HOST + b"X: " + b"a" * (8190 - 5) + END + END,
        GET + HOST + b"X: a\r\n" * 98 + END,
        GET + HOST + b"X: \xe9\xff\t!\r\n" + END,
        GET + HOST + b"X:\r\nY:a\r\n" + END,
        GET + HOST + b"Expect: 100-Continue\r\n" + END,
        GET + HOST + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + END,
        GET + HOST + b"Content-Length: 99999999999999999999999\r\n" + END,
    ],
    ids=range(13),
)
def test_what_is_unusual_and_still_http_is_answered(raw, request_):
    *interim, answer = raw(request_)
    assert answer.status == 200
    assert [one.status for one in interim] in ([], [100])


def test_the_longest_request_line_is_read(raw):
    (answer,) = raw(with_line(b"GET /%s HTTP/1.1" % (b"a" * (4094 - 14))))
    assert answer.status == 404
    (answer,) = raw(with_line(b"%s /healthz HTTP/1.1" % (b"A" * 20)))
    assert answer.status == 405


def test_the_longest_token_that_a_header_holds_is_read(raw):
    field = b"Authorization: Bearer "
    (answer,) = raw(*with_headers(field + b"a" * (8190 - 2 - len(field)), first=GET.replace(b"/healthz", b"/token")))
    assert answer.status == 405


def test_a_tls_client_at_a_plain_port_gets_nothing(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.5) as peer:
        peer.sendall(bytes.fromhex("16030100c8010000c40303") + bytes(200))
        with pytest.raises(TimeoutError):
            peer.recv(1)
