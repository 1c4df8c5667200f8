"""Two replicas of the service behind the shipped nginx, and trouble at one: never open, never refused.

A request is decided by the replica that can decide it. Where none can, it is refused with 503.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import threading

import pytest
from gateways import stand_in_answer
from harness import minimal, wait_for

ALLOW = (200, [("Authorization", "Bearer a.b.c"), ("X-User-ID", "alice"), ("X-Tenant-ID", "-")])
PUBLIC = (200, [("Authorization", "-"), ("X-User-ID", "-"), ("X-Tenant-ID", "-"), ("X-Token-Expires-At", "-")])
RAW = b"%b /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"


def hangs_up(handler):
    handler.close_connection = True


def cuts_kept_connections(handler):
    """Answer the first request of a connection; close it without a word when the second is there."""
    handler.served = getattr(handler, "served", 0) + 1
    if handler.served > 1:
        handler.owner.cut += 1
        handler.close_connection = True
    else:
        stand_in_answer(handler)


def sends_a_broken_head(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nAuthorization: Bearer a.b.c\r\nX-User-ID: ad\0min\r\n\r\n")
    handler.close_connection = True


def stops_within_its_head(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nAuthorization: Bearer a.b.c\r\nX-User-ID: admin\r\n")
    handler.close_connection = True


TROUBLES = {
    **{str(trouble): trouble for trouble in ("dead", 500, 502, 503, 504)},
    **{trouble.__name__: trouble for trouble in (hangs_up, sends_a_broken_head, stops_within_its_head)},
}


@pytest.fixture(params=TROUBLES.values(), ids=TROUBLES)
def troubled(request, make_stand_in, dead_port):
    """The port of a replica that decides nothing, each time in another way."""
    if request.param == "dead":
        return dead_port
    if callable(request.param):
        return make_stand_in(request.param).port
    replica = make_stand_in()
    replica.says = (request.param, [("X-Auth-Reason", "no_key")])
    return replica.port


def asked(send, port, times=6):
    """The statuses of requests with a body, half of them of a method that nginx itself does not repeat."""
    return [send(port, RAW % method).status for method in itertools.islice(itertools.cycle([b"GET", b"POST"]), times)]


def test_trouble_at_one_replica_refuses_nothing_that_the_other_allows(start_nginx, stand_in, backend, send, troubled):
    for replicas in ([troubled, stand_in.port], [stand_in.port, troubled]):
        port = start_nginx(replicas, backend.port)
        for stand_in.says in (ALLOW, PUBLIC):
            assert asked(send, port) == [200] * 6
    assert len(backend.requests) == 24


DENIALS = [
    ((401, [("WWW-Authenticate", "Bearer")]), 401),
    ((403, [("X-Auth-Reason", "no_route")]), 403),
    ((200, [("X-User-ID", "admin")]), 502),
    ((204, ALLOW[1]), 502),
    ((206, ALLOW[1]), 502),
    ((302, [("Location", "/"), *ALLOW[1]]), 503),
    ((503, [("X-Auth-Reason", "source_unreachable"), *ALLOW[1]]), 503),
    ((200, [("Authorization", "200 -")]), 502),
    ((204, [("Authorization", ", 200 -")]), 502),
]


def test_trouble_at_one_replica_opens_nothing_that_the_other_does_not_allow(
    start_nginx, stand_in, backend, send, troubled
):
    """FA-01: the list of statuses that nginx then has is never taken for a 200."""
    port = start_nginx([troubled, stand_in.port], backend.port)
    for stand_in.says, status in DENIALS:
        assert asked(send, port) == [status] * 6
    assert backend.requests == []


def test_a_stranger_on_the_port_of_a_replica_opens_nothing(start_nginx, make_stand_in, stand_in, backend, send):
    """nginx takes what does not begin as HTTP/1.1 for an answer of HTTP/0.9: status 200, and no header."""
    stranger = make_stand_in(lambda handler: handler.wfile.write(b"+OK ready\r\n"))
    stand_in.says = (204, ALLOW[1])
    assert set(asked(send, start_nginx([stranger.port, stand_in.port], backend.port))) <= {502, 503}
    assert backend.requests == []


def test_trouble_at_both_replicas_is_503_and_may_be_tried_again(start_nginx, stand_in, backend, send, troubled):
    stand_in.says = (503, [("X-Auth-Reason", "no_key")])
    answer = send(start_nginx([stand_in.port, troubled], backend.port), RAW % b"GET")
    assert (answer.status, answer.header("retry-after"), backend.requests) == (503, "5", [])


def test_a_replica_that_hangs_is_given_up_for_the_other(start_nginx, stand_in, backend, send):
    """The kernel takes the connection, as it does for a process that was stopped: 10 s later nginx asks the other."""
    stand_in.says = ALLOW
    with socket.create_server(("127.0.0.1", 0)) as hung:
        assert send(start_nginx([hung.getsockname()[1], stand_in.port], backend.port), RAW % b"GET").status == 200


def test_a_failure_takes_no_replica_out(start_nginx, make_stand_in, backend, send):
    """Replicas that restart in turn: after a failure of each nginx would have none left for 10 s (`max_fails`)."""
    replicas = [make_stand_in(), make_stand_in()]
    port = start_nginx([replica.port for replica in replicas], backend.port)
    for turn in range(6):
        replicas[turn % 2].says, replicas[1 - turn % 2].says = ALLOW, (503, [])
        assert asked(send, port, times=4) == [200] * 4
    for replica in replicas:  # a source that is down: a stranger's token brings this about
        replica.says = (503, [("X-Auth-Reason", "source_unreachable")])
    assert asked(send, port) == [503] * 6
    for replica in replicas:
        replica.says = ALLOW
    assert asked(send, port) == [200] * 6


@pytest.mark.parametrize("other", ["the same", "one that answers"])
def test_a_kept_connection_that_is_cut_refuses_nothing(start_nginx, make_stand_in, backend, send, other):
    replica = make_stand_in(cuts_kept_connections)
    replicas = [replica]
    if other != "the same":
        replicas.append(make_stand_in())
    for one in replicas:
        one.says, one.cut = ALLOW, 0
    port = start_nginx([one.port for one in replicas], backend.port)
    statuses = set()
    while replica.cut < 3:
        statuses |= set(asked(send, port))
    assert statuses == {200}


@pytest.fixture
def start(make_service, idp, tmp_path):
    """Start a service that shares keys and state with the others of the test, as containers over one volume do."""
    return lambda **arguments: make_service(f"{minimal(idp)}\nworkers: 1\nvar: {tmp_path / 'var'}\n", **arguments)


@pytest.fixture
def replicas(start):
    return [start(), start()]


class Load(contextlib.AbstractContextManager):
    """Requests through the gateway by four users at once; `statuses` counts what they got."""

    def __init__(self, send, port, idp):
        self.statuses, self.over, self.lock = {}, threading.Event(), threading.Lock()
        raw = f"GET /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {idp.token()}"
        self.ask_once = lambda: send(port, f"{raw}\r\nConnection: close\r\n\r\n".encode()).status
        self.users = [threading.Thread(target=self.ask) for _ in range(4)]

    def ask(self):
        while not self.over.is_set():
            status = self.ask_once()
            with self.lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def more(self, count):
        """Wait until `count` further requests have got an answer."""
        wanted = sum(self.statuses.values()) + count
        wait_for(lambda: sum(self.statuses.values()) >= wanted)

    def __enter__(self):
        for user in self.users:
            user.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for user in self.users:
            user.join()


def test_replicas_that_restart_in_turn_under_load_refuse_nothing(start_nginx, replicas, start, backend, send, idp):
    port = start_nginx([replica.port for replica in replicas], backend.port)
    with Load(send, port, idp) as load:
        for replica in replicas:
            load.more(50)
            assert replica.stop() == 0, replica.log()
            load.more(50)
            start(port=replica.port)
        load.more(50)
    assert set(load.statuses) == {200}
    assert len(backend.requests) == sum(load.statuses.values())


def test_a_replica_that_is_killed_under_load_refuses_nothing(start_nginx, replicas, backend, send, idp):
    port = start_nginx([replica.port for replica in replicas], backend.port)
    with Load(send, port, idp) as load:
        load.more(50)
        workers = replicas[0].workers()
        for pid in (replicas[0].process.pid, *workers):  # the master first: it would start others
            os.kill(pid, signal.SIGKILL)
        load.more(200)
        assert set(load.statuses) == {200}
        replicas[1].stop()
        wait_for(lambda: 503 in load.statuses)
    assert set(load.statuses) == {200, 503}


def test_the_audit_names_the_replicas_decision_once(start_nginx, replicas, dead_port, backend, send, idp):
    """A replica that was asked in vain is no decision: one event for each request."""
    port = start_nginx([dead_port, *(replica.port for replica in replicas)], backend.port)
    raw = f"GET /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nAuthorization: Bearer {idp.token()}"
    for _ in range(6):
        assert json.loads(send(port, f"{raw}\r\n\r\n".encode()).body)["method"] == "GET"
    wait_for(lambda: sum(len(replica.events()) for replica in replicas) == 6)
