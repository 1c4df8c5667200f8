"""The dispatch in front of Flask, on a real worker and on raw bytes."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sts.server.dispatch import door_of

ROOT = Path(__file__).resolve().parent.parent

# A service whose exchange answers with what it was handed, so that a test sees what a door would see.
SERVICE = textwrap.dedent(
    """
    import json
    import sys
    from types import SimpleNamespace
    from flask import Blueprint
    from gunicorn.app.base import BaseApplication
    from sts.edge.discovery import site
    from sts.model import Reply
    from sts.server.dispatch import Application
    from sts.server.process import SharedFlag

    def steps(door, incoming):
        yield
        document = {
            "door": door, "method": incoming.method, "target": incoming.target, "headers": dict(incoming.headers),
            "address": incoming.peer.address, "unix": incoming.peer.unix, "request_id": incoming.request_id,
            "body": incoming.body.decode("latin-1"), "fault": incoming.fault,
        }
        return Reply(200, (("Content-Type", "application/json"),), json.dumps(document).encode())

    revision = SimpleNamespace(
        exchange=SimpleNamespace(steps=steps), token_door="token", forward_auth_door="forward_auth"
    )
    pages = Blueprint("pages", __name__)
    pages.get("/healthz")(lambda: "flask")

    class Server(BaseApplication):
        stopping = SharedFlag()

        def load_config(self):
            self.cfg.set("bind", sys.argv[1:])
            self.cfg.set("threads", 4)
            self.cfg.set("worker_class", "sts.server.worker.LoopWorker")
            self.cfg.set("control_socket_disable", True)
            self.cfg.set("loglevel", "critical")

        def load(self):
            return Application(SimpleNamespace(current=revision, flask=site(pages)))

    Server().run()
    """
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server: its TCP address and its Unix socket."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "service.py").write_text(SERVICE, encoding="utf-8")
    path = folder / "sts.sock"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        for listener in (tcp, unix):
            listener.listen(64)
        command = [sys.executable, "service.py", f"fd://{tcp.fileno()}", f"fd://{unix.fileno()}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, cwd=folder, pass_fds=(tcp.fileno(), unix.fileno()), env=environment, stdin=subprocess.DEVNULL
        )
        try:
            yield tcp.getsockname(), str(path)
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def send(server):
    """Send raw bytes, read to the end of the connection; returns status, headers in lower case, body."""

    def exchange(raw, *, over="tcp", bound=None, half_close=False):
        family, address = (socket.AF_INET, server[0]) if over == "tcp" else (socket.AF_UNIX, server[1])
        with socket.socket(family) as connection:
            connection.settimeout(60)
            if bound is not None:
                connection.bind(bound)
            connection.connect(address)
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split(" ")[1]), headers, body

    return exchange


def http(method, target, *headers, body=b""):
    lines = [f"{method} {target} HTTP/1.1", "Host: sts.example.internal", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body, *headers, target="/token"):
    return http("POST", target, f"Content-Length: {len(body)}", *headers, body=body)


def seen(answer):
    status, _, body = answer
    assert status == 200
    return json.loads(body)


# Where a request goes.


@pytest.mark.parametrize(
    ("target", "door"),
    [
        ("/token", "token"),
        ("/token?x=/forward-auth/a", "token"),
        ("http://sts.example.internal/token", "token"),
        ("HTTP://a:1/token?x", "token"),
        ("/forward-auth/edge", "forward_auth"),
        ("/forward-auth/edge/a/../b//c", "forward_auth"),
        ("/forward-auth/edge?x", "forward_auth"),
        ("/forward-auth/", "forward_auth"),
        ("/forward-auth", "forward_auth"),
        ("http://sts.example.internal/forward-auth/edge", "forward_auth"),
        ("/token/", None),
        ("/tokens", None),
        ("//token", None),
        ("/%74oken", None),
        ("/./token", None),
        ("/x/../token", None),
        ("/token;x", None),
        ("/Token", None),
        ("/token%3Fx", None),
        ("/forward-authx/edge", None),
        ("//forward-auth/edge", None),
        ("/forward%2Dauth/edge", None),
        ("/forward-auth%2Fedge", None),
        ("/x/forward-auth/edge", None),
        ("http://a?/token", None),
        ("http://a/x/token", None),
        ("sts.example.internal:443", None),
        ("*", None),
        ("", None),
    ],
)
def test_a_door_is_known_by_the_raw_target_alone(target, door):
    assert door_of(target) == door


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("target", ["/token", "/forward-auth/edge-gateway/x"])
def test_every_method_reaches_the_door(send, method, target):
    """FA-02."""
    answer = send(http(method, target))
    if method == "HEAD":
        assert answer[0] == 200
        assert answer[2] == b""
        assert int(answer[1]["content-length"]) > 0
    else:
        assert seen(answer)["method"] == method


@pytest.mark.parametrize(
    "target",
    ["/forward-auth/e//x", "/forward-auth/e/%2e%2e/%00?a=%2F", "/forward-auth/e/../../token", "/forward-auth/e/;x"],
)
def test_the_target_reaches_the_door_undecoded_and_without_a_redirect(send, target):
    found = seen(send(http("GET", target)))
    assert (found["door"], found["target"]) == ("forward_auth", target)


def test_a_target_in_absolute_form_reaches_the_door_as_it_stands_to_be_refused_there(send):
    found = seen(send(http("GET", "http://sts.example.internal/forward-auth/edge-gateway")))
    assert (found["door"], found["target"]) == ("forward_auth", "http://sts.example.internal/forward-auth/edge-gateway")


@pytest.mark.parametrize(
    "target",
    ["/%74oken", "//token", "/token/", "/./token", "//forward-auth/e", "/forward%2Dauth/e", "/forward-auth%2Fe"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_spelling_of_a_door_is_no_page_at_all(send, method, target):
    status, headers, _ = send(http(method, target))
    assert status == 404
    assert headers["content-type"] == "application/problem+json"


def test_everything_else_is_flasks_which_redirects_nothing(send):
    assert send(http("GET", "/healthz"))[2] == b"flask"
    for target in ("/healthz/", "/x//healthz", "/./healthz"):
        assert send(http("GET", target))[0] == 404


# What a door is handed.


def test_headers_have_lower_case_names_and_doubled_ones_are_joined(send):
    found = seen(
        send(http("GET", "/forward-auth/e", "X-Original-Uri: /a", "AUTHORIZATION: Bearer a", "Authorization: Bearer b"))
    )
    assert found["headers"]["x-original-uri"] == "/a"
    assert found["headers"]["authorization"] == "Bearer a,Bearer b"


def test_every_request_has_its_own_id_of_128_bits(send):
    one, other = (seen(send(http("GET", "/token", "X-Request-ID: mine")))["request_id"] for _ in range(2))
    assert one != other
    assert len(bytes.fromhex(one)) == len(bytes.fromhex(other)) == 16


def test_the_peer_is_the_sockets_whatever_headers_say(send):
    """FA-09."""
    found = seen(send(http("GET", "/token", "X-Forwarded-For: 192.0.2.7", "Forwarded: for=192.0.2.7")))
    assert (found["address"], found["unix"]) == ("127.0.0.1", False)


def test_our_unix_socket_is_known_even_if_its_peer_has_a_name_like_an_address(send, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bound in (None, "10.0.0.1"):
        found = seen(send(http("GET", "/token"), over="unix", bound=bound))
        assert (found["address"], found["unix"]) == ("", True)


# The body.


def test_a_form_arrives_with_its_type(send):
    found = seen(send(post(b"a=b", "Content-Type: application/x-www-form-urlencoded")))
    assert (found["body"], found["fault"]) == ("a=b", "")
    assert found["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_a_chunked_form_arrives_whole(send):
    raw = http("POST", "/token", "Transfer-Encoding: chunked", body=b"2\r\na=\r\n1\r\nb\r\n0\r\n\r\n")
    assert seen(send(raw))["body"] == "a=b"


def test_as_much_as_allowed_is_read_and_not_one_byte_more(send):
    """EP-10."""
    most = 64 * 1024
    assert len(seen(send(post(b"x" * most)))["body"]) == most
    found = seen(send(post(b"x" * (most + 1))))
    assert (found["body"], found["fault"]) == ("", "too_large")


def test_too_large_a_body_is_answered_before_it_is_sent(send):
    """EP-10."""
    found = seen(send(http("POST", "/token", "Content-Length: 1000000000"), half_close=True))
    assert (found["body"], found["fault"]) == ("", "too_large")


def test_a_chunked_body_is_bounded_too(send):
    """EP-10."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    raw = http("POST", "/token", "Transfer-Encoding: chunked", body=chunk + b"1\r\nx\r\n0\r\n\r\n")
    assert seen(send(raw))["fault"] == "too_large"


