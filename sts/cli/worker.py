"""gunicorn's threaded worker, but a thread is spent only on a request that has arrived whole.

gunicorn's own hands a connection to a thread with its first byte, and that thread waits for the rest as long as the
peer likes: as many slow peers as there are threads stop the service. Here the worker's one poller gathers what peers
send, however slowly, and a thread gets a request when head and body are there; no thread ever reads from a peer. What
has not arrived by a deadline is dropped. Nothing is judged on the way: how long a request is decides when it is handed
on, what it says is gunicorn's parser's to read.
"""

from __future__ import annotations

import contextlib
import re
import select
import selectors
import socket
import struct
import time
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from gunicorn.workers import gthread

from sts.edge.form import MAX_BODY_BYTES
from sts.waiting import WouldWait, without_waiting

ARRIVAL_S: Final = 10.0
"""How long a request may take to arrive, and how long a new connection may say nothing."""
WRITE_S: Final = 5
"""How long one write of an answer may wait for the peer to read."""
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_CHUNKED_BYTES: Final = 2 * MAX_BODY_BYTES

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*0*([0-9]*)[ \t]*\r?\n", re.IGNORECASE)
_MANY_DIGITS: Final = 18
_CHUNKED: Final = re.compile(rb"\ntransfer-encoding:[^\n]*chunked[ \t]*\r?\n", re.IGNORECASE)
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-f]{1,16})[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_DOOR: Final = re.compile(rb"POST /token[ ?]|[A-Z]+ /forward-auth/")
_EXPECT: Final = re.compile(rb"\nexpect:[ \t]*100-continue", re.IGNORECASE)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
_LONGEST_CHUNK_LINE: Final = 1024
_LOOK_EVERY_S: Final = 1.0
_LINGER_S: Final = 2.0
_TIMEVAL: Final = struct.Struct("ll")


class Connection(gthread.TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, and what has arrived on it of the next request."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - as gunicorn calls it
        super().__init__(*arguments)
        self.arrived = bytearray()
        self.deadline = 0.0
        self.oversize = False
        self.lingers = False
        self.drained = 0
        self.begin()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(WRITE_S, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(WRITE_S, 0))

    def begin(self) -> None:
        """Begin with the next request; nothing of it has been looked at."""
        self.told_to_continue = False
        self.searched = 0  # so far there is no end of the head
        self.chunk = 0  # where the chunk begins that has not arrived whole
        self.decoded = 0  # how many bytes the chunks before it hold

    def hold(self, arrived: bytes) -> None:
        """Give the parser what has arrived, and nothing more: no thread waits for this peer."""
        self.init()
        self.parser.unreader.unread(arrived)
        self.parser.unreader.chunk = _nothing_more

    def close(self, graceful: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Close; gracefully means that the worker lingers first: gunicorn would stop its poller for up to 2 s."""
        if graceful:
            self.lingers = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        else:
            super().close()


class _Answered:
    """The outcome of a request that no thread has answered, in the shape of a thread's."""

    __slots__ = ("_goes_on",)

    def __init__(self, goes_on: object) -> None:
        self._goes_on = goes_on

    def cancelled(self) -> bool:
        return False

    def result(self) -> object:
        return self._goes_on


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One poller that gathers requests, and threads that answer them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as gunicorn calls it
        super().__init__(*arguments, **options)
        self.gathering: dict[Connection, None] = {}  # the longest waiting first
        self.lingering: dict[Connection, None] = {}
        self.looked_at = 0.0

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; where there are too many, the one that has kept us waiting longest makes room."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        connection = Connection(self.cfg, client, address, listener.getsockname())
        if self.nr_conns >= self.worker_connections - self.cfg.threads:
            self._make_room()
        self._gather(connection)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """A kept-alive connection speaks again."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        conn.deadline = time.monotonic() + ARRIVAL_S
        if not self._receive(conn, client):
            self._gather(conn)

    def finish_request(self, conn: Connection, fs: Future[Any] | _Answered) -> None:
        """A request is answered. What came behind it on the connection is gathered like any other."""
        behind = conn.parser.unreader.take_buffered() if conn.parser is not None else b""
        super().finish_request(conn, fs)
        if conn.lingers:
            self._linger(conn)
        elif behind and conn in self.keepalived_conns:  # now it waits among the kept-alive ones
            self.poller.unregister(conn.sock)
            self.keepalived_conns.remove(conn)
            conn.arrived += behind
            conn.deadline = time.monotonic() + ARRIVAL_S
            if not self._hand_on(conn, here=False):
                self._gather(conn)

    def handle_error(self, req: object, client: socket.socket, addr: object, exc: Exception) -> None:
        """Answer with gunicorn's status and no word of the request: it would repeat what it could not read."""
        silent = type(type(exc).__name__, (type(exc),), {"__init__": lambda _: None, "__str__": lambda _: ""})
        super().handle_error(req, client, addr, silent())

    def murder_pending(self) -> None:
        """Drop what did not arrive in time, and on the way out what has not begun to arrive."""
        now = time.monotonic()
        if now - self.looked_at < _LOOK_EVERY_S:
            return
        self.looked_at = now
        for conn in list(self.gathering):
            if conn.deadline <= now or (not self.alive and not conn.arrived):
                self._drop(conn)
            elif conn.arrived:  # the peer may read its answers again
                self._hand_on(conn)
        for conn in [conn for conn in self.lingering if conn.deadline <= now]:
            self._part(conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's signature
        """Whether the connection goes on; a body that nobody will read is not waited for."""
        return not conn.oversize and bool(super()._keepalive_after(conn, keepalive))

    def _gather(self, conn: Connection) -> None:
        """Wait in the poller for more of a request."""
        conn.deadline = conn.deadline or time.monotonic() + ARRIVAL_S
        conn.sock.setblocking(False)  # noqa: FBT003 - Python's own
        self.gathering[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, conn))

    def _receive(self, conn: Connection, client: socket.socket) -> bool:
        """Take what is there; returns whether the connection was handed on or dropped."""
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return True
        conn.arrived += data
        return self._hand_on(conn)

    def _hand_on(self, conn: Connection, *, here: bool = True) -> bool:
        """Have a request that is there answered, by a thread where it may wait; a part of one goes on being gathered.

        Returns whether the connection was handed on or dropped. Without `here` it is always a thread.
        """
        whole = _whole(conn)
        if whole is None:
            _send(conn, _HEAD_TOO_LARGE)
            self._forget(conn)
            self.nr_conns -= 1
            conn.close(graceful=True)
            self._linger(conn)
            return True
        if not whole or not _writable(conn.sock):
            return False
        self._forget(conn)
        arrived = bytes(conn.arrived)
        conn.deadline = 0.0
        conn.begin()
        conn.arrived.clear()
        conn.hold(arrived)
        if not (here and _DOOR.match(arrived) and self._answer(conn, arrived)):
            self.enqueue_req(conn)
        return True

    def _answer(self, conn: Connection, arrived: bytes) -> bool:
        """Answer here, in the poller, unless that would mean to wait; then everything is as before."""
        try:
            with without_waiting():
                goes_on = self.handle(conn)
        except WouldWait:
            conn.initialized, conn.parser = False, None
            conn.hold(arrived)
            return False
        self.finish_request(conn, _Answered(goes_on))
        return True

    def _linger(self, conn: Connection) -> None:
        """Let the peer read the answer to its end before the connection goes (RFC 9112 §9.6)."""
        conn.deadline = time.monotonic() + _LINGER_S
        conn.sock.setblocking(False)  # noqa: FBT003 - Python's own
        self.lingering[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))

    def _drain(self, conn: Connection, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.drained += len(data)
        if not data or conn.drained > MAX_CHUNKED_BYTES:
            self._part(conn)

    def _part(self, conn: Connection) -> None:
        del self.lingering[conn]
        self.poller.unregister(conn.sock)
        conn.close()

    def _make_room(self) -> None:
        if self.gathering:
            self._drop(next(iter(self.gathering)))
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)

    def _forget(self, conn: Connection) -> None:
        if conn in self.gathering:
            del self.gathering[conn]
            self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self._forget(conn)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()


def _whole(conn: Connection) -> bool | None:
    """Whether the request has arrived, as far as its length can be seen; None if its head is longer than any may be.

    A wrong answer costs an answer, never safety: the parser reads the same bytes anew, judges them, and gets no more.
    """
    data = conn.arrived
    end = _END_OF_HEAD.search(data, conn.searched)
    if end is None:
        conn.searched = max(0, len(data) - 3)
        return None if len(data) > MAX_HEAD_BYTES else False
    head = bytes(data[: end.end()])
    chunked, length = _CHUNKED.search(head), _LENGTH.search(head)
    if chunked and length:  # refused, whatever follows (RFC 9112 §6.3)
        return True
    if chunked:
        conn.chunk = conn.chunk or end.end()
        arrived = _last_chunk_is_there(conn, end.end())
    else:
        wanted = int(length[1][:_MANY_DIGITS] or b"0") if length else 0
        conn.oversize = wanted > MAX_BODY_BYTES  # it is refused unread
        arrived = conn.oversize or len(data) >= end.end() + wanted
    if not arrived and not conn.told_to_continue and _EXPECT.search(head):
        conn.told_to_continue = True
        _send(conn, _CONTINUE)
    return arrived


def _last_chunk_is_there(conn: Connection, body: int) -> bool:
    """Walk the chunks (RFC 9112 §7.1) from where the walk stopped. What is no chunk is handed on to be refused."""
    data = conn.arrived
    while conn.decoded <= MAX_BODY_BYTES and len(data) - body <= MAX_CHUNKED_BYTES:
        line_end = data.find(b"\r\n", conn.chunk)
        if line_end < 0:
            return len(data) - conn.chunk > _LONGEST_CHUNK_LINE
        found = _CHUNK_SIZE.fullmatch(data, conn.chunk, line_end)
        if found is None:
            return True
        size, begin = int(found[1], 16), line_end + 2
        if size == 0:
            return data.find(b"\r\n\r\n", line_end) >= 0
        if begin + size + 2 > len(data):
            if conn.decoded + min(size, len(data) - begin) <= MAX_BODY_BYTES:
                return False
            break
        conn.decoded += size
        conn.chunk = begin + size + 2
    conn.oversize = True
    return True


def _nothing_more(_size_hint: int | None = None) -> bytes:
    return b""


def _send(conn: Connection, data: bytes) -> None:
    with contextlib.suppress(OSError):
        conn.sock.send(data, socket.MSG_DONTWAIT)


def _writable(sock: socket.socket) -> bool:
    """Whether the peer reads its answers: one that does not gets no thread."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))
