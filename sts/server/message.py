"""How a request is read from bytes: one strict grammar of the head (RFC 9112), and the framing of the body.

There is one parser and no second opinion. What this module takes is what the doors see, and what it does not take is
refused once, with the connection closed behind it. Two readers that differ about one byte are how requests are
smuggled. Each byte is looked at a bounded number of times, because a peer decides how its bytes arrive.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sts.edge.form import MAX_BODY_BYTES
from sts.edge.profiles import PROFILES

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_LINE_BYTES: Final = 4094
"""The longest request line, without its line end."""
MAX_FIELD_BYTES: Final = 8190
"""The longest header field, with its line end."""
MAX_FIELDS: Final = 100
MAX_CHUNKED_BYTES: Final = 2 * MAX_BODY_BYTES
"""The longest body in chunks as it is sent, with the lines around the chunks."""
MAX_CHUNKS: Final = 2048
"""Chunks of one body: each costs a few microseconds, however little it holds."""

_TCHAR: Final = rb"!#$%&'*+\-.^`|~0-9A-Za-z"  # without "_": X_Forwarded_Uri must not be read as X-Forwarded-Uri
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]"
_FIELD_LINE: Final = rb"[" + _TCHAR + rb"]++:" + _VALUE + rb"*+"
_METHOD: Final = rb"[!$%&'*+\-.^_`|~0-9A-Z]{3,20}"
_TARGET: Final = rb"[\x21-\x7e]++"
_REQUEST_LINE: Final = rb"(" + _METHOD + rb") (" + _TARGET + rb") HTTP/1\.([0-9])"
# Possessive quantifiers: a head that does not match costs one walk over it, not many.
_HEAD: Final = re.compile(_REQUEST_LINE + rb"\r\n((?:" + _FIELD_LINE + rb"\r\n)*+)\r\n")
_LINE: Final = re.compile(_REQUEST_LINE)
_FIELD: Final = re.compile(_FIELD_LINE)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")

_WORD: Final = rb"[" + _TCHAR + rb"_]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = rb"[ \t]*;[ \t]*" + _WORD + rb"(?:[ \t]*=[ \t]*(?:" + _WORD + rb"|" + _QUOTED + rb"))?"
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]+)(?:" + _EXTENSION + rb")*")  # RFC 9112 §7.1
_LONGEST_CHUNK_LINE: Final = 1024

_SINGLE: Final = frozenset({"host", "content-type", "content-length"})  # a second one makes the message ambiguous
_NO_TRAILER: Final = frozenset({"host", "content-length", "transfer-encoding", "trailer", "authorization", "te"})
_CODINGS: Final = frozenset({"identity", "compress", "deflate", "gzip"})
_ONCE: Final = frozenset(name for profile in PROFILES.values() for name in profile.headers)


class BadRequest(Exception):  # noqa: N818 - it is what the peer sent, and not an error of ours
    """A request that is answered with `status` and nothing else; `why` is for the log and holds nothing of it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Head(NamedTuple):
    """The head of one request.

    `headers` are by lower-case name, repeated ones joined with a comma; a gateway profile's header that is there twice
    is left out, and so are the two that frame the body. `length` is the body's declared length in bytes, None where
    it comes in chunks. `keep` says whether the connection may carry another request. `expects` says that the peer
    waits for a 100 before it sends the body.
    """

    method: str
    target: str
    minor: int
    headers: dict[str, str]
    length: int | None
    keep: bool
    expects: bool


def head_end(data: bytearray, searched: int) -> int:
    """Where the head in `data` ends, or 0 while its end is not there; the first `searched` bytes hold none.

    Raises BadRequest for a head that cannot end well.
    """
    found = data.find(b"\r\n\r\n", max(0, searched - 3))
    if found >= 0 and found + 4 <= MAX_HEAD_BYTES:
        return found + 4
    if found < 0 and _BARE_LF.search(data, max(0, searched - 1)):
        raise BadRequest(400, "a line ends with LF alone")
    if len(data) > MAX_HEAD_BYTES:
        if data.find(b"\r\n", 2, MAX_LINE_BYTES + 4) < 0:
            raise BadRequest(414, "the request line is too long")
        raise BadRequest(431, "the head is too long")
    return 0


