"""The stores of the state, each real and in a place of its own, and processes of their own that use them."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patient_stores import PATIENCE_S, open_patiently
from redis import Redis
from redis_servers import KINDS, Proxy, RedisServer

from scripts import servers
from sts.audit.log import LABEL
from sts.options import Place
from sts.redis_link import RedisSettings
from sts.state import StateAtWork, StateUnavailableError, open_state

ROOT = Path(__file__).resolve().parent.parent.parent

# A process that marks what it is told, at the very moment.
MARKER = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, "tests/lib")
from patient_stores import open_patiently
from sts.options import Place
from sts.redis_link import RedisSettings
from sts.state import AlreadyMarkedError
spec = json.loads(sys.argv[1])
redis = spec["redis"] and RedisSettings.model_validate(spec["redis"], context=Place(Path("."), {}))
state = open_patiently(redis, Path(spec["var"]), time.time)
state.list("warm-up")
print("ready", flush=True)
for line in sys.stdin:
    key, at = line.split()
    while time.time() < float(at): pass
    try:
        state.mark(key.encode(), time.time() + 60)
        print("marked", flush=True)
    except AlreadyMarkedError:
        print("replayed", flush=True)
"""


def state_at_work(settings, secret):
    """What a worker holds of the state, followed by nobody but the test."""
    store = open_state(settings.state, settings.redis, settings.var, time.time)
    store.check()
    work = StateAtWork.of(store, settings.state, audit_secrets=secret.keys(LABEL), derive=secret.keys, clock=time.time)
    work.revocations.refresh()
    return work


class Store:
    """A store that goes down, stalls and comes back as told. Redis is reached through a proxy."""

    def __init__(self, kind, folder):
        self.kind, self.var = kind, folder / "var"
        self.server = self.proxy = self.settings = self.holder = None
        self.opened, self.processes = [], []
        if kind != "sqlite":
            self.server = RedisServer(kind, folder / kind).start()
            self.proxy = Proxy(self.server.port)
            self.settings = self.server.settings | {"url": f"redis://127.0.0.1:{self.proxy.port}/0"}

    def open(self, clock=time.time, patience=PATIENCE_S):
        redis = self.settings and RedisSettings.model_validate(self.settings, context=Place(self.var, {}))
        state = open_patiently(redis, self.var, clock, patience)
        state.check()
        self.opened.append(state)
        return state

    def marker(self):
        """A process that marks; it is ready when this returns."""
        spec = {"redis": self.settings, "var": str(self.var)}
        process = subprocess.Popen(
            [sys.executable, "-c", MARKER, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    def down(self):
        if self.server:
            self.server.stop()
        else:
            (self.var / "state.db").rename(self.var / "moved.db")

    def slow(self):
        """It takes requests and answers none."""
        if self.proxy:
            self.proxy.mode = "stall"
        else:
            hold = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
            hold += "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(60)"
            self.holder = subprocess.Popen(
                [sys.executable, "-c", hold, str(self.var / "state.db")], stdout=subprocess.PIPE, text=True
            )
            self.processes.append(self.holder)
            assert self.holder.stdout.readline() == "held\n"

    def back(self):
        if self.server:
            self.proxy.mode = "pass"
            if self.server.process is None:
                self.server.start()
        elif self.holder:
            self.holder.kill()
            self.holder.wait()
        else:
            (self.var / "moved.db").rename(self.var / "state.db")

    def full(self):
        """No room is left: what would grow is refused."""
        if self.server:
            self.server.client().config_set("maxmemory", 1)
            return
        for state in self.opened:
            state.get("any", "key")  # opens it
            connection = state._connection
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            with contextlib.suppress(StateUnavailableError):  # the pages may have room inside
                for number in range(200):
                    state.mark(b"filling" * 100 + b"%d" % number, time.time() + 60)

    def roomy(self):
        """There is room again."""
        if self.server:
            self.server.client().config_set("maxmemory", 0)
            return
        for state in self.opened:
            state._connection.execute("PRAGMA max_page_count = 1000000")

    def empty(self):
        """All that it held is gone, as after an accident."""
        if self.server:
            self.server.client().flushall()
        else:
            for state in self.opened:
                state.close()
            for path in self.var.glob("state.db*"):
                path.unlink()
            self.open()

    def copy(self):
        """All that it holds, to be given to `put_back`."""
        if self.server:
            client = self.raw()
            return {key: client.dump(key) for key in client.scan_iter("*")}
        for state in self.opened:
            state.close()
        return (self.var / "state.db").read_bytes()

    def put_back(self, copy):
        """It holds what it held when it was copied, and nothing else."""
        self.empty()
        if self.server:
            client = self.raw()
            for key, value in copy.items():
                client.restore(key, 0, value, replace=True)
            return
        for state in self.opened:
            state.close()
        (self.var / "state.db").write_bytes(copy)

    def raw(self):
        """A client that decodes nothing."""
        return Redis(port=self.server.port, password=self.server.password)

    def close(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        for state in self.opened:
            state.close()
        if self.server:
            self.proxy.close()
            self.server.stop()


@pytest.fixture(params=["sqlite", *sorted(KINDS)])
def store(request, tmp_path):
    """Each kind of store once."""
    if request.param != "sqlite" and servers.find(KINDS[request.param]) is None:
        pytest.skip(f"there is no {request.param}-server on this machine")
    made = Store(request.param, tmp_path)
    yield made
    made.close()
