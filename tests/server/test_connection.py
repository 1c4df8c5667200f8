"""What comes out of a connection for what goes in, over real sockets."""

import asyncio
import json
import socket
import ssl
import struct
from base64 import b64encode
from pathlib import Path

import pytest
from harness import CLIENT, SECRET

from scripts.fuzz.places import Loop, Wire
from sts.errors import Refusal
from sts.model import Peer, Reply
from sts.server import worker
from sts.server.connection import Connection

ROWS = [json.loads(line) for line in (Path(__file__).parent / "data" / "framing.jsonl").read_text().splitlines()]
BASIC = b64encode(f"{CLIENT}:{SECRET}".encode()).decode()


def statuses(port, data):
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while part := peer.recv(65536):
                received += part
        except ConnectionError:  # it was refused before all of it was sent
            pass
    found = [int(part[2:5]) for part in received.split(b"HTTP/1.")[1:]]
    return [status for status in found if status != 100]


def test_each_recorded_request_has_the_statuses_that_were_recorded(service):
    """`gunicorn` in a row is what gunicorn's parser answered, where that differs.

    It waited for bodies behind heads that it then refused, answered a body that nobody reads a second time, and read a
    repeated `Transfer-Encoding` as a list.
    """
    for row in ROWS:
        data = row["request"].replace("{secret}", SECRET).replace("{basic}", BASIC).encode("latin-1")
        assert statuses(service.port, data) == row["statuses"], row


class Says:
    """An application that gives one answer."""

    def __init__(self, reply):
        self.reply = reply

    def reads_body(self, *_):
        return False

    def begin(self, _):
        return self.reply
        yield


def written(reply, request=b"GET / HTTP/1.1\r\n\r\n"):
    _, data = Loop(Says(reply)).run(Peer("127.0.0.1"), request)
    return data


def test_an_answer_has_its_length_and_for_head_no_body():
    reply = Reply(403, (("A", "b"),), b"abc")
    assert written(reply).endswith(b"A: b\r\nContent-Length: 3\r\n\r\nabc")
    assert written(reply, b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"A: b\r\nContent-Length: 3\r\n\r\n")


@pytest.mark.parametrize("value", ["a\r\nX-User-Id: admin", "a\nb", "a\rb", "\0", "\x7f", "\u2028", "\u0130"])
def test_a_header_that_would_say_more_than_one_line_is_never_sent(value):
    data = written(Reply(200, (("A", value),)))
    assert data.startswith(b"HTTP/1.1 500 ")
    assert b"\nA:" not in data


def test_an_answer_that_nobody_can_hear_any_more_is_dropped():
    loop = Loop(Says(Reply(200, ())))
    connection, wire = Connection(loop, Peer("127.0.0.1"), None), Wire()
    connection.connection_made(wire)
    connection.connection_lost(None)
    connection.answered(Reply(200, ()))
    assert wire.written == b""
    assert not loop.waiting
    assert not loop.idle


class Recorded(Wire):
    """A wire that remembers what it was asked for, and may hold bytes that the peer has not read."""

    def __init__(self, unread=0):
        super().__init__()
        self.asked = []
        self.unread = unread

    def get_write_buffer_size(self):
        return self.unread

    def write_eof(self):
        self.asked.append("write_eof")

    def close(self):
        self.asked.append("close")

    def abort(self):
        self.asked.append("abort")


class Turns(Loop):
    """A loop that takes scheduled turns and remaining steps only when the test asks for them."""

    def __init__(self, application):
        super().__init__(application)
        self.turns, self.unfinished = [], []
        self.ended = asyncio.Event()

    def later(self, connection):
        self.turns.append(connection)

    def finish(self, _steps, connection):
        self.unfinished.append(connection)

    def lost(self, _connection):
        self.ended.set()


class Waits(Says):
    """An application that waits before it gives its answer."""

    def begin(self, _):
        yield
        return self.reply


def connected(loop, wire):
    connection = Connection(loop, Peer("127.0.0.1"), None)
    connection.connection_made(wire)
    return connection


