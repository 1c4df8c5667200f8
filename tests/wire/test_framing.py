"""Where one request ends and the next begins: no byte is read as two things, and nobody is kept waiting."""

import contextlib
import socket
import time
import urllib.parse

import pytest
from harness import CLIENT, SECRET, Idp, Service, minimal

from sts.server.connection import ARRIVAL_S

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"


@pytest.fixture
def body(form):
    return urllib.parse.urlencode(form()).encode()


@pytest.fixture(scope="session")
def head():
    """The head of a good POST /token, with these more lines; the connection stays open unless `close`."""
    from base64 import b64encode  # noqa: PLC0415 - only here

    basic = b64encode(f"{CLIENT}:{SECRET}".encode())

    def head(*lines, close=True, version=b"1.1"):
        good = [
            b"POST /token HTTP/" + version,
            b"Host: sts",
            b"Authorization: Basic " + basic,
            b"Content-Type: application/x-www-form-urlencoded",
            *([b"Connection: close"] if close else []),
            *lines,
        ]
        return b"\r\n".join([*good, b"", b""])

    return head


@pytest.fixture(scope="session")
def ask():
    """A good question at forward-auth, with these more lines."""

    def ask(*lines, method=b"GET", close=True):
        good = [
            method + f" /forward-auth/{CLIENT} HTTP/1.1".encode(),
            b"Host: sts",
            f"X-Gateway-Secret: {SECRET}".encode(),
            b"X-Original-Method: GET",
            b"X-Original-URI: /health",
            b"X-Original-Host: api.example.com",
            *([b"Connection: close"] if close else []),
            *lines,
        ]
        return b"\r\n".join([*good, b"", b""])

    return ask


def chunks(body, size=1000, extension=b"", trailer=b""):
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(one), extension, one) for one in pieces) + b"0\r\n" + trailer + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked"


def statuses(answers):
    return [answer.status for answer in answers]


def test_http_1_0_is_served_and_closed(raw, head, body):
    (answer,) = raw(head(b"Content-Length: %d" % len(body), close=False, version=b"1.0") + body)
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
@pytest.mark.parametrize("extension", [b"", b";a", b";a=b", b' ; a = "b;\\" c"'])
def test_a_chunked_form_is_read(raw, head, body, size, extension):
    size = max(size, 50) if extension else size
    assert statuses(raw(head(CHUNKED) + chunks(body, size, extension))) == [200]


def test_a_chunked_form_may_end_with_trailers_that_say_nothing(raw, head, body):
    assert statuses(raw(head(CHUNKED) + chunks(body, trailer=b"X-A: b\r\nX-C: d\r\n"))) == [200]


@pytest.mark.parametrize(
    "trailer", [b"Authorization: Basic x", b"Content-Length: 5", b"Host: x", b"X_A: b", b"X", b"X : a", b"X: \0"]
)
def test_a_trailer_that_may_not_be_one_is_refused(raw, head, body, trailer):
    (answer,) = raw(head(CHUNKED, close=False) + chunks(body, trailer=trailer + b"\r\n") + SMUGGLED)
    assert (answer.status, answer.reason) == (400, "malformed")


@pytest.mark.parametrize(
    "broken",
    [
        *(b"zz\r\na=b\r\n0\r\n\r\n", b"0x3\r\na=b\r\n0\r\n\r\n", b"+3\r\na=b\r\n0\r\n\r\n", b"-3\r\na=b\r\n0\r\n\r\n"),
        *(b"3 \r\na=b\r\n0\r\n\r\n", b" 3\r\na=b\r\n0\r\n\r\n", b"3;\r\na=b\r\n0\r\n\r\n", b"3;a=\r\na=b\r\n0\r\n\r\n"),
        *(
            b"3\r\na=bXX0\r\n\r\n",
            b"3\r\na=bcd\r\n0\r\n\r\n",
            b"4\r\na=b\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"1_0\r\na=b\r\n\r\n",
        ),
        *(b"3\na=b\n0\n\n" + b"\r\n\r\n", b"3;a\rb\r\na=b\r\n0\r\n\r\n", b"\xb23\r\na=b\r\n0\r\n\r\n"),
    ],
    ids=repr,
)
def test_chunks_that_are_none_are_refused_and_what_follows_is_not_read(raw, head, broken):
    (answer,) = raw(head(CHUNKED, close=False) + broken + SMUGGLED)
    assert (answer.status, answer.reason) == (400, "malformed")


