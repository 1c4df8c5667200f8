"""Where to send it, and what must hold of every answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from keys.keyring import Keyring
from scripts.demo.service import CLIENT, GRANT_TYPE, JWT_TYPE, SECRET, Service
from scripts.fuzz.world import AUDIENCES, PREFIX, SUBJECTS, Material, World
from sts.app import App
from sts.audit.log import LABEL, LINE_BYTES, AuditLog
from sts.edge import introspection
from sts.labels import DeploymentSecret
from sts.mint.keystore import prepare
from sts.model import Incoming, Peer, Reply, Steps, taken
from sts.server.connection import Application as Answers
from sts.server.connection import Connection
from sts.server.dispatch import Application, door_of, path_of
from sts.settings import Environment, load
from sts.state import StateAtWork, key_records, open_state
from sts.telemetry import metrics

PARSER: Final = frozenset({400, 413, 414, 417, 431, 501})
STATUSES: Final = {
    "token": frozenset({200, 400, 401, 405, 413, 415, 429, 503}),
    "forward_auth": frozenset({200, 401, 403, 503}),
    "introspect": frozenset({200, 400, 401, 405, 413, 415, 429, 503}),
    None: frozenset({200, 304, 400, 404, 405, 503}),
}

Answer = tuple[int, dict[str, str], bytes]
Send = Callable[[bytes], "Answer | None"]
"""Sends a request; None where the HTTP parser closes without an answer."""


class Wire(asyncio.Transport):
    """The peer's end of a connection in this process: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def get_write_buffer_size(self) -> int:
        """As asyncio says: the peer reads everything."""
        return 0

    def _nothing(self) -> None:
        """Nothing waits here."""

    write_eof = abort = close = pause_reading = resume_reading = _nothing


class Loop:
    """A worker without a loop: takes every step at once, and of each connection the first request."""

    date = "Thu, 01 Jan 1970 00:00:00 GMT"
    stopping = False

    def __init__(self, application: Application) -> None:
        self.application: Answers = self
        self._application = application
        self.waiting: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self._target: str | None = None

    def run(self, peer: Peer, data: bytes) -> tuple[str | None, bytes]:
        """Which target was answered, None if none was, and what was written."""
        self._target = None
        connection, wire = Connection(self, peer, None), Wire()
        connection.connection_made(wire)
        connection.data_received(data)
        connection.connection_lost(None)
        return self._target, bytes(wire.written)

    def reads_body(self, method: str, target: str) -> bool:
        """As Application says."""
        return self._application.reads_body(method, target)

    def begin(self, incoming: Incoming) -> Steps[Reply]:
        """As Application says."""
        self._target = incoming.target
        return self._application.begin(incoming)

    def now(self) -> float:
        """As Worker says, and so on."""
        return 0.0

    def later(self, connection: Connection) -> None:
        """Leave alone what comes behind the first request."""

    def finish(self, steps: Steps[Reply], connection: Connection) -> None:
        """Take the steps here."""
        connection.answered(taken(steps))

    def refused(self, peer: Peer, why: str) -> None:
        """Nothing to tell."""

    def handshake_failed(self, peer: Peer, fault: OSError) -> None:
        """Nothing to tell."""

    def lost(self, connection: Connection) -> None:
        """Nothing to tell."""


