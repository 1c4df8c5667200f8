"""One connection of a peer: requests come in, answers go out, and no peer decides how long anything takes.

A connection waits for its peer (a handshake, a request, an answer that is not read, a close), is idle between two
requests, or is busy while its request is answered. Each wait has a deadline, which the worker looks at once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import ssl
from dataclasses import replace
from http import HTTPStatus
from typing import Final, Protocol

from sts.edge.form import MAX_BODY_BYTES, correlation_id
from sts.edge.tls import chain_of
from sts.model import Incoming, Peer, Reply, Steps
from sts.server.message import MAX_CHUNKED_BYTES, MAX_HEAD_BYTES, BadBody, BadRequest, Chunks, Head, head_end, read_head
from sts.telemetry import log

ARRIVAL_S: Final = 10.0
"""How long a request may take to arrive, and how long a new connection may say nothing."""
WRITE_S: Final = 5.0
"""How long a peer may leave an answer unread before it takes more of it."""
KEEPALIVE_S: Final = 75.0
"""How long a connection is kept between two requests: nginx keeps its own for 60 s, and must not meet a closed one."""
LINGER_S: Final = 2.0
"""How long a peer has to read a last answer to its end before the connection goes (RFC 9112 §9.6)."""
MAX_BEHIND_BYTES: Final = MAX_HEAD_BYTES + MAX_CHUNKED_BYTES
"""How much may pile up behind a request that is being answered; then the connection is read no further."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_NO_BODY: Final = frozenset({204, 304})
_BAD_IN_HEADER: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class Application(Protocol):
    """What answers requests."""

    def reads_body(self, method: str, target: str) -> bool:
        """Whether the answer hangs on the body."""

    def begin(self, incoming: Incoming) -> Steps[Reply]:
        """The steps to the answer. None of them raises."""


class Worker(Protocol):
    """The worker that holds the connections. A connection that waits or is idle stands in one of the two, oldest first.

    `date` is the time of answers as HTTP writes it, `stopping` says that no connection is to be kept.
    """

    application: Application
    waiting: dict[Connection, None]
    idle: dict[Connection, None]
    date: str
    stopping: bool

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def later(self, connection: Connection) -> None:
        """Let a connection go on with what it holds, after the others."""

    def finish(self, steps: Steps[Reply], connection: Connection) -> None:
        """Take the remaining steps in a thread, then tell the connection."""

    def refused(self, peer: Peer, why: str) -> None:
        """Tell of a request that is no HTTP."""

    def handshake_failed(self, peer: Peer, fault: OSError) -> None:
        """Tell of a handshake that failed."""

    def lost(self, connection: Connection) -> None:
        """Tell that a connection is gone."""


class Tls:
    """TLS between the bytes on the wire and those of a connection. Raises ssl.SSLError."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.shaken = False
        self.ended = False

    def shake_hands(self, data: bytes) -> tuple[bytes, ...]:
        """Go on with the handshake; the peer's certificates once it is over (`shaken`)."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return ()
        self.shaken = True
        return chain_of(self._object)

    def opened(self, data: bytes) -> bytes:
        """What the peer said; `ended` once it has said that no more will come."""
        self._incoming.write(data)
        said = []
        try:
            while part := self._object.read(65536):
                said.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(said)

    def sealed(self, data: bytes) -> bytes:
        """The bytes on the wire that say `data`, and whatever else TLS has to say."""
        if data:
            self._object.write(data)
        return self._outgoing.read()

    def closing(self) -> bytes:
        """The bytes on the wire that say that no more will come (RFC 8446 §6.1)."""
        with contextlib.suppress(ssl.SSLError):  # the peer has not said so yet
            self._object.unwrap()
        return self._outgoing.read()


