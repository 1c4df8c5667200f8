"""The stores of the key ring, each real and in a place of its own; Redis and Valkey behind a proxy that may fail."""

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_servers import KINDS, PASSWORD, Proxy, RedisServer

from keys.rollback_guard import Witness
from keys.seal import Sealer
from keys.store_file import FileStore
from keys.store_redis import RedisStore, over
from scripts import servers

SEAL = bytes(range(32))

# What a process of its own needs to open the same store; `store()` opens it.
PREAMBLE = """
import contextlib, json, os, signal, sys, time
from pathlib import Path
from keys import rotation
from keys.transitions import Wanted
from keys.errors import GuardRefused, KeysError, RingMissing
from keys.lifecycle import Schedule
from keys.seal import Sealer
schedule = Schedule(
    rotate_every=100.0, jwks_max_age=1.0, verifier_refresh=1.0, clock_skew=1.0, poll=1.0, store_grace=10.0
)
def wanted(ttl=300.0):
    return Wanted(schedule, ttl, ("ES256",))
def store():
    sealer = Sealer([bytes(range(32))])
    if sys.argv[1] == "file":
        from keys.store_file import FileStore
        return FileStore(Path(sys.argv[2]), sealer)
    from redis import Redis
    from keys.store_redis import RedisStore, over
    return RedisStore(over(Redis(port=int(sys.argv[2]), password=sys.argv[3])), sealer)
def children(count, work):
    '''Fork `count` processes that begin `work(number)` at the same moment; returns what they returned.'''
    gate, open_gate = os.pipe()
    results = []
    for number in range(count):
        back, out = os.pipe()
        if os.fork() == 0:
            os.close(open_gate)
            os.read(gate, 1)
            os.write(out, json.dumps(work(number)).encode())
            os._exit(0)
        os.close(out)
        results.append(back)
    os.close(open_gate)
    return [json.loads(os.fdopen(back).read()) for back in results]
"""


class KeyStorePlace:
    """Where one ring may be kept."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.path = folder / "var" / "keyring.json"
        self.server = self.proxy = None
        self.clients = []
        if kind != "file":
            self.server = RedisServer(kind, folder / kind).start()
            self.proxy = Proxy(self.server.port)

    @property
    def arguments(self):
        """For a process that runs after PREAMBLE."""
        return ["file", self.path] if self.kind == "file" else ["redis", self.server.port, PASSWORD]

    def open(self, seal=SEAL, patience=0.5):
        """The store; `patience` is how long it waits for an answer of the server, in seconds."""
        sealer = Sealer([seal] if isinstance(seal, bytes) else seal)
        if self.kind == "file":
            return FileStore(self.path, sealer)
        bounds = {"socket_timeout": patience, "socket_connect_timeout": patience, "retry": Retry(NoBackoff(), 1)}
        return RedisStore(over(self.client(self.proxy.port, **bounds)), sealer)

    def client(self, port=None, **more):
        """A client of the server itself, unless the proxy's port is given; it is closed in the end."""
        self.clients.append(Redis(port=port or self.server.port, **{"password": PASSWORD, **more}))
        return self.clients[-1]

    def witnessed(self, machine="one"):
        """As a machine of this name sees it."""
        return Witness(self.open(), self.folder / machine / "keyring.seen", Sealer([SEAL]))

    def raw(self):
        """The bytes of the ring; None where there is none."""
        if self.kind == "file":
            return self.path.read_bytes() if self.path.exists() else None
        return self.client().get("{sts:keys}:ring")

    def put(self, data):
        """What somebody does who can write to the store."""
        if self.kind == "file":
            if data is None:
                self.path.unlink()
            else:
                self.path.write_bytes(data)
            return
        client = self.client()
        client.delete("{sts:keys}:ring") if data is None else client.set("{sts:keys}:ring", data)

    def said(self):
        """The raw words of all replicas, by name."""
        if self.kind == "file":
            return {path.stem: path.read_bytes() for path in self.path.parent.glob("*.replicas/*.json")}
        found = self.client().hgetall("{sts:keys}:replicas")
        return {name.decode(): value for name, value in found.items()}

    def say(self, name, data):
        if self.kind == "file":
            (self.path.parent / "keyring.json.replicas" / f"{name}.json").write_bytes(data)
        else:
            self.client().hset("{sts:keys}:replicas", name, data)

    def down(self):
        if self.server:
            self.server.stop()
        else:
            self.path.parent.rename(self.path.parent.with_name("moved"))
            self.path.parent.write_text("no folder")

    def close(self):
        for client in self.clients:
            client.close()
        if self.server:
            self.proxy.close()
            self.server.stop()


@pytest.fixture(params=["file", *sorted(KINDS)])
def key_place(request, tmp_path):
    """Each kind of store once."""
    if request.param != "file" and servers.find(KINDS[request.param]) is None:
        pytest.skip(f"there is no {request.param}-server on this machine")
    made = KeyStorePlace(request.param, tmp_path)
    yield made
    made.close()
