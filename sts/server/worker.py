"""gunicorn's threaded worker, but a thread is spent only on a request that has arrived whole.

gunicorn's own hands a connection to a thread with its first byte, and that thread waits for the rest as long as the
peer likes: as many slow peers as there are threads stop the service. Here the worker's one poller gathers what peers
send, however slowly, TLS handshakes among it, and a thread gets a request when head and body are there; no thread ever
reads from a peer. What has not arrived by a deadline is dropped. Nothing is judged on the way: how long a request is
decides when it is handed on, what it says is gunicorn's parser's to read.
"""

from __future__ import annotations

import contextlib
import errno
import select
import selectors
import socket
import ssl
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from gunicorn.workers import gthread

from sts.edge.tls import TlsSocket
from sts.server.request_buffer import MAX_CHUNKED_BYTES, Arrival
from sts.telemetry import log, metrics

MAX_BEHIND_BYTES: Final = 512 * 1024
"""How much may pile up of a peer that does not read its answers."""
ARRIVAL_S: Final = 10.0
"""How long a request may take to arrive, and how long a new connection may say nothing."""
WRITE_S: Final = 5
"""How long one write of an answer may wait for the peer to read."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODY_TOO_LARGE: Final = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
_NO_THREAD: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
)
_LOOK_EVERY_S: Final = 1.0
_PAUSE_S: Final = 0.5
_ROOM: Final = 16  # connections that are closed where no more can be accepted
_LINGER_S: Final = 2.0
_TIMEVAL: Final = struct.Struct("ll")


class Connection(gthread.TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, and what has arrived on it of the next request."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - as gunicorn calls it
        super().__init__(*arguments)
        self.arrival = Arrival()
        self.deadline = 0.0
        self.unread_body = False
        self.told_to_continue = False
        self.secure = not isinstance(self.sock, TlsSocket)  # or once its handshake is over
        self.lingers = False
        self.drained = 0
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(WRITE_S, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(WRITE_S, 0))

    def take(self) -> bytes:
        """Take the request that has arrived, and begin with the next."""
        arrived, self.unread_body = bytes(self.arrival.data), self.arrival.oversize
        self.arrival, self.told_to_continue, self.deadline = Arrival(), False, 0.0
        return arrived

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


class Threads(ThreadPoolExecutor):
    """The threads that answer requests. As long as there is one, a request waits for it where no more can be started.

    Raises RuntimeError for a request where there is none.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """One poller that gathers requests, and threads that answer them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as gunicorn calls it
        super().__init__(*arguments, **options)
        self.gathering: dict[Connection, None] = {}  # the longest waiting first
        self.lingering: dict[Connection, None] = {}
        self.looked_at = self.accept_from = 0.0

    def get_thread_pool(self) -> Threads:
        """Make the threads that answer requests."""
        return Threads(self.cfg.threads)

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's signature
        """Accept connections or not; gunicorn asks again in each round, so a pause ends by itself."""
        super().set_accept_enabled(enabled and time.monotonic() >= self.accept_from)

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; where there are too many, the one that has kept us waiting longest makes room."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as fault:
            if fault.errno == errno.EINVAL:  # the master has closed the listener, and stops
                self.alive = False
                return
            # no file or no memory is to be had: the next attempt would fail as well
            self._pause(fault)
            return
        try:
            client = self._secured(client)
            connection = Connection(self.cfg, client, address, listener.getsockname())
        except OSError:  # it has gone already
            client.close()
            return
        self.nr_conns += 1
        if self.nr_conns + len(self.lingering) >= self.worker_connections - self.cfg.threads:
            self._make_room()
        self._gather(connection)

    def enqueue_req(self, conn: Connection) -> None:
        """Give a request to a thread; where there is none and none can be started, answer so."""
        try:
            super().enqueue_req(conn)
        except RuntimeError:
            log.warning("no thread can be started")
            _send(conn, _NO_THREAD)
            self._end(conn)

    def _pause(self, fault: OSError) -> None:
        """Accept nothing for a moment, and close what has waited longest, so that there are files again."""
        metrics.accept_failed()
        log.warning("cannot accept", why=fault.strerror)
        self.accept_from = time.monotonic() + _PAUSE_S
        self.set_accept_enabled(False)
        for _ in range(_ROOM):
            self._make_room()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle what the poller reports, except of connections that were closed to make room in the same round."""
        for key, _ in self.poller.select(timeout):
            if self.poller.get_map().get(key.fd) is key:
                key.data(key.fileobj)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """A kept-alive connection speaks again."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        conn.deadline = time.monotonic() + ARRIVAL_S
        if not self._receive(conn, client):
            self._gather(conn)

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        """A request is answered. What came behind it on the connection is gathered like any other."""
        behind = conn.parser.unreader.take_buffered() if conn.parser is not None else b""
        super().finish_request(conn, fs)
        if conn.lingers:
            self._linger(conn)
        elif behind and conn in self.keepalived_conns:  # now it waits among the kept-alive ones
            self.poller.unregister(conn.sock)
            self.keepalived_conns.remove(conn)
            conn.arrival.data += behind
            conn.deadline = time.monotonic() + ARRIVAL_S
            if not self._hand_on(conn):
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
            if conn.deadline <= now or (not self.alive and not conn.arrival.data):
                self._drop(conn)
            elif conn.arrival.data:  # the peer may read its answers again
                self._hand_on(conn)
        for conn in [conn for conn in self.lingering if conn.deadline <= now]:
            self._part(conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's signature
        """Whether the connection goes on; not behind a body that did not arrive, or that is malformed."""
        try:
            return not conn.unread_body and bool(super()._keepalive_after(conn, keepalive))
        except Exception:  # noqa: BLE001 - gunicorn would send a second answer, for a body that was not read
            return False

    def handle_request(self, req: Any, conn: Connection) -> Any:  # noqa: ANN401 - gunicorn has no types
        """Answer; the answer says that the connection ends where the body will not be read."""
        if conn.unread_body:
            req.force_close()
        return super().handle_request(req, conn)

    def _secured(self, client: socket.socket) -> socket.socket:
        """The same connection with TLS before it, where there is TLS; its handshake has not begun."""
        context: ssl.SSLContext | None = self.app.context
        if context is None:
            return client
        client.setblocking(False)  # noqa: FBT003 - Python's own
        return context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)

    def _gather(self, conn: Connection) -> None:
        """Wait in the poller for more of a request."""
        conn.deadline = conn.deadline or time.monotonic() + ARRIVAL_S
        conn.sock.setblocking(False)  # noqa: FBT003 - Python's own
        self.gathering[conn] = None
        go_on = self._receive if conn.secure else self._shake_hands
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(go_on, conn))

    def _shake_hands(self, conn: Connection, client: TlsSocket) -> None:
        """Go on with a handshake; once it is over the connection says its request like any other."""
        try:
            wanted = client.shake_hands()
        except OSError as fault:
            self._end(conn)  # its alert says more than a reset connection
            self._tell(conn, fault)
            return
        conn.secure = wanted is None
        if conn.secure:
            conn.deadline = time.monotonic() + ARRIVAL_S
        go_on = self._receive if conn.secure else self._shake_hands
        self.poller.modify(client, wanted or selectors.EVENT_READ, partial(go_on, conn))

    def _tell(self, conn: Connection, fault: OSError) -> None:
        """Count a handshake that failed, and say why."""
        metrics.handshake_failed()
        why = getattr(fault, "verify_message", None) or getattr(fault, "reason", None) or type(fault).__name__
        log.warning("handshake failed", peer=str(conn.client[0]) if conn.client else "", why=why)

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
        conn.arrival.data += data
        return self._hand_on(conn)

    def _hand_on(self, conn: Connection) -> bool:
        """Give a request that is there to a thread; returns whether the connection was handed on or dropped."""
        if not conn.arrival.whole():
            return self._not_yet(conn)
        if not _writable(conn.sock):
            if len(conn.arrival.data) <= MAX_BEHIND_BYTES:
                return False
            self._drop(conn)  # it goes on asking and does not read its answers
            return True
        self._forget(conn)
        conn.hold(conn.take())
        self.enqueue_req(conn)
        return True

    def _not_yet(self, conn: Connection) -> bool:
        """Go on gathering, unless what comes is more than any may be; returns whether the connection is given up."""
        if conn.arrival.too_long or conn.arrival.shredded:
            _send(conn, _HEAD_TOO_LARGE if conn.arrival.too_long else _BODY_TOO_LARGE)
            self._end(conn)
            return True
        if conn.arrival.asks_to_continue and not conn.told_to_continue:
            conn.told_to_continue = True
            _send(conn, _CONTINUE)
        return False

    def _end(self, conn: Connection) -> None:
        """Give up a connection that is being gathered, once the peer has read why."""
        self._forget(conn)
        self.nr_conns -= 1
        conn.close(graceful=True)
        self._linger(conn)

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
        if self.lingering:  # its answer is written already
            self._part(next(iter(self.lingering)))
        elif self.gathering:
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


def _nothing_more(_size_hint: int | None = None) -> bytes:
    return b""


def _send(conn: Connection, data: bytes) -> None:
    with contextlib.suppress(OSError):
        conn.sock.send(data)  # what the poller holds never blocks


def _writable(sock: socket.socket) -> bool:
    """Whether the peer reads its answers: one that does not gets no thread."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))
