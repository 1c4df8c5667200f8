"""nginx with the shipped configuration in front of a backend that speaks h2c: no change of protocol but a WebSocket's.

After `101` a gateway hands on bytes and judges nothing: each further request in such a tunnel is the client's alone.
"""

import asyncio
import json
import re
import socket
import threading
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import hypercorn.asyncio
import hypercorn.config
import pytest
from harness import free_port, wait_for
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLIC = (200, [("Authorization", "-"), ("X-User-ID", "-"), ("X-Tenant-ID", "-"), ("X-Token-Expires-At", "-")])


async def application(scope, receive, send):
    """Report the request and its version of HTTP as JSON; send what a WebSocket says back."""
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    headers = [[name.decode().lower(), value.decode("latin-1")] for name, value in scope["headers"]]
    body = json.dumps({"version": scope["http_version"], "target": scope["path"], "headers": headers}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def h2c_port():
    """A real hypercorn, which takes HTTP/1.1, WebSocket and HTTP/2 without TLS on one port."""
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{free_port()}"]
    port = int(config.bind[0].rpartition(":")[2])
    loop, over = asyncio.new_event_loop(), asyncio.Event()
    serving = hypercorn.asyncio.serve(application, config, shutdown_trigger=over.wait)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()

    def listens():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens)
    yield port
    loop.call_soon_threadsafe(over.set)
    thread.join(60)
    loop.close()


@pytest.fixture
def port(start_nginx, stand_in, h2c_port):
    stand_in.says = PUBLIC
    return start_nginx(stand_in.port, h2c_port)


def upgrade_to_h2c(port):
    """Ask for HTTP/2 (RFC 7540 §3.2), then for another path in the tunnel; return the head, and what that path saw."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    settings = client.initiate_upgrade_connection().decode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            f"GET /health HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            f"Upgrade: h2c\r\nHTTP2-Settings: {settings}\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            return head.decode(), None
        forged = [(":method", "GET"), (":scheme", "http"), (":authority", "api.example.com"), (":path", "/admin")]
        client.send_headers(3, [*forged, ("x-user-id", "admin")], end_stream=True)
        connection.sendall(client.data_to_send())
        body = b""
        while True:
            for event in client.receive_data(rest):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == 3:
                    body += event.data
                if isinstance(event, h2.events.StreamEnded) and event.stream_id == 3:
                    return head.decode(), json.loads(body)
            rest = connection.recv(65536)


def test_the_backend_of_these_tests_does_open_a_tunnel_when_it_is_asked_directly(h2c_port):
    """Otherwise the tests below would prove nothing."""
    head, seen = upgrade_to_h2c(h2c_port)
    assert head.startswith("HTTP/1.1 101")
    assert (seen["version"], seen["target"], ["x-user-id", "admin"] in seen["headers"]) == ("2", "/admin", True)


def test_an_upgrade_to_h2c_on_a_public_route_opens_no_tunnel(port):
    head, in_the_tunnel = upgrade_to_h2c(port)
    assert head.startswith("HTTP/1.1 200")
    assert in_the_tunnel is None


UPGRADES = {
    **{value: f"Connection: Upgrade\r\nUpgrade: {value}\r\n" for value in ("h2c", "H2C", "h2", "TLS/1.0", "foo", "*")},
    **{value: f"Connection: Upgrade\r\nUpgrade: {value}\r\n" for value in ("websocket, h2c", "h2c, websocket")},
    **{
        value: f"Connection: Upgrade\r\nUpgrade: {value}\r\n"
        for value in ("h2c,websocket", "websocket/13", "xwebsocket")
    },
    "h2c without Connection": "Upgrade: h2c\r\n",
    "among others": "Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
    "two Connection lines": "Connection: HTTP2-Settings\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
    "h2c on a second line": "Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: h2c\r\n",
    "h2c on a first line": "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: foo\r\n",
    "settings alone": "Connection: HTTP2-Settings\r\n",
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES)
def test_no_upgrade_but_a_websockets_reaches_the_backend(port, lines, method):
    request = f"{method} /health HTTP/1.1\r\nHost: api.example.com\r\n{lines}HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as reader:
        client.sendall(f"{request}Content-Length: 0\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        status = int(head.split()[1])
        if status == 400:  # newer releases of nginx refuse a second line of these headers
            assert lines.count("Upgrade: ") > 1 or lines.count("Connection: ") > 1
            return
        assert status == 200
        seen = json.loads(reader.read(int(re.search(rb"(?i)content-length: (\d+)", head)[1])))
    assert seen["version"] == "1.1"
    assert not {"upgrade", "connection", "http2-settings"} & {name for name, _ in seen["headers"]}


@pytest.mark.parametrize("lines", ["Upgrade: websocket\r\nUpgrade: h2c\r\n", "Upgrade: h2c\r\nUpgrade: websocket\r\n"])
def test_a_websocket_beside_h2c_opens_no_tunnel_of_h2c(port, send, lines):
    request = f"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close, Upgrade\r\n{lines}"
    assert send(port, f"{request}HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode()).status != 101


@pytest.mark.parametrize(
    "first",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com\r\n\r\n"],
)
def test_a_client_that_speaks_http2_or_connect_at_once_opens_no_tunnel(port, send, stand_in, first):
    assert send(port, first).status in {400, 405}
    assert stand_in.asked == []


def test_a_websocket_still_goes_through(port):
    connection = WSConnection(ConnectionType.CLIENT)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(connection.send(Request(host="api.example.com", target="/stream")))
        events = []
        while not any(isinstance(event, TextMessage) for event in events):
            connection.receive_data(client.recv(65536))
            new = list(connection.events())
            events += new
            if any(isinstance(event, AcceptConnection) for event in new):
                client.sendall(connection.send(TextMessage("ping")))
    assert events[-1].data == "ping"


def test_no_configuration_or_page_hands_on_the_upgrade_that_a_client_wrote():
    """`$http_upgrade` may be read by a map that lets one value through, and by nothing else."""
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(p for p in (ROOT / "deploy").rglob("*") if p.is_file()),
    ]
    found = {
        str(page): re.findall(r"(?i).*\$http_upgrade.*|.*\bupgrade_configs?\b.*", page.read_text()) for page in pages
    }
    assert {line.strip() for lines in found.values() for line in lines} == {"map $http_upgrade $backend_upgrade {"}
