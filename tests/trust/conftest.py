import contextlib
import json
import socket
import ssl
import threading
import time

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class Peer:
    """A real server on loopback whose behaviour is a function of the open socket; it counts who called."""

    def __init__(self, tls=None):
        self.requests, self.bodies = [], []
        self.behave = lambda _: None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def silent(self):
        """Within it the server answers no question: what a caller gets meanwhile does not depend on who is faster."""
        self.may_answer.clear()
        yield
        self.may_answer.set()

    def _serve(self):
        with contextlib.suppress(OSError):  # shutdown wakes it
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=[connection], daemon=True).start()

    def _talk(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(60)
            if self._tls is None:
                self._answer(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as speaking:
                    self._answer(speaking)

    def _answer(self, connection):
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:  # else closing would reset the connection before the answer is read
            body += connection.recv(65536) or bytes(length)
        assert self.may_answer.wait(60)
        self.bodies.append(body)
        self.requests.append(head.decode() + "\r\n\r\n")
        self.behave(connection)

    def answers(self, body=b"", status=200, **headers):
        """Answer every request so; JSON where `body` is not bytes."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = {"Content-Length": len(body), "Content-Type": "application/json"}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        answer = "\r\n".join(lines).encode() + body
        self.behave = lambda connection: connection.sendall(answer)

    def paths(self):
        return [request.split()[1] for request in self.requests]

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def peers():
    """Makes real servers, with TLS where a context is given."""
    made = []

    def make(tls=None):
        made.append(Peer(tls))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def peer(peers):
    return peers()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A private CA: its PEM file and server contexts for a host name."""

    class Authority:
        def __init__(self):
            self.ca = trustme.CA()
            self.file = tmp_path_factory.mktemp("ca") / "ca.pem"
            self.ca.cert_pem.write_to_path(self.file)
            self.pem = self.file.read_text()

        def serving(self, *names):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.ca.issue_cert(*names).configure_cert(context)
            return context

    return Authority


@pytest.fixture(scope="session")
def jwks_of():
    """A JWK set with a fresh P-256 key for each kid; "" for a key without one."""

    def write(*kids, **members):
        keys = []
        for kid in kids:
            jwk = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
            jwk.pop("key_ops", None)
            keys.append({**jwk, **({"kid": kid} if kid else {}), **members})
        return {"keys": keys}

    return write


@pytest.fixture
def clock():
    """A clock that stands until it is told to go."""

    class Clock:
        now = 1_000_000.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture(scope="session")
def until():
    """Wait for something that another thread does."""

    def wait(happens, seconds=60):
        end = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.002)

    return wait