def test_a_chunked_body_has_the_same_limit(raw, head, body):
    """EP-10: 65536 bytes, however they are cut."""
    longest = body + b"&pad=" + b"a" * (65536 - len(body) - 5)
    assert statuses(raw(head(CHUNKED) + chunks(longest, 4096))) == [200]
    assert statuses(raw(head(CHUNKED) + chunks(longest, 65536))) == [200]
    for size in (4096, 65537):
        (answer,) = raw(head(CHUNKED, close=False) + chunks(longest + b"a", size) + SMUGGLED)
        assert (answer.status, answer.reason) == (413, "too_large")


@pytest.mark.parametrize(
    "lines",
    [
        (CHUNKED, b"Content-Length: 5"),
        (b"Content-Length: 5", CHUNKED),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5, 6",),
        (CHUNKED, b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding:\x0bchunked",),
        (b"Transfer_Encoding: chunked",),
        (b"X: a\r\n Transfer-Encoding: chunked",),
        (b"X: a\nTransfer-Encoding: chunked",),
        (b"X: a\rTransfer-Encoding: chunked",),
        (b"Content-Length: +5",),
        (b"Content_Length: 5",),
    ],
    ids=repr,
)
@pytest.mark.parametrize("door", ["token", "forward-auth"])
def test_no_request_is_smuggled_behind_another(raw, head, ask, door, lines):
    """RFC 9112 §11.2: refused once, then closed."""
    first = head(*lines, close=False) if door == "token" else ask(*lines, method=b"POST", close=False)
    (answer,) = raw(first + b"0\r\n\r\n" + SMUGGLED)
    assert answer.status in (400, 501)


def test_a_gzip_coding_before_the_chunks_is_not_undone(raw, head, body):
    assert statuses(raw(head(b"Transfer-Encoding: gzip, chunked", close=False) + chunks(body) + SMUGGLED))[0] == 200


def test_pipelined_requests_are_answered_one_after_the_other(raw, head, ask, body):
    length = b"Content-Length: %d" % len(body)
    refused = head(length, close=False).replace(b"POST", b"PUT") + body
    request = (
        head(length, close=False)
        + body
        + ask(close=False)
        + refused
        + ask(b"Content-Length: 5", method=b"POST", close=False)
        + b"GET /"
        + head(CHUNKED, close=False)
        + chunks(body, 100)
        + ask(CHUNKED, method=b"POST", close=False)
        + chunks(b"GET /smuggled HTTP/1.1\r\n\r\n", 5)
        + head(length)
        + body
        + SMUGGLED
    )
    assert statuses(raw(request)) == [200, 200, 405, 200, 200, 200, 200]


@pytest.mark.parametrize("cut", [1, 2, 5, 60])
def test_a_request_may_come_in_any_pieces(raw, head, body, cut):
    request = head(b"Content-Length: %d" % len(body)) + body
    step = max(cut, len(request) // 200)
    assert statuses(raw(*(request[start : start + step] for start in range(0, len(request), step)))) == [200]


def test_100_continue_comes_before_the_body_and_only_where_it_is_asked_for(service, head, body):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as peer:
        peer.sendall(head(b"Content-Length: %d" % len(body), b"Expect: 100-continue"))
        assert peer.recv(100).startswith(b"HTTP/1.1 100 ")
        peer.sendall(body)
        received = b""
        while chunk := peer.recv(65536):
            received += chunk
        assert b"HTTP/1.1 200 OK" in received


def test_a_body_that_is_too_large_is_refused_without_100_continue(raw, head):
    (answer,) = [one for one in raw(head(b"Content-Length: 65537", b"Expect: 100-continue")) if one.status != 100]
    assert answer.status == 413


def test_what_a_length_is_too_large_for_is_refused_unread_and_closed(raw, head, ask):
    for length in (b"65537", b"0065537", b"9" * 18):
        (answer,) = raw(head(b"Content-Length: " + length, close=False))
        assert (answer.status, answer.reason) == (413, "too_large"), length
    (answer,) = raw(ask(b"Content-Length: 99999999", method=b"POST", close=False) + SMUGGLED)
    assert answer.status == 200  # forward-auth needs no body, and what comes behind the head is body


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE", b"CONNECT", b"PROPFIND", b"ABC", b"M-SEARCH"])
def test_any_method_is_answered_by_its_door(raw, ask, method):
    (answer,) = raw(ask(method=method))
    assert answer.status == 200
    (answer,) = raw(ask(method=method).replace(b"/health", b"/nowhere"))
    assert answer.status == 403
    (answer,) = raw(method + b" /token HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    for target in (b"/healthz", b"*"):
        (answer,) = raw(method + b" " + target + b" HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n")
        assert answer.status in ((404, 405) if target != b"*" else (400, 404))  # `*` is a target of OPTIONS alone


def test_a_target_in_absolute_form_is_refused_by_the_door_it_names(raw, ask, head, body):
    """Its refusal has the door's shape and stands in the audit; its host is nobody's."""
    request = head(b"Content-Length: %d" % len(body)).replace(b" /token", b" http://evil.example/token") + body
    (answer,) = raw(request)
    assert (answer.status, answer.reason) == (400, "malformed")
    (answer,) = raw(ask().replace(b" /forward-auth", b" http://evil.example/forward-auth"))
    assert answer.status in (403, 503)
    assert answer.reason == "client_refused"


# Peers that stop in the middle: forty of each sort against four threads.


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    idp = Idp()
    running = Service(tmp_path_factory.mktemp("few"), minimal(idp) + "\nthreads: 4\nworkers: 1\n")
    running.good = idp.token()
    assert running.exchange(running.good).status == 200
    yield running
    assert running.stop() == 0
    idp.close()


def answered_meanwhile(service, first, seconds=1.5):
    """Whether good requests are answered while forty peers have sent `first`, then a byte now and then.

    A peer that held a thread would hold it until it is given up, `ARRIVAL_S` after it came.
    """
    question = f"GET /forward-auth/{CLIENT} HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n".encode()
    with contextlib.ExitStack() as peers:
        sockets = []
        for _ in range(40):
            sockets.append(peers.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=60)))
            with contextlib.suppress(OSError):  # it may be refused before all of it was sent
                sockets[-1].sendall(first)
        time.sleep(0.2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", service.port), timeout=ARRIVAL_S / 2) as good:
                    good.sendall(question)
                    assert good.recv(100).startswith(b"HTTP/1.1 ")
            except TimeoutError:
                return False
            for peer in sockets:
                with contextlib.suppress(OSError):
                    peer.sendall(b"a")
        return True


STOPS = {
    "a huge chunk": (CHUNKED, b"fffff\r\naaaa"),
    "a chunk size of thousands of digits": (CHUNKED, b"f" * 5000 + b"\r\n"),
    "many small chunks": (CHUNKED, b"1\r\na\r\n" * 12_000),
    "a length that begins with zeros": (b"Content-Length: " + b"0" * 20 + b"5000", b"aaaa"),
    "a length of twenty digits": (b"Content-Length: " + b"9" * 20, b"aaaa"),
}


@pytest.mark.parametrize("how", STOPS)
def test_a_peer_that_stops_in_the_middle_holds_no_thread(few_threads, head, how):
    line, first = STOPS[how]
    assert answered_meanwhile(few_threads, head(line, close=False) + first)


def test_a_peer_that_has_nothing_more_to_send_is_let_go(service):
    assert ARRIVAL_S == 10  # docs/errors.md says so
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=ARRIVAL_S + 60) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert peer.recv(1) == b""
        assert time.monotonic() - began > ARRIVAL_S - 1


def test_a_body_in_more_chunks_than_anybody_needs_is_refused_and_costs_no_thread(few_threads, head):
    """Each chunk costs the poller its share, however little it holds."""
    answer = few_threads.raw(head(CHUNKED) + b"1\r\na\r\n" * 4_000 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    fits = few_threads.raw(head(CHUNKED) + b"1\r\na\r\n" * 2_000 + b"0\r\n\r\n")
    assert fits.startswith(b"HTTP/1.1 400 ")  # read to its end: it is no form of ours