def test_a_body_that_is_none_is_said_to_be_malformed(send):
    raw = http("POST", "/token", "Transfer-Encoding: chunked", body=b"zz\r\na=b\r\n0\r\n\r\n")
    assert seen(send(raw, half_close=True))["fault"] == "malformed"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_forward_auth_never_reads_a_body(send, method):
    """FA-02."""
    raw = http(method, "/forward-auth/e", "Content-Length: 3", body=b"a=b")
    found = seen(send(raw))
    assert (found["body"], found["fault"]) == ("", "")


# The answers that are not ours: docs/errors.md lists them.


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (http("GET", "/forward-auth/e", "X_Original_Uri: /b"), 400),
        (http("GET", "/forward-auth/e", "X-Original_Uri: /b"), 400),
        (http("GET", "/forward-auth/e", "Host: other"), 400),
        (post(b"a=b", "Content-Type: a/b", "Content-Type: c/d"), 400),
        (post(b"a=b", "Transfer-Encoding: chunked"), 400),
        (b"GET /token\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (http("GET", "/caf\xe9"), 400),
        (http("GET", "/" + "x" * 4100), 414),
        (http("POST", "/token", "Expect: magic"), 417),
        (http("GET", "/token", "X: " + "x" * 8200), 431),
        (http("GET", "/token", *[f"X-{number}: x" for number in range(101)]), 431),
        (http("POST", "/token", "Transfer-Encoding: br, chunked"), 501),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else value[:30].decode("latin-1"),
)
def test_what_is_no_http_never_reaches_a_door(send, raw, status):
    assert send(raw)[0] == status
