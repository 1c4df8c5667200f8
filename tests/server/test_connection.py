"""What comes out of a connection for what goes in, over real sockets."""

import json
import socket
from base64 import b64encode
from pathlib import Path

import pytest
from harness import CLIENT, SECRET

from scripts.fuzz.places import Loop, Wire
from sts.model import Peer, Reply
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
