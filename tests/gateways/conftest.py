"""What the tests of gateways share: an echo backend, a stand-in for the service, and a client that writes raw bytes.

The stand-in answers what a test tells it to, so that a gateway can be shown every answer that the real service must
never give; with the real service, test_nginx_service.py asks the questions that only it can answer.
"""

import contextlib
import http.server
import json
import socket
import threading

import pytest

from scripts import servers
from scripts.nginx import Nginx

SECRET = "edge-gateway-secret-for-tests-only"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A gateway hangs up when it likes."""


@contextlib.contextmanager
def serving(handler):
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Echo(http.server.BaseHTTPRequestHandler):
    """Report what arrived as JSON; a WebSocket upgrade is taken, and its bytes are sent back."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(self.path)
        seen = {
            "method": self.command,
            "target": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode("latin-1"),
        }
        if self.headers.get("Upgrade", "").lower() == "websocket":
            return self.echo_bytes(seen)
        text = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        return None

    def echo_bytes(self, seen):
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "upgrade")
        self.send_header("X-Seen", json.dumps(seen))
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        while data := self.connection.recv(4096):
            self.connection.sendall(data)

    def log_message(self, *_):
        """Quiet."""


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answer what the test said, and remember what was asked."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def answer(self):
        self.server.asked.append((self.command, self.path, [(n.lower(), v) for n, v in self.headers.items()]))
        status, headers = self.server.says
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Quiet."""


class Answer:
    """One HTTP answer as it stood on the wire: status, headers (lower-case names, in order), body."""

    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]

    def header(self, name):
        values = [value for this, value in self.headers if this == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def seen(self):
        """What the backend saw: its headers by name, each of which must be there once at most."""
        seen = json.loads(self.body)
        names = [name for name, _ in seen["headers"]]
        assert len(names) == len(set(names)), names
        return seen | {"headers": dict(seen["headers"])}


@pytest.fixture
def send():
    """Send raw bytes to a port, over TLS with a context and a server's name, and read the answer to its end."""

    def send(port, data, tls=None):
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            if tls is not None:
                connection = stack.enter_context(tls[0].wrap_socket(connection, server_hostname=tls[1]))
            connection.sendall(data)
            raw = b""
            while chunk := connection.recv(65536):
                raw += chunk
        return Answer(raw)

    return send


@pytest.fixture
def backend():
    with serving(Echo) as server:
        server.requests = []
        yield server


@pytest.fixture
def stand_in():
    """The stand-in for the service: `says` is its answer, `asked` what it was asked."""
    with serving(StandIn) as server:
        server.asked = []
        server.says = (503, [])
        yield server


@pytest.fixture(scope="session")
def nginx_program():
    program = servers.find(servers.NGINX)
    if program is None:
        pytest.skip("no nginx is installed, and none could be")
    return program


@pytest.fixture
def start_nginx(nginx_program, tmp_path_factory):
    """Start nginx with the shipped configuration in front of a service and a backend; return its port."""
    with contextlib.ExitStack() as stack:

        def start(service, backend, secret=SECRET):
            directory = tmp_path_factory.mktemp("nginx")
            nginx = Nginx(nginx_program, directory, service=service, backend=backend, secret=secret)
            return stack.enter_context(nginx).port

        yield start