def read_head(data: bytes) -> Head:
    """Read the head of a request, its last empty line with it. Raises BadRequest."""
    if data.startswith(b"\r\n"):  # one empty line before the request line is allowed (RFC 9112 §2.2)
        data = data[2:]
    whole = _HEAD.fullmatch(data)
    if whole is None:
        raise _refusal(data)
    method, target, minor, fields = whole.groups()
    if whole.start(4) - 2 > MAX_LINE_BYTES:
        raise BadRequest(414, "the request line is too long")
    if target[0] != 0x2F:
        _check_target(method, target)
    headers, joined = _read_fields(fields)
    return _framed(method.decode("ascii"), target.decode("ascii"), int(minor), headers, joined)


def _refusal(data: bytes) -> BadRequest:
    """Why a head does not follow the grammar: the first fault from its beginning."""
    line, _, fields = data.partition(b"\r\n")
    if len(line) > MAX_LINE_BYTES and b"\n" not in line:
        return BadRequest(414, "the request line is too long")
    if not _LINE.fullmatch(line):
        return BadRequest(400, "the request line is none of HTTP/1")
    try:
        _read_fields(fields[:-2], checked=False)
    except BadRequest as refused:
        return refused
    return BadRequest(400, "the head is none of HTTP/1")


def _check_target(method: bytes, target: bytes) -> None:
    """Refuse a target that is not in one of the other forms (RFC 9112 §3.2)."""
    allowed = method == b"OPTIONS" if target == b"*" else method == b"CONNECT" or b"://" in target
    try:
        urlsplit(target.decode("ascii"))
    except ValueError:
        allowed = False
    if not allowed:
        raise BadRequest(400, "the target has none of the forms")


def _read_fields(fields: bytes, *, checked: bool = True) -> tuple[dict[str, str], set[str]]:
    """Read header lines, each with its line end. Returns the headers and the names that came more than once.

    `checked` says that all of them follow the grammar. Raises BadRequest.
    """
    headers: dict[str, str] = {}
    joined: set[str] = set()
    lines = fields.decode("latin-1").split("\r\n")
    lines.pop()
    for number, line in enumerate(lines):
        if number >= MAX_FIELDS:
            raise BadRequest(431, "there are too many header fields")
        if not checked and not _FIELD.fullmatch(line.encode("latin-1")):
            raise BadRequest(400, "a header is none")
        if len(line) + 2 > MAX_FIELD_BYTES:
            raise BadRequest(431, "a header field is too long")
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name == "expect" and value.lower() != "100-continue":
            raise BadRequest(417, "an expectation that is not known")
        if name in headers:
            if name in _SINGLE:
                raise BadRequest(400, "a header comes twice that may come once")
            joined.add(name)
            value = f"{headers[name]},{value}"
        headers[name] = value
    return headers, joined


def _framed(method: str, target: str, minor: int, headers: dict[str, str], joined: set[str]) -> Head:
    """Judge how long the body is (RFC 9112 §6.3) and whether the connection goes on. Raises BadRequest."""
    keep = method != "CONNECT"  # what follows a CONNECT is never another request
    length: int | None = 0
    declared, codings = headers.pop("content-length", None), headers.pop("transfer-encoding", None)
    if codings is not None:
        keep = _read_codings(codings) and keep
        if minor == 0 or declared is not None or "transfer-encoding" in joined:
            raise BadRequest(400, "the framing is ambiguous")
        length = None
    elif declared is not None:
        length = _read_length(declared)
    if "connection" in headers:
        options = {option.strip(" \t") for option in headers["connection"].lower().split(",")}
        keep = keep and "close" not in options and (minor > 0 or "keep-alive" in options)
    else:
        keep = keep and minor > 0
    if joined:
        for name in joined & _ONCE:
            # Joined with a comma the two could be one path: a gateway that adds its header to the end user's would
            # let the user write half of the path that is decided about (Istio CVE-2026-26308 and its like).
            del headers[name]
    return Head(method, target, minor, headers, length, keep, minor > 0 and "expect" in headers)


