"""Peers that are slow on purpose must not keep others waiting: four threads here, ten times as many slow peers."""

import contextlib
import socket
import threading
import time

import pytest
from harness import Idp, Service, minimal

from sts.server.connection import ARRIVAL_S, WRITE_S

SLOW = 40
HEAD = b"POST /token HTTP/1.1\r\nHost: sts\r\nContent-Type: application/x-www-form-urlencoded\r\n"


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory):
    idp = Idp()
    running = Service(tmp_path_factory.mktemp("slow"), minimal(idp) + "\nthreads: 4\nworkers: 1\n")
    running.good = idp.token()
    assert running.exchange(running.good).status == 200
    yield running
    assert running.stop() == 0
    idp.close()


class Peers:
    """Slow peers, each of which sends what it is told, byte by byte, in one background thread."""

    def __init__(self, port, count, first=b"", drip=b""):
        self.sockets = []
        for _ in range(count):
            peer = socket.create_connection(("127.0.0.1", port), timeout=60)
            if first:
                peer.sendall(first)
            self.sockets.append(peer)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.drip, args=(drip,), daemon=True)
        self.thread.start()

    def drip(self, drip):
        for byte in drip:
            if self.over.wait(0.05):
                return
            for peer in self.sockets:
                with contextlib.suppress(OSError):
                    peer.sendall(bytes([byte]))

    def close(self):
        self.over.set()
        self.thread.join(60)
        for peer in self.sockets:
            peer.close()


@pytest.fixture
def peers(few_threads):
    made = []

    def make(count=SLOW, **how):
        made.append(Peers(few_threads.port, count, **how))
        return made[-1]

    yield make
    for one in made:
        one.close()


def answers_quickly(service, times=10, bound=WRITE_S - 1):
    """Good requests meanwhile. A peer that held a thread would hold it for five seconds (`WRITE_S`) or for ten."""
    slowest = 0.0
    for _ in range(times):
        began = time.monotonic()
        assert service.exchange(service.good).status == 200
        slowest = max(slowest, time.monotonic() - began)
    return slowest < bound


def whole_answer(peer):
    received = b""
    while not received.endswith(b"}"):
        part = peer.recv(4096)
        assert part, received
        received += part
    return received


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"first": b"P"},
        {"first": b"POST /token HTTP/1.1\r\n", "drip": b"X-A: " + b"a" * 400},
        {"first": HEAD + b"Content-Length: 5000\r\n\r\n", "drip": b"a" * 400},
        {"first": HEAD + b"Transfer-Encoding: chunked\r\n\r\n", "drip": b"1\r\na\r\n" * 80},
        {"first": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", "drip": b"a" * 400},
        {"first": HEAD + b"Content-Length: 99999999\r\n\r\n", "drip": b"a" * 400},
        {"first": HEAD + b"Content-Length: 5000\r\nExpect: 100-continue\r\n\r\n", "drip": b"a" * 400},
        {"first": b"GET /healthz HTTP/1.0\r\n\r\n"},
        {"first": b"GET /forward-auth/edge-gateway HTTP/1.1\r\nHost: sts\r\nContent-Length: 900\r\n\r\n"},
    ],
    ids=[
        "connect and say nothing",
        "one byte and no more",
        "a head byte by byte",
        "a body byte by byte",
        "small chunks byte by byte",
        "a large chunk byte by byte",
        "a body that is too large",
        "a body after 100 Continue",
        "an answer after which nobody hangs up",
        "a body that forward-auth never reads",
    ],
)
def test_slow_peers_do_not_keep_others_waiting(few_threads, peers, how):
    peers(**how)
    assert answers_quickly(few_threads)


def test_peers_that_never_read_do_not_keep_others_waiting(few_threads, peers):
    request = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: sts\r\n\r\n"
    made = peers(count=8)
    for peer in made.sockets:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.settimeout(0.2)
        with contextlib.suppress(TimeoutError, OSError):
            for _ in range(400):
                peer.sendall(request * 20)
    assert answers_quickly(few_threads)


def test_a_request_that_does_not_arrive_in_time_is_dropped(peers):
    made = peers(count=1, first=b"POST /token HTTP/1.1\r\n")
    peer = made.sockets[0]
    assert peer.recv(100) == b""


def test_more_connections_than_there_may_be_leave_room_for_new_ones(few_threads, peers):
    peers(count=1500)
    assert answers_quickly(few_threads, bound=ARRIVAL_S - 1)  # until then none of them would make room by itself


def test_an_idle_kept_alive_connection_costs_no_thread(few_threads, peers):
    request = b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n"
    made = peers(count=SLOW, first=request)
    for peer in made.sockets:
        assert b"200 OK" in whole_answer(peer)
    assert answers_quickly(few_threads)
    made.sockets[0].sendall(request)
    assert b"200 OK" in whole_answer(made.sockets[0])


def test_a_slow_but_honest_request_is_answered(peers):
    made = peers(count=1, drip=b"GET /healthz HTTP/1.1\r\nHost: sts\r\n\r\n")
    assert b"200 OK" in made.sockets[0].recv(4096)


def test_pipelined_requests_are_all_answered_in_order(few_threads):
    request = b"GET /%s HTTP/1.1\r\nHost: sts\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"
    received = few_threads.raw(request % b"healthz" + request % b"nothing" + request % b"healthz" + last)
    statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 200, 200]


def test_a_chunked_form_is_read(few_threads):
    body = b"grant_type=x"
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in body) + b"0\r\n\r\n"
    received = few_threads.raw(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
    assert received.startswith(b"HTTP/1.1 401"), received


def test_a_head_without_end_is_refused(few_threads):
    """EP-10."""
    received = few_threads.raw(b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000)
    assert received.startswith(b"HTTP/1.1 431")
