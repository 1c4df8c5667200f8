"""A body that the endpoint does not read is not waited for, never answered, and never read as a request."""

import socket

import pytest
from harness import CLIENT, SECRET

FORWARD_AUTH = f"/forward-auth/{CLIENT}".encode()
BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"


def question(*lines, method=b"GET", path=FORWARD_AUTH):
    """A request whose answer is 200, with these more lines; the connection stays open."""
    good = [
        method + b" " + path + b" HTTP/1.1",
        b"Host: sts",
        f"X-Gateway-Secret: {SECRET}".encode(),
        b"X-Original-Method: GET",
        b"X-Original-URI: /health",
        b"X-Original-Host: api.example.com",
        *lines,
    ]
    return b"\r\n".join([*good, b"", b""])


@pytest.fixture
def connect(service):
    made = []

    def connect():
        made.append(socket.create_connection(("127.0.0.1", service.port), timeout=60))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def head_of(connection):
    """The head of one final answer, in lower case; forward-auth's answers have no body."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        assert part, received
        received = (received + part).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    return received.lower()


def rest_of(connection):
    """All that comes until the service closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE"])
@pytest.mark.parametrize(
    ("framing", "late"),
    [
        (b"Content-Length: 5", b"abcde"),
        (b"Content-Length: %d" % len(BEHIND), BEHIND),
        (b"Content-Length: 60000", BEHIND * 10),
        (b"Transfer-Encoding: chunked", b"5\r\nabcde\r\n0\r\n\r\n" + BEHIND),
        (b"Content-Length: 5\r\nExpect: 100-continue", b"abcde"),
    ],
    ids=["five bytes", "a request", "a part of it", "chunks", "only after 100 Continue"],
)
def test_forward_auth_answers_when_the_head_is_there_and_late_body_bytes_are_no_request(connect, method, framing, late):
    """The connection ends with the answer, since what still comes of the body cannot be told from a request."""
    connection = connect()
    connection.sendall(question(framing, method=method))
    head = head_of(connection)
    assert head.startswith(b"http/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in head
    connection.sendall(late)
    assert rest_of(connection) == b""


def test_a_page_that_reads_no_body_does_not_wait_for_one(connect):
    connection = connect()
    connection.sendall(question(b"Content-Length: 5", path=b"/healthz"))
    assert head_of(connection).startswith(b"http/1.1 200 ")


def test_a_body_that_came_with_the_head_is_dropped_to_its_last_byte_and_the_next_request_is_answered(connect):
    connection = connect()
    for framing, body in (
        (b"Content-Length: %d" % len(BEHIND), BEHIND),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BEHIND), BEHIND)),
    ):
        connection.sendall(question(framing) + body)
        assert head_of(connection).startswith(b"http/1.1 200 ")
    connection.sendall(question(b"Connection: close"))
    assert rest_of(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "broken", [b"zz\r\nabc\r\n0\r\n\r\n", b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"5\r\nabcde\r\n0\r\n:\r\n\r\n"]
)
def test_a_malformed_body_that_is_not_read_gets_one_answer(connect, broken):
    connection = connect()
    connection.sendall(question(b"Transfer-Encoding: chunked") + broken + BEHIND)
    answers = rest_of(connection)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.count(b"HTTP/1.1 ") == 1