def test_pipelined_requests_in_small_pieces_get_one_turn_of_the_event_loop_at_a_time():
    loop, wire = Turns(Says(Reply(200, ()))), Recorded()
    connection = connected(loop, wire)
    for _ in range(10):
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n" * 5)
        assert len(loop.turns) == 1
    while loop.turns:
        loop.turns.pop().go_on()
        assert len(loop.turns) <= 1
    assert wire.written.count(b"HTTP/1.1 200") == 50


def test_a_connection_that_the_peer_has_reset_is_closed_without_an_error():
    async def run():
        loop = Turns(Says(Reply(200, ())))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        accepted.setblocking(False)
        connection = Connection(loop, Peer("127.0.0.1"), None)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # sends RST
        connection.close()  # before the event loop looks at the socket again
        await loop.ended.wait()
        assert not loop.waiting

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_fault_in_the_look_at_deadlines_does_not_end_the_signs_of_life():
    class Broken:
        def overdue(self, _now):
            raise ValueError

    class Timer:
        calls = ()

        def call_later(self, *call):
            self.calls += (call,)

    made = object.__new__(worker.LoopWorker)
    made.loop, made.notify, made.now = Timer(), lambda: None, lambda: 0.0
    made.waiting, made.idle = {Broken(): None}, {}
    with pytest.raises(ValueError):  # noqa: PT011 - the fault has no message
        made._look()
    assert [call for _, call in made.loop.calls] == [made._look]


def test_the_answer_to_a_peer_that_broke_tls_meanwhile_is_dropped():
    class Broken:
        shaken, ended = True, False

        def opened(self, data):
            if data == b"broken":
                raise ssl.SSLError
            return data

        def sealed(self, data):
            return data

        def closing(self):
            return b""

    loop, wire = Turns(Waits(Reply(200, ()))), Recorded()
    connection = Connection(loop, Peer("127.0.0.1"), None)
    connection._tls = Broken()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert loop.unfinished == [connection]
    connection.data_received(b"broken")
    assert wire.asked == ["write_eof"]
    connection.answered(Reply(200, ()))
    assert wire.written == b""
    assert connection not in loop.idle


def test_the_end_of_a_peers_data_does_not_cut_off_an_answer_that_it_still_reads():
    loop, wire = Turns(Says(Reply(200, ()))), Recorded(unread=1)
    connection = connected(loop, wire)
    connection.data_received(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    connection.eof_received()
    assert wire.asked == ["write_eof", "close"]
    assert connection in loop.waiting  # and is dropped once its time is over


def test_a_connection_whose_request_is_being_answered_is_not_idle_once_its_peer_reads_again():
    loop, wire = Turns(Waits(Reply(200, ()))), Recorded()
    connection = connected(loop, wire)
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    connection.pause_writing()  # TLS writes by itself, for example an answer to a KeyUpdate
    assert connection in loop.waiting
    connection.resume_writing()
    assert not loop.waiting
    assert not loop.idle


def test_a_request_whose_peer_resets_the_connection_does_not_wait_for_a_thread():
    ended = []

    def steps():
        try:
            yield
        except Refusal as refusal:
            ended.append(refusal.reason.name)
        else:
            ended.append("taken")
        return Reply(200, ())

    class Busy:
        jobs = ()

        def run(self, job):
            self.jobs += (job,)
            return True

    made = object.__new__(worker.LoopWorker)
    made.threads, made._queued, made._open, made._stopping, made._listening = Busy(), {}, 1, False, True
    connection = connected(Turns(Says(Reply(200, ()))), Recorded())
    waiting = steps()
    next(waiting)
    made.finish(waiting, connection)
    made.lost(connection)
    assert ended == ["internal_error"]
    assert not made._queued
    (job,) = made.threads.jobs
    job()  # finds nothing to do
    assert ended == ["internal_error"]


def test_a_lost_connection_keeps_nothing_of_what_its_peer_sent():
    connection = connected(Turns(Waits(Reply(200, ()))), Recorded())
    connection.data_received(b"GET / HTTP/1.1\r\n\r\n" + b"G" * 1000)
    connection.connection_lost(None)
    assert not connection._data
    assert connection._head is None
