"""Real Redis and Valkey servers on loopback, and a proxy before them that stalls, drops and comes back as told."""

import contextlib
import select
import socket
import subprocess
import threading
import time

import pytest
import trustme
from harness import free_port, wait_for
from redis import Redis

from scripts import servers

KINDS = {"redis": servers.REDIS, "valkey": servers.VALKEY}
PASSWORD = "a-password-for-tests-only"


class RedisServer:
    """One server process; `stop` (as kill -9 would) and `start` keep its port, and nothing of what it held."""

    def __init__(self, kind, folder, *options, tls=None, password=PASSWORD):
        self.program = servers.find(KINDS[kind])
        self.kind, self.folder, self.options = kind, folder, [*options]
        self.password, self.tls = password, tls
        self.port = free_port()
        self.process = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self):
        ports = ["--port", str(self.port)]
        if self.tls:
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            ports += ["--tls-cert-file", self.tls[0], "--tls-key-file", self.tls[1], "--tls-ca-cert-file", self.tls[2]]
        secret = ["--requirepass", self.password, "--masterauth", self.password] if self.password else []
        command = [self.program, *ports, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *secret]
        command += ["--repl-diskless-sync-delay", "0"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        wait_for(self._up)
        return self

    def _up(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def settings(self):
        """The `redis` section that leads here."""
        scheme = "rediss" if self.tls else "redis"
        found = {"url": f"{scheme}://127.0.0.1:{self.port}/0"}
        return found | ({"password": self.password} if self.password else {})

    def client(self):
        """A client of the library as it comes, for a test to look at the server with."""
        return Redis(port=self.port, password=self.password, decode_responses=True)


class Proxy:
    """A TCP proxy; `mode` is what it does with what passes.

    pass: hands on both ways; stall: takes everything and hands on nothing; lose: hands on requests, and hangs up
    instead of handing on a reply, `left` times; refuse: takes no connection.
    """

    def __init__(self, port):
        self.target = port
        self.mode, self.left = "pass", 0
        self.taken = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.taken += 1
                if self.mode == "refuse":
                    client.close()
                    continue
                threading.Thread(target=self._talk, args=[client], daemon=True).start()

    def _talk(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            self.open += [client, server]
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    while self.mode == "stall":
                        time.sleep(0.02)
                    if not data or (source is server and self._lost()):
                        return
                    (server if source is client else client).sendall(data)

    def _lost(self):
        if self.mode != "lose" or self.left <= 0:
            return False
        self.left -= 1
        return True

    def lose(self, replies):
        self.mode, self.left = "lose", replies

    def cut(self):
        """Hang up on everybody."""
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def close(self):
        self.mode = "refuse"
        self.listener.close()
        self.cut()


@pytest.fixture(params=sorted(KINDS))
def redis_kind(request):
    """Each kind of server once."""
    if servers.find(KINDS[request.param]) is None:
        pytest.skip(f"there is no {request.param}-server on this machine")
    return request.param


@pytest.fixture
def run_redis(redis_kind, tmp_path):
    """Start a server of this kind with these options; the test's end stops them all."""
    running = []

    def start(*options, kind=redis_kind, **more):
        server = RedisServer(kind, tmp_path / f"redis{len(running)}", *options, **more)
        running.append(server)
        return server.start()

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def redis_server(run_redis):
    """A server with a password, and nothing in it."""
    return run_redis()


@pytest.fixture
def proxied(redis_server):
    """A proxy before the server, and the `redis` section that leads through it."""
    proxy = Proxy(redis_server.port)
    yield proxy, redis_server.settings | {"url": f"redis://127.0.0.1:{proxy.port}/0"}
    proxy.close()


@pytest.fixture(scope="session")
def redis_ca(tmp_path_factory):
    """A CA, and the certificate that it gave a server on 127.0.0.1: the paths of certificate, key and CA."""
    folder = tmp_path_factory.mktemp("redis-tls")
    ca = trustme.CA()
    cert = ca.issue_cert("127.0.0.1")
    paths = [str(folder / name) for name in ("cert.pem", "key.pem", "ca.pem")]
    cert.cert_chain_pems[0].write_to_path(paths[0])
    cert.private_key_pem.write_to_path(paths[1])
    ca.cert_pem.write_to_path(paths[2])
    return paths


@pytest.fixture
def tls_server(redis_ca, tmp_path):
    """A server that speaks TLS and nothing else; the Valkey that tests may have to install cannot."""
    if servers.find(servers.REDIS) is None:
        pytest.skip("there is no redis-server on this machine")
    server = RedisServer("redis", tmp_path / "tls", tls=redis_ca).start()
    yield server
    server.stop()


@pytest.fixture
def sentinel(redis_server, run_redis, tmp_path):
    """A Sentinel that watches a primary and its replica: (sentinel's port, primary, replica)."""
    replica = run_redis("--replicaof", f"127.0.0.1 {redis_server.port}")
    wait_for(lambda: replica.client().info("replication")["master_link_status"] == "up")
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {redis_server.port} 1\n"
        f"sentinel auth-pass main {PASSWORD}\nsentinel down-after-milliseconds main 3000\n"
        "sentinel failover-timeout main 6000\n"
    )
    program = servers.find(servers.REDIS if redis_server.kind == "redis" else servers.VALKEY)
    with (tmp_path / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([program, str(conf), "--sentinel"], stdout=log, stderr=log)
    yield port, redis_server, replica
    process.kill()
    process.wait()
