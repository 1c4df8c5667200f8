"""What has arrived of a request, and whether it is all of it.

How long a request is decides here only when it is handed on; gunicorn's parser reads the same bytes anew, judges them,
and gets no more. So a wrong answer costs an answer, never safety. Each byte is looked at a bounded number of times:
this runs in the worker's only poller, and a peer decides how its bytes come.
"""

from __future__ import annotations

import re
from typing import Final

from sts.edge.form import MAX_BODY_BYTES

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_CHUNKED_BYTES: Final = 2 * MAX_BODY_BYTES
MAX_CHUNKS: Final = 2048
"""Chunks of one body: each costs the poller a few microseconds, however little it holds."""

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-f]{1,16})[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_LONGEST_CHUNK_LINE: Final = 1024
_MANY_DIGITS: Final = 18


class Arrival:
    """The bytes of one request, from its first to its last.

    `too_long` says that its head is longer than any may be; `oversize` that its body is,
    or that it is not `wanted` and has not arrived, so that it is not waited for;
    `shredded` that its body comes in more chunks than anybody needs, and is not waited for;
    `asks_to_continue` that the peer waits for a 100 before it sends the body.
    """

    __slots__ = (
        *("asks_to_continue", "chunk", "chunks", "data", "decoded", "ends", "head", "oversize", "searched", "shredded"),
        *("too_long", "wanted"),
    )

    def __init__(self) -> None:
        self.data = bytearray()
        self.too_long = False
        self.oversize = False
        self.wanted = True
        self.shredded = False
        self.asks_to_continue = False
        self.searched = 0  # so far there is no end of the head
        self.head = 0  # where the head ends, once it is there
        self.ends = 0  # where the request ends, if its head says so; -1 with chunks
        self.chunk = 0  # where the chunk begins that has not arrived whole
        self.decoded = 0  # how many bytes the chunks before it hold
        self.chunks = 0  # how many those are

    def whole(self) -> bool:
        """Whether the request is there, as far as can be seen, or need not be waited for."""
        if not self.head and not self._head_is_there():
            return False
        there = self.oversize or (len(self.data) >= self.ends if self.ends >= 0 else self._last_chunk_is_there())
        if not there and not self.wanted:
            self.oversize = there = True
        return there

    def _head_is_there(self) -> bool:
        end = _END_OF_HEAD.search(self.data, self.searched)
        if end is None:
            self.searched = max(0, len(self.data) - 3)
            self.too_long = len(self.data) > MAX_HEAD_BYTES
            return False
        self.head = self.ends = self.chunk = end.end()
        self._read(bytes(self.data[: self.head]))
        return True

    def _read(self, head: bytes) -> None:
        """Read what the head says of the length, once."""
        method, _, target = head.partition(b" ")
        self.wanted = method == b"POST" and not target.startswith(b"/forward-auth")
        chunked, lengths = False, []
        for line in head.split(b"\n"):
            name, _, value = line.partition(b":")
            value = value.strip(b" \t\r").lower()
            match name.lower():
                case b"transfer-encoding":
                    chunked = value.endswith(b"chunked")
                case b"content-length":
                    lengths.append(value)
                case b"expect":
                    self.asks_to_continue = value == b"100-continue"
        if chunked + len(lengths) > 1:
            return  # refused, whatever follows (RFC 9112 §6.3)
        if chunked:
            self.ends = -1
        elif lengths and lengths[0].isdigit():
            digits = lengths[0].lstrip(b"0")[:_MANY_DIGITS]
            self.ends = self.head + int(digits or b"0")
            self.oversize = self.ends - self.head > MAX_BODY_BYTES

    def _last_chunk_is_there(self) -> bool:
        """Walk the chunks (RFC 9112 §7.1) from where the walk stopped. What is no chunk is handed on to be refused."""
        data = self.data
        while self.decoded <= MAX_BODY_BYTES and len(data) - self.head <= MAX_CHUNKED_BYTES:
            line_end = data.find(b"\r\n", self.chunk, self.chunk + _LONGEST_CHUNK_LINE)
            if line_end < 0:
                return len(data) - self.chunk >= _LONGEST_CHUNK_LINE
            found = _CHUNK_SIZE.fullmatch(data, self.chunk, line_end)
            if found is None:
                return True
            size, begin = int(found[1], 16), line_end + 2
            if size == 0:
                return data.find(b"\r\n\r\n", line_end) >= 0
            if begin + size + 2 > len(data):
                if self.decoded + min(size, len(data) - begin) <= MAX_BODY_BYTES:
                    return False
                break
            self.decoded += size
            self.chunk = begin + size + 2
            self.chunks += 1
            if self.chunks > MAX_CHUNKS:
                self.shredded = True
                return False
        self.oversize = True
        return True
