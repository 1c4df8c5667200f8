"""When a request is there: in step with gunicorn's parser, and in linear time."""

import time

import pytest
from gunicorn import config, http
from gunicorn.http import errors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sts.server.request_buffer import MAX_HEAD_BYTES, Arrival

POST = b"POST /token HTTP/1.1\r\nHost: sts\r\n"


def arrived(data, piece=None):
    arrival = Arrival()
    for start in range(0, len(data), piece or len(data) or 1):
        arrival.data += data[start : start + (piece or len(data))]
        if arrival.whole():
            return True
    return False


@pytest.mark.parametrize("piece", [None, 1, 7])
@pytest.mark.parametrize(
    ("request_bytes", "whole"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", False),
        (b"GET / HTTP/1.1\n\n", True),
        (POST + b"Content-Length: 3\r\n\r\nab", False),
        (POST + b"Content-Length: 3\r\n\r\nabc", True),
        (POST + b"content-length:0000003\r\n\r\nab", False),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", True),
        (POST + b"Content-Length: x\r\n\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", False),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n", False),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", True),
        (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", True),
    ],
)
def test_a_request_is_there_with_its_last_byte_however_it_comes(request_bytes, whole, piece):
    assert arrived(request_bytes, piece) is whole


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: " + b"0" * 60_000 + b"x",
        b"Content-Length:" + b" " * 60_000 + b"x",
        b"Content-Length:" + b"\t \t" * 20_000,
        b"Transfer-Encoding: " + b"chunke" * 10_000,
        b"Transfer-Encoding: chunked" + b" " * 60_000 + b"x",
        b"X: " + b"\r" * 60_000,
        b"Expect:" + b" " * 60_000 + b"100-continu",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_no_head_costs_more_than_its_length(line):
    """One such request stopped a worker's only poller for half a minute."""
    began = time.process_time()
    arrived(POST + line + b"\r\n\r\n")
    assert time.process_time() - began < 0.2


def test_a_byte_behind_a_long_head_costs_no_second_look_at_it():
    arrival = Arrival()
    arrival.data += POST + b"X: " + b"a" * 60_000 + b"\r\nContent-Length: 60000\r\n\r\n"
    assert not arrival.whole()
    began = time.process_time()
    for _ in range(20_000):
        arrival.data += b"a"
        assert not arrival.whole()
    assert time.process_time() - began < 1.0


def test_a_head_without_end_is_too_long():
    arrival = Arrival()
    arrival.data += b"a" * (MAX_HEAD_BYTES + 1)
    assert not arrival.whole()
    assert arrival.too_long


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [b"Content-Length: 3", b"Content-Length: 0", b"content-length: 03", b"Transfer-Encoding: chunked", b"A: b"]
        ),
        max_size=3,
    ),
    st.sampled_from(
        [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n", b"2\r\nab\r\n", b"1;x\r\na\r\n0\r\nT: v\r\n\r\n"]
    ),
)
@example([b"Transfer-Encoding: chunked"], b"0\r\n\r\n")
def test_law_of_what_is_there_the_parser_never_wants_more(lines, body):
    data = POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    if not arrived(data):
        return
    wanted = []

    def more():
        yield data
        wanted.append(True)

    try:
        request = next(http.parser.RequestParser(config.Config(), more(), ("127.0.0.1", 1)))
        request.body.read()
    except (errors.ParseException, errors.NoMoreData, OSError, StopIteration):
        return
    assert not wanted