class Here:
    """The worker's parser and all that is behind it, in this process, on the configuration of `world`.

    Audit events are counted, and neither they nor the log may hold what `who` keeps secret.
    """

    def __init__(self, directory: Path, world: World, **changes: object) -> None:
        file = directory / "sts.yaml"
        file.write_text(world.configuration(directory, **changes).format(port=8080), encoding="utf-8")
        chosen = load(file, Environment())
        secret, store, _, _ = prepare(chosen.keys, chosen.var, chosen.given_secret(), time.time, chosen.wanted())
        faults: list[object] = []
        keyring = Keyring(store, chosen.keys.schedule(), time.time, faults.append)
        keyring.start()
        self.events: list[bytes] = []
        audit = AuditLog(secret.key(LABEL), self.events.append, time.time, time.monotonic, metrics)
        state = open_state(chosen.state, chosen.redis, chosen.var, time.time)
        state.check()
        self.kept = StateAtWork.of(
            state, chosen.state, audit_secrets=secret.keys(LABEL), derive=secret.keys, clock=time.time
        )
        key = self._make_key(secret)
        self.kept.start()
        self.app = App(chosen, secret, keyring, audit, self.kept)
        self.loop = Loop(Application(self.app))
        self.sent = 0
        token = world.provider.token(exp=4_000_000_000).encode()
        self.who = Material(token, world, key)
        self.who = Material(token, world, key, own_token(self.send(exchange(token))))

    def _make_key(self, secret: DeploymentSecret) -> bytes:
        key_id, text = key_records.make(PREFIX)
        records = key_records.KeyRecords(self.kept.store, secret.keys(key_records.LABEL))
        digest, now = key_records.digest(text), int(time.time())
        records.put(key_records.ApiKey(key_id, "partner-keys", "acme", digest, now, scopes=("orders:read",)))
        return text.encode()

    def close(self) -> None:
        """Close what it holds open."""
        self.kept.close()

    def send(self, data: bytes) -> Answer | None:
        """Answer the first request in `data` as the worker would; None where it is no HTTP, or not whole."""
        self.sent += 1  # now and then from another address, or all would end at the limit of failures
        address = f"127.{self.sent >> 19 & 255}.{self.sent >> 11 & 255}.{self.sent >> 3 & 255}"
        self.events.clear()
        with contextlib.redirect_stderr(io.StringIO()) as told:
            target, written = self.loop.run(Peer(address), data)
        if target is None:
            assert not self.events
            return None
        place = "introspect" if path_of(target) == introspection.PATH else door_of(target)
        self.judge_told(told.getvalue().encode(), decided=place is not None)
        lines, _, body = written.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")
        first, *fields = lines.decode("ascii").split("\r\n")
        status, headers = int(first.split(" ")[1]), {}
        for field in fields:
            name, _, value = field.partition(": ")
            assert re.fullmatch(r"[A-Za-z0-9-]+", name), name
            assert re.fullmatch(r"[\x20-\x7e]*", value), name
            headers[name.lower()] = value
        assert status in STATUSES[place], (place, status)
        return status, headers, body

    def judge_told(self, log: bytes, *, decided: bool) -> None:
        """What must hold of the events and the log of one request."""
        assert len(self.events) == decided, "one audit event for each decision, none for a page"
        for event in self.events:
            assert json.loads(event)["request_id"]
            assert len(event) < LINE_BYTES + 1
        assert b"Traceback" not in log
        told = b"".join(self.events) + log
        for needle in self.who.needles if hasattr(self, "who") else ():
            assert needle not in told, "a secret or a token in the log or the audit"


class There:
    """`sts serve` on a port, over a socket of its own for each input."""

    def __init__(self, port: int, who: Material) -> None:
        self.port, self.who = port, who

    @classmethod
    def of(cls, service: Service, world: World) -> There:
        """A running service on the configuration of `world`, and what a caller holds there."""
        status, told = service.command("api-keys", "create", "--owner", "acme", "--scope", "orders:read", "--json")
        assert status == 0, told
        token = world.provider.token(exp=4_000_000_000)
        own = service.exchange(token).body["access_token"]
        return cls(service.port, Material(token.encode(), world, json.loads(told)["key"].encode(), own.encode()))

    def send(self, data: bytes) -> Answer | None:
        """Send, close our half, read to the end; the last whole answer counts, and none may be a 5xx of ours."""
        received = b""
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port), 12) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while chunk := peer.recv(65536):
                received += chunk
        for status in re.findall(rb"HTTP/1\.[0-9] (\d\d\d) [A-Za-z -]+\r\n", received):
            assert int(status) in PARSER | {100} | frozenset().union(*STATUSES.values()), received[:300]
        assert b"Traceback" not in received
        assert SECRET.encode() not in received
        assert self.who.token not in received
        return None


def exchange(token: bytes, audience: str = "orders", declared: str = JWT_TYPE) -> bytes:
    """A good request at `/token`."""
    form = {"grant_type": GRANT_TYPE, "subject_token": token, "subject_token_type": declared, "audience": audience}
    body = urlencode(form).encode()
    basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode())
    lines = [b"POST /token HTTP/1.1", b"Host: sts", b"Authorization: Basic " + basic]
    lines += [b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def own_token(answer: Answer | None) -> bytes:
    """The token that a good request got."""
    assert answer is not None
    assert answer[0] == 200, answer
    token: str = json.loads(answer[2])["access_token"]
    return token.encode()


def judge(answer: Answer | None, token: bytes, *, bent_source: bool = False) -> str:
    """What must hold of every answer; returns its name for the summary.

    `bent_source` says that a source may be the fault: then, and only then, that may be answered; and whoever the source
    names may be the token's subject.
    """
    if answer is None:
        return "parser"
    status, headers, body = answer
    assert token not in body
    assert SECRET.encode() not in body
    kind = headers.get("content-type", "")
    if status >= 400:
        assert kind in ("application/json", "application/problem+json"), kind
        assert headers["cache-control"] == "no-store"
        if body:
            document = json.loads(body)
            assert re.fullmatch(r"[a-z_]+", document["error_reason"])
            assert document["error_reason"] not in ("internal_error", "no_key", "state_unavailable"), document
            assert document["error_reason"] != "source_unreachable" or bent_source, document
    minted = headers.get("authorization", "") if kind == "" else ""
    if status == 200 and kind == "application/json" and b"access_token" in body:
        minted = json.loads(body)["access_token"]
    if minted.count(".") == 2:
        claims = json.loads(base64.urlsafe_b64decode(minted.split(".")[1] + "=="))
        assert bent_source or claims["sub"] in SUBJECTS, claims["sub"]
        assert claims["aud"] in AUDIENCES, claims["aud"]
    return str(status)
