"""What the tests of gateways share: an echo backend, stand-ins for the service, and a client that writes raw bytes.

The stand-in answers what a test tells it to, so that a gateway can be shown every answer that the real service must
never give; with the real service, test_nginx_service.py asks the questions that only it can answer.
"""

import contextlib
import json
import socket

import pytest
from web import Web

from scripts import servers
from scripts.nginx import Nginx

SECRET = "edge-gateway-secret-for-tests-only"


def echo(handler):
    """Report what arrived as JSON; a WebSocket upgrade is taken, and its bytes are sent back."""
    handler.owner.requests.append(handler.path)
    seen = {
        "method": handler.command,
        "target": handler.path,
        "headers": [[name.lower(), value] for name, value in handler.headers.items()],
        "body": handler.body.decode("latin-1"),
    }
    if handler.headers.get("Upgrade", "").lower() != "websocket":
        handler.reply(seen)
        return
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "upgrade")
    handler.send_header("X-Seen", json.dumps(seen))
    handler.end_headers()
    handler.wfile.flush()
    handler.close_connection = True
    while data := handler.connection.recv(4096):
        handler.connection.sendall(data)


def stand_in_answer(handler):
    """Answer what the test said, and remember what was asked."""
    handler.owner.asked.append((handler.command, handler.path, [(n.lower(), v) for n, v in handler.headers.items()]))
    status, headers = handler.owner.says
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    if status not in (204, 304):
        handler.send_header("Content-Length", "0")
    handler.end_headers()


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
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
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
    server = Web(echo)
    server.requests = []
    yield server
    server.close()


@pytest.fixture
def make_stand_in():
    """Make stand-ins for the service: `says` is what one answers, `asked` what it was asked."""
    made = []

    def make(answer=stand_in_answer):
        server = Web(answer)
        server.asked, server.says = [], (503, [])
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def stand_in(make_stand_in):
    return make_stand_in()


@pytest.fixture(scope="session")
def dead_port():
    """A port that refuses every connection: it is bound, and nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session")
def nginx_program():
    program = servers.find(servers.NGINX)
    if program is None:
        pytest.skip("no nginx is installed, and none could be")
    return program


@pytest.fixture
def start_nginx(nginx_program, dead_port, tmp_path_factory):
    """Start nginx with the shipped configuration in front of two replicas of the service; return its port.

    `service` is the port of one replica, or of several. Beside a single one the other replica is dead, and is asked
    first: every gateway test shows that a dead replica changes nothing.
    """
    with contextlib.ExitStack() as stack:

        def start(service, backend, secret=SECRET):
            directory = tmp_path_factory.mktemp("nginx")
            services = [dead_port, service] if isinstance(service, int) else service
            nginx = Nginx(nginx_program, directory, services=services, backend=backend, secret=secret)
            return stack.enter_context(nginx).port

        yield start
