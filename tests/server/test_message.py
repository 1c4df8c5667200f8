"""How requests are read from bytes: strictly, in any pieces, and in linear time."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.server.message import MAX_HEAD_BYTES, BadBody, BadRequest, Chunks, head_end, read_head

START = b"POST /token HTTP/1.1\r\n"


def read(*lines):
    return read_head(START + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


def refused(*lines):
    with pytest.raises(BadRequest) as found:
        read(*lines)
    return found.value.status


def body(data, piece=None):
    """What the chunks hold, and what comes behind them; the bytes come in pieces."""
    chunks, arrived = Chunks(), bytearray()
    for start in range(0, len(data), piece or len(data)):
        arrived += data[start : start + (piece or len(data))]
        if end := chunks.end(arrived):
            return chunks.body, data[end:]
    return None


def test_a_head_is_read_as_it_is_written():
    head = read(b"Host: sts", b"X-A:  b \t", b"x-a: c", b"Content-Length: 5")
    assert head[:3] == ("POST", "/token", 1)
    assert head.headers == {"host": "sts", "x-a": "b,c"}
    assert (head.length, head.keep, head.expects) == (5, True, False)


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        ([b"Connection: close"], False),
        ([b"Connection: Keep-Alive, Close"], False),
        ([b"Connection: te", b"connection: close"], False),
        ([b"Connection: upgrade"], True),
        ([b"Transfer-Encoding: gzip, chunked"], False),
        ([b"Transfer-Encoding: identity, chunked"], True),
    ],
)
def test_a_connection_ends_where_one_side_says_so(lines, keep):
    assert read(*lines).keep is keep


def test_http_1_0_goes_on_only_where_it_asks_to():
    assert not read_head(b"GET / HTTP/1.0\r\n\r\n").keep
    assert read_head(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep
    assert not read_head(b"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects


def test_a_header_of_a_gateway_profile_that_comes_twice_counts_as_none():
    """Joined with a comma, the two could be one path."""
    head = read(b"X-Original-URI: /a", b"X-Original-Host: h", b"x-original-uri: /b", b"X-Other: a", b"X-Other: b")
    assert head.headers == {"x-original-host": "h", "x-other": "a,b"}


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"], 501),
        ([b"X: a\r\n b"], 400),
        ([b"X: a\nb: c"], 400),
        ([b"X: a\0"], 400),
        ([b"X_A: a"], 400),
        ([b"X" * 101 for _ in range(101)], 400),
        ([b"X: a"] * 101, 431),
        ([b"X: " + b"a" * 8186], 431),
        ([b"X: a"] * 100 + [b"Y"], 431),
        ([b"X: " + b"a" * 8186, b"Y"], 431),
        ([b"Y", b"X: " + b"a" * 8186], 400),
        ([b"Expect: nothing"], 417),
    ],
)
def test_the_first_fault_decides_the_status(lines, status):
    assert refused(*lines) == status


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: " + b"0" * 8_000 + b"x",
        b"Content-Length:" + b" " * 8_000 + b"x",
        b"Transfer-Encoding: " + b"chunke" * 1_300,
        b"Transfer-Encoding: chunked" + b" " * 8_000 + b"x",
        b"Transfer-Encoding: " + b"," * 8_000,
        b"Connection: " + b"," * 8_000,
        b"X: " + b"\r" * 60_000,
        b"!" * 60_000,
        b":" * 60_000,
        b"a:" * 30_000 + b"\0",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_no_head_costs_more_than_its_length(line):
    """The event loop answers everybody."""
    began = time.process_time()
    try:
        for _ in range(20):
            read(*[line] * (60_000 // len(line)))
    except BadRequest:
        pass
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "ext", [b";a" * 500, b" " * 1000 + b"x", b";a" + b" " * 1000, b';a="' + b"\\a" * 500, b";a=b" * 200]
)
def test_no_chunk_line_costs_more_than_its_length(ext):
    began = time.process_time()
    for _ in range(20):
        with contextlib.suppress(BadBody):
            body(b"1" + ext[:1020] + b"\r\na\r\n0\r\n\r\n")
    assert time.process_time() - began < 0.5


def test_a_head_that_comes_byte_by_byte_is_searched_once():
    data, searched = bytearray(), 0
    began = time.process_time()
    for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000:
        data.append(byte)
        assert not head_end(data, searched)
        searched = len(data)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 414),
        (b"GET / HTTP/1.1\nHost", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
    ],
)
def test_a_head_that_cannot_end_well_is_refused_before_its_end(data, status):
    with pytest.raises(BadRequest) as found:
        head_end(bytearray(data), 0)
    assert found.value.status == status


@settings(max_examples=200)
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b";a", b' ; a = "b;\\" c"']),
    st.integers(1, 9),
)
def test_law_of_chunks_that_what_was_written_is_read_in_any_pieces(parts, extension, piece):
    data = b"".join(b"%x%s\r\n%s\r\n" % (len(one), extension, one) for one in parts) + b"0\r\n\r\n"
    assert body(data, piece) == (b"".join(parts), b"")
    assert body(data + b"GET /") == (b"".join(parts), b"GET /")
