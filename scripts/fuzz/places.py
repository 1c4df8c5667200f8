"""Where to send it, and what must hold of every answer."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gunicorn import config, http
from gunicorn.http import errors, wsgi

from keys.keyring import Keyring
from scripts.demo.service import CONFIGURATION, ISSUER, SECRET
from sts.app import App
from sts.audit import LABEL, AuditLog
from sts.cli.arrival import Arrival
from sts.mint.keystore import prepare
from sts.settings import Environment, load
from sts.state import StateAtWork, open_state
from sts.telemetry import metrics
from sts.wsgi import application, door_of

PARSER: Final = frozenset({400, 413, 414, 417, 431, 501})
STATUSES: Final = {
    "token": frozenset({200, 400, 401, 405, 413, 415, 429, 503}),
    "forward_auth": frozenset({200, 401, 403, 503}),
    None: frozenset({200, 304, 400, 404, 405, 503}),
}

Answer = tuple[int, dict[str, str], bytes]
Send = Callable[[bytes], "Answer | None"]
"""Sends a request; None where the HTTP parser closes without an answer."""


class Here:
    """gunicorn's parser and the WSGI application, in this process; audit events are counted, and must be JSON."""

    def __init__(self, directory: Path, jwks_uri: str) -> None:
        file = directory / "sts.yaml"
        file.write_text(CONFIGURATION.format(issuer=ISSUER, port=8080, jwks_uri=jwks_uri), encoding="utf-8")
        chosen = load(file, Environment())
        secret, store, _, _ = prepare(chosen.keys, chosen.var, chosen.given_secret(), time.time, chosen.wanted())
        faults: list[object] = []
        keyring = Keyring(store, chosen.keys.schedule(), time.time, faults.append)
        keyring.start()
        self.events = 0
        audit = AuditLog(secret.key(LABEL), self._count, time.time, time.monotonic, metrics)
        state = open_state(chosen.state, chosen.redis, chosen.var, time.time)
        state.check()
        kept = StateAtWork.of(
            state, chosen.state, audit_secrets=secret.keys(LABEL), derive=secret.keys, clock=time.time
        )
        kept.start()
        self.serve = application(App(chosen, secret, keyring, audit, kept))
        self.config = config.Config()
        self.config.set("header_map", "refuse")
        self.peer = socket.socket()

    def close(self) -> None:
        """Close what it holds open."""
        self.peer.close()

    def _count(self, *_: object) -> None:
        self.events += 1

    def send(self, data: bytes) -> Answer | None:
        """Answer as the server would; what the parser refuses is the status that gunicorn gives it."""
        arrival = Arrival()
        arrival.data += data
        arrival.whole()  # it must never raise
        try:
            request = next(http.parser.RequestParser(self.config, iter([data]), ("127.0.0.1", 1)))
        except (errors.ParseException, errors.NoMoreData, StopIteration):
            return None
        request._expected_100_continue = False  # noqa: SLF001 - nobody is there to read it
        _, environ = wsgi.create(request, self.peer, ("127.0.0.1", 1), ("127.0.0.1", 2), self.config)
        began: list[tuple[int, dict[str, str]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            for name, value in headers:
                assert re.fullmatch(r"[A-Za-z0-9-]+", name), name
                assert re.fullmatch(r"[\x20-\x7e]*", value), name
            began.append((int(status[:3]), {name.lower(): value for name, value in headers}))
            return bytes

        before = self.events
        body = b"".join(self.serve(environ, start_response))
        door = door_of(request.uri)
        assert self.events - before == (door is not None), "one audit event for each decision, none for a page"
        ((status, headers),) = began
        assert status in STATUSES[door], (door, status)
        return status, headers, body


class There:
    """`sts serve` on a port, over a socket of its own for each input."""

    def __init__(self, port: int) -> None:
        self.port = port

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
        return None


def judge(answer: Answer | None, token: bytes) -> str:
    """What must hold of every answer; returns its name for the summary."""
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
            assert document["error_reason"] not in ("internal_error", "no_key", "source_unreachable"), document
    minted = headers.get("authorization", "") if kind == "" else ""
    if status == 200 and kind == "application/json" and b"access_token" in body:
        minted = json.loads(body)["access_token"]
    if "." in minted:
        claims = minted.split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"] == "alice"
        assert json.loads(base64.urlsafe_b64decode(claims + "=="))["aud"] == "orders"
    return str(status)