def _read_length(value: str) -> int:
    try:
        if value.isascii() and value.isdigit():
            return int(value)
    except ValueError:  # Python reads no number of thousands of digits
        pass
    raise BadRequest(400, "Content-Length is no number")


def _read_codings(value: str) -> bool:
    """Whether the connection may go on after a body in these codings; the last one is `chunked`. Raises BadRequest."""
    *before, last = [coding.strip(" \t").lower() for coding in value.split(",")]
    for coding in (*before, last):
        if coding != "chunked" and coding not in _CODINGS:
            raise BadRequest(501, "a transfer coding that is not known")
    if last != "chunked" or "chunked" in before:
        raise BadRequest(400, "the framing is ambiguous")
    return set(before) <= {"identity"}


class BadBody(Exception):  # noqa: N818 - it is what the peer sent, and not an error of ours
    """A body that cannot be read to its end; `fault` is "malformed" or "too_large", as on `Incoming`."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


class Chunks:
    """A body in chunks (RFC 9112 §7.1) that is read from a buffer while it fills; it begins at the buffer's start."""

    __slots__ = ("_at", "_count", "_parts", "_searched", "_size")

    def __init__(self) -> None:
        self._at = 0  # where the line of the next chunk begins
        self._parts: list[bytes] = []
        self._size = 0
        self._count = 0
        self._searched = 0  # how much of the trailers holds no end

    @property
    def body(self) -> bytes:
        """What the chunks hold."""
        return b"".join(self._parts)

    def end(self, data: bytearray) -> int:
        """Where the body ends in `data`, or 0 while its end is not there. Raises BadBody, and BadRequest."""
        while len(data) - self._at > 2:
            line_end = data.find(b"\r\n", self._at, self._at + _LONGEST_CHUNK_LINE)
            if line_end < 0:
                if len(data) - self._at >= _LONGEST_CHUNK_LINE or data.find(b"\n", self._at) >= 0:
                    raise BadBody("malformed")
                break
            found = _CHUNK.fullmatch(data, self._at, line_end)
            if found is None:
                raise BadBody("malformed")
            size = int(found[1], 16)
            if size == 0:
                return self._after_trailers(data, line_end)
            if not self._take(data, line_end + 2, size):
                break
        if len(data) > MAX_CHUNKED_BYTES:
            raise BadBody("malformed")
        return 0

    def _take(self, data: bytearray, begin: int, size: int) -> bool:
        """Take one chunk, if it is there."""
        if self._size + size > MAX_BODY_BYTES:
            raise BadBody("too_large")
        end = begin + size
        if len(data) < end + 2:
            return False
        if data[end : end + 2] != b"\r\n":
            raise BadBody("malformed")
        self._count += 1
        if self._count > MAX_CHUNKS:
            raise BadRequest(413, "a body in too many chunks")
        self._parts.append(bytes(data[begin:end]))
        self._size += size
        self._at = end + 2
        return True

    def _after_trailers(self, data: bytearray, line_end: int) -> int:
        """The end behind the trailers, which are checked and dropped."""
        begin = line_end + 2
        if data[begin : begin + 2] == b"\r\n":
            return begin + 2
        found = data.find(b"\r\n\r\n", max(begin, self._searched - 3))
        if found < 0:
            if len(data) > MAX_CHUNKED_BYTES or _BARE_LF.search(data, max(begin, self._searched - 1)):
                raise BadBody("malformed")
            self._searched = len(data)
            return 0
        try:
            trailers, _ = _read_fields(bytes(data[begin : found + 2]), checked=False)
        except BadRequest:
            raise BadBody("malformed") from None
        if not _NO_TRAILER.isdisjoint(trailers):
            raise BadBody("malformed")
        return found + 4
