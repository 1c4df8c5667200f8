"""A server that is asked what a token means: how it is asked, and what counts as an answer."""

import base64
import gzip
import json
import socket
import threading
import time

import pytest
from harness import Trap, free_port
from opaque import OUR_ID, OUR_SECRET

from sts.errors import SOURCE_UNREACHABLE
from sts.resilience.breaker import FAILURES
from sts.trust.introspection import MAX_ANSWER, UNAUTHORIZED, UNREACHABLE, Introspection, Server


@pytest.fixture
def told():
    return []


@pytest.fixture
def ask(clock, told):
    """Ask a server, as a client with this id and secret."""

    made = []

    def make(url, client_id=OUR_ID, secret=OUR_SECRET, ca=None):
        server = Server("legacy", url + "/introspect", client_id, secret, ca)
        made.append(Introspection(server, clock, max_waiters=4, notice=lambda *what: told.append(what)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_real_server_takes_the_question_and_our_credentials(ask, authorization_server):
    """IN-01: authlib reads the form and the Basic header, in a secret with every odd character."""
    token = authorization_server.token()
    answer = json.loads(ask(authorization_server.url).ask(token))
    assert (answer["active"], answer["sub"]) == (True, "batch")
    assert authorization_server.asked == [(token, "access_token")]


def test_both_halves_of_basic_are_form_encoded(ask, bent):
    """IN-01."""
    server = bent()
    ask(server.url, "a:b", "c d+e").ask("op_x")
    path, headers = server.heads[0]
    assert path == "/introspect"
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"a%3Ab:c%20d%2Be"
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert headers["Accept"] == "application/json"


def test_a_token_is_one_parameter_whatever_it_holds(ask, bent):
    server = bent()
    ask(server.url).ask("op_a+b/c~d==")
    assert server.asked == [{"token": "op_a+b/c~d==", "token_type_hint": "access_token"}]


def test_a_private_ca_is_checked(ask, bent, authority):
    mine, other = authority(), authority()
    server = bent()
    server.server.socket = mine.serving("127.0.0.1").wrap_socket(server.server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    assert ask(url, ca=mine.pem).ask("op_x") == b'{"active": false}'
    with pytest.raises(Exception, match="source_unreachable"):
        ask(url, ca=other.pem).ask("op_x")
    assert len(server.asked) == 1


def hang(handler):
    handler.owner.over.wait(20)


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.owner.over.wait(0.2):
        handler.wfile.write(b" ")


def cut_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"active": true, ')
    handler.close_connection = True


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.owner.over.is_set():
        handler.wfile.write(b'{"active": true' + b" " * 65536)


def nothing(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def says(body=b"", status=200, headers=()):
    return lambda handler: handler.reply(body, status, headers)


ACTIVE = b'{"active": true, "sub": "alice"}'
NO_ANSWER = {
    "server error": says({"active": False}, 500),
    "no service": says({"active": True}, 503),
    "too many requests": says(b"{}", 429),
    "a page": says(b"<html>log in</html>"),
    "nothing at all": says(),
    "no content": says(b"", 204),
    "an array": says(b"[true]"),
    "a text": says(b'"active"'),
    "compressed": says(gzip.compress(ACTIVE), 200, [("Content-Encoding", "gzip")]),
    "too large": says(b'{"active": true, "x": "' + b"x" * MAX_ANSWER + b'"}'),
    "half an answer": cut_off,
    "an answer without end": endless,
    "a closed connection": nothing,
    "no HTTP": lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"),
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_trouble_of_the_server_is_never_a_verdict(ask, bent, told, refused, name):
    """IN-03."""
    server = bent()
    server.answer = NO_ANSWER[name]
    asked = ask(server.url)
    with refused(SOURCE_UNREACHABLE) as caught:
        asked.ask("op_secret")
    assert "op_secret" not in str(caught.value.facts)
    assert asked.trouble == caught.value.facts["why"]
    assert told == [("legacy", UNREACHABLE, asked.trouble)]


@pytest.mark.parametrize("behave", [hang, drip])
def test_a_slow_server_costs_a_bounded_time(ask, bent, refused, behave):
    """IN-01."""
    server = bent()
    server.answer = behave
    began = time.monotonic()
    with refused(SOURCE_UNREACHABLE):
        ask(server.url).ask("op_x")
    assert time.monotonic() - began < 18


def test_a_server_that_is_not_there_is_unreachable(ask, refused):
    with refused(SOURCE_UNREACHABLE):
        ask(f"http://127.0.0.1:{free_port()}").ask("op_x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_where_a_server_redirects_to(ask, bent, refused, status):
    """IN-06."""
    trap, server = Trap(), bent()
    server.says(b"", status, [("Location", trap.url)])
    with refused(SOURCE_UNREACHABLE):
        ask(server.url).ask("op_x")
    assert trap.connections == 0
    trap.socket.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b""), (403, b"{}"), (400, {"error": "invalid_client"}), (400, {"error": "unauthorized_client"})],
)
def test_that_it_refuses_our_credentials_is_told_as_such(ask, bent, told, refused, status, body):
    """IN-03."""
    server = bent()
    server.says(body, status)
    asked = ask(server.url)
    with refused(SOURCE_UNREACHABLE):
        asked.ask("op_x")
    assert asked.trouble == f"it refuses our own credentials ({status})"
    assert [outcome for _, outcome, _ in told] == [UNAUTHORIZED]


def test_a_real_server_refuses_a_wrong_secret_so(ask, authorization_server, told, refused):
    """IN-03."""
    with refused(SOURCE_UNREACHABLE):
        ask(authorization_server.url, secret="wrong").ask(authorization_server.token())
    assert told == [("legacy", UNAUTHORIZED, "it refuses our own credentials (401)")]


@pytest.mark.parametrize(("status", "body"), [(400, b"{}"), (400, b"<html>"), (404, b"{}"), (413, b"{}"), (422, b"[]")])
def test_a_token_that_it_chokes_on_does_not_keep_the_others_from_it(ask, bent, told, refused, status, body):
    """IN-12."""
    server = bent()
    server.says(body, status)
    asked = ask(server.url)
    for _ in range(2 * FAILURES):
        with refused(SOURCE_UNREACHABLE):
            asked.ask("op_odd")
    assert told == [("legacy", UNREACHABLE, f"it answered {status}")] * (2 * FAILURES)
    server.says(ACTIVE)
    assert asked.ask("op_good") == ACTIVE


def test_after_some_failures_it_is_left_alone_and_tried_again_later(ask, bent, clock, refused):
    """IN-12. Lesson 3.7."""
    server = bent()
    server.says(b"", 500)
    asked = ask(server.url)
    for _ in range(FAILURES + 5):
        with refused(SOURCE_UNREACHABLE):
            asked.ask("op_x")
    assert len(server.asked) == FAILURES
    server.says(ACTIVE)
    with refused(SOURCE_UNREACHABLE):
        asked.ask("op_x")
    clock.now += 2
    assert asked.ask("op_x") == ACTIVE
    assert asked.trouble == ""


def test_a_connection_is_kept(ask, bent):
    server = bent()
    ports = set()
    server.answer = lambda handler: (ports.add(handler.client_address), handler.reply(ACTIVE))
    asked = ask(server.url)
    for _ in range(3):
        asked.ask("op_x")
    assert len(ports) == 1


def test_no_more_than_may_wait_are_under_way(ask, bent, refused):
    server = bent()
    entered = threading.Semaphore(0)
    server.answer = lambda handler: (entered.release(), server.over.wait(60), handler.reply(ACTIVE))
    asked = ask(server.url)
    threads = [
        threading.Thread(target=asked.ask, args=["op_x"]) for _ in range(3)
    ]  # one place of four is left to other callers
    for thread in threads:
        thread.start()
    assert all(entered.acquire(timeout=60) for _ in threads)
    with refused(SOURCE_UNREACHABLE) as caught:
        asked.ask("op_x")
    assert "too many" in caught.value.facts["why"]
    server.over.set()
    for thread in threads:
        thread.join()