class Connection(asyncio.Protocol):
    """A connection, what has arrived on it, and where its current request is."""

    __slots__ = (
        *("_chunks", "_data", "_drained", "_eof", "_head", "_keep", "_paused", "_scheduled", "_searched"),
        *("_tls", "_told", "_transport", "_unread", "_worker"),
        *("blocked", "busy", "closing", "deadline", "gone", "peer"),
    )

    def __init__(self, worker: Worker, peer: Peer, context: ssl.SSLContext | None) -> None:
        self._worker, self.peer = worker, peer
        self._tls = None if context is None else Tls(context)
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._searched = 0  # how much of the data holds no end of the head
        self._head: Head | None = None  # of the request whose body is awaited, or that is being answered
        self._chunks: Chunks | None = None
        self._keep = True  # whether what comes behind the current request can be read as another one
        self._told = False  # that it may send the body
        self._drained = 0
        self._unread = 0  # bytes of answers that the peer had not taken at the last look
        self._eof = self._paused = False
        self._scheduled = False  # whether the worker will call `go_on`
        self.busy = self.blocked = self.closing = self.gone = False
        self.deadline = 0.0
        self._wait(ARRIVAL_S)

    @property
    def silent(self) -> bool:
        """Whether the peer has not begun to say anything."""
        return not (self._data or self._head or self.blocked or self.closing)

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        if self.closing:  # another one needed the room meanwhile
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        if self.closing:
            self._drained += len(data)
            if self._drained > MAX_CHUNKED_BYTES:
                self.drop()
            return
        if self._tls is not None:
            data = self._through_tls(self._tls, data)
        if data:
            self._data += data
            if not self._scheduled:
                self.go_on()
            if len(self._data) > MAX_BEHIND_BYTES:
                self._pause()
        if self._tls is not None and self._tls.ended:
            self.eof_received()

    def eof_received(self) -> bool:
        """As asyncio says: what has arrived is still answered."""
        self._eof = True
        if self._transport is None:
            self.drop()
        elif self.closing:
            self._transport.close()  # once the peer has taken the rest of its answer
        elif self._tls is not None and not self._tls.shaken:
            self._through_tls(self._tls, b"")
        elif not (self.busy or self.blocked):
            self._schedule()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio says."""
        if self._tls is not None and not self._tls.shaken and not self.closing:
            self._worker.handshake_failed(self.peer, exc if isinstance(exc, OSError) else ConnectionResetError())
        self.closing = self.gone = True
        self._leave()
        self._data.clear()  # the queue of the threads may keep the connection for a while
        self._head = self._chunks = self._tls = None
        self._worker.lost(self)

    def pause_writing(self) -> None:
        """As asyncio says: the peer does not read its answers, so that it gets no more of them."""
        self.blocked = True
        self._pause()
        self._wait(WRITE_S)
        self._note_unread()

    def resume_writing(self) -> None:
        """As asyncio says."""
        self.blocked = False
        if self.busy:
            self._leave()
        elif not self.closing:
            self._rest()
            self._schedule()

    # What the worker tells.

    def go_on(self) -> None:
        """Answer one request, if it has arrived; one that came behind it is answered after other connections'."""
        self._scheduled = False
        if self.busy or self.blocked or self.closing:
            return
        try:
            incoming = self._arrived()
        except BadRequest as refused:
            self._worker.refused(self.peer, refused.why)
            self._refuse(refused.status)
            return
        if incoming is not None:
            self._answer(incoming)
        elif self._eof:
            self.close()
        elif (self._data or self._head is not None) and self in self._worker.idle:
            self._wait(ARRIVAL_S)
        if self._paused and not self.blocked and len(self._data) <= MAX_BEHIND_BYTES:
            self._resume()

    def answered(self, reply: Reply) -> None:
        """Send the answer to the current request, and make ready for the next."""
        head, self._head = self._head, None
        keep = self._keep and head is not None and head.keep and not self._worker.stopping
        self.busy, self._told, self._chunks = False, False, None
        if self.closing or head is None:  # the peer has gone, or broke TLS
            return
        try:
            written = _written(reply, head, self._worker.date, keep=keep)
        except ValueError as fault:  # a header would say more than one line
            log.error("fault", fault=type(fault).__name__, at=log.where(fault))
            self._refuse(500)
            return
        self._rest()
        self._send(written)
        if not keep:
            self.close()
        elif self._data or self._eof:
            self._schedule()

    def overdue(self, now: float) -> bool:
        """Whether its deadline is over. A peer that has taken more of its answers since the last look gets another."""
        if now < self.deadline:
            return False
        unread = self._unread
        if unread and self._note_unread() < unread:
            self.deadline = now + WRITE_S
            return False
        return True

    def close(self) -> None:
        """Say that no more will come, and let the peer read what has been said."""
        if self._transport is None:
            self.drop()
            return
        self.closing = True
        self._data.clear()
        self._wait(LINGER_S)
        self._note_unread()
        if self._tls is not None:
            self._transport.write(self._tls.closing())
        if self._eof:
            self._transport.close()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the peer has reset the connection, and the event loop has not reported that yet
            self.drop()
        else:
            self._resume()

    def drop(self) -> None:
        """Give the connection up."""
        self.closing = True
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    # Between the two.

    def _wait(self, seconds: float) -> None:
        self._worker.idle.pop(self, None)
        self._worker.waiting[self] = None
        self.deadline = self._worker.now() + seconds

    def _leave(self) -> None:
        self._worker.waiting.pop(self, None)
        self._worker.idle.pop(self, None)

    def _schedule(self) -> None:
        """Go on after other connections, once: a peer that sends in small pieces gets no more turns than others."""
        if not self._scheduled:
            self._scheduled = True
            self._worker.later(self)

    def _rest(self) -> None:
        self._leave()
        self._worker.idle[self] = None
        self.deadline = self._worker.now() + KEEPALIVE_S

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _note_unread(self) -> int:
        self._unread = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._unread

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data if self._tls is None else self._tls.sealed(data))

    def _refuse(self, status: int) -> None:
        """Answer with a status alone: an answer that repeats what it could not read says too much."""
        reason = HTTPStatus(status).phrase
        body = f"<html><head><title>{reason}</title></head><body><h1>{reason}</h1></body></html>\n"
        head = f"HTTP/1.1 {status} {reason}\r\nDate: {self._worker.date}\r\nConnection: close\r\n"
        self._send(f"{head}Content-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode("ascii"))
        self.close()

    def _through_tls(self, tls: Tls, data: bytes) -> bytes:
        """Go on with the handshake, or open what the peer sent; returns what it said."""
        said = b""
        try:
            if not tls.shaken:
                certificates = tls.shake_hands(data)
                data = b""
                if tls.shaken:
                    self.peer = replace(self.peer, certificates=certificates)
                    self._wait(ARRIVAL_S)
            if tls.shaken:
                said = tls.opened(data)
        except OSError as fault:
            if not tls.shaken:
                self._worker.handshake_failed(self.peer, fault)
            self._send(b"")  # its alert says more than a reset connection
            self.close()
            return b""
        self._send(b"")
        return said

    def _arrived(self) -> Incoming | None:
        """The request that has arrived, if it is there as far as its answer hangs on it. Raises BadRequest."""
        head = self._head
        if head is None:
            end = head_end(self._data, self._searched)
            if not end:
                self._searched = len(self._data)
                return None
            self._head = head = read_head(bytes(self._data[:end]))
            del self._data[:end]
            self._searched, self._keep = 0, True
        body, fault = b"", ""
        if head.length != 0:
            taken = self._take_body(head, wanted=self._worker.application.reads_body(head.method, head.target))
            if taken is None:
                return None
            body, fault = taken
        return Incoming(
            method=head.method,
            target=head.target,
            headers=head.headers,
            peer=self.peer,
            request_id=secrets.token_hex(16),
            body=body,
            fault=fault,
            correlation_id=correlation_id(head.headers),
        )

    def _take_body(self, head: Head, *, wanted: bool) -> tuple[bytes, str] | None:
        """Take the body, or what is wrong with it; None while a body that is wanted has not arrived.

        One that is not wanted is dropped where it is there. Where it is not, the connection ends with the answer: what
        still comes of it must never be read as a request, and must not be waited for either.
        """
        try:
            end = self._body_end(head)
        except (BadBody, BadRequest) as bad:
            if wanted and isinstance(bad, BadRequest):
                raise
            self._keep = False
            return b"", bad.fault if wanted and isinstance(bad, BadBody) else ""
        if not end and wanted:
            if head.expects and not self._told:
                self._told = True
                self._send(_CONTINUE)
            return None
        self._keep = bool(end)
        body = bytes(self._data[:end]) if self._chunks is None else self._chunks.body
        del self._data[:end]
        return (body, "") if wanted else (b"", "")

    def _body_end(self, head: Head) -> int:
        if head.length is None:
            self._chunks = self._chunks or Chunks()
            return self._chunks.end(self._data)
        if head.length > MAX_BODY_BYTES:
            raise BadBody("too_large")
        return head.length if len(self._data) >= head.length else 0

    def _answer(self, incoming: Incoming) -> None:
        """Go as far as nothing may wait; a thread takes the rest."""
        steps = self._worker.application.begin(incoming)
        try:
            next(steps)
        except StopIteration as done:
            self.answered(done.value)
            return
        self.busy = True
        self._leave()
        self._worker.finish(steps, self)


def _written(reply: Reply, head: Head, date: str, *, keep: bool) -> bytes:
    """An answer as it goes onto the wire. HEAD gets the headers alone (RFC 9110 §9.3.2). Raises ValueError."""
    lines = [
        f"HTTP/1.{'1' if head.minor else '0'} {_STATUS[reply.status]}",
        f"Date: {date}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    ]
    for name, value in reply.headers:
        if not value.isprintable() and _BAD_IN_HEADER.search(value):
            raise ValueError("a header holds a control character")
        lines.append(f"{name}: {value}")
    if reply.status in _NO_BODY:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    lines.append(f"Content-Length: {len(reply.body)}\r\n\r\n")
    written = "\r\n".join(lines).encode("latin-1")
    return written if head.method == "HEAD" else written + reply.body
