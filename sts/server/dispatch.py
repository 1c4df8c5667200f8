"""What the server calls: the two doors straight away, everything else through Flask.

The doors are found on the raw request target, before Flask would answer OPTIONS by itself, redirect `//` and decode the
path: to a gateway each of these answers could look like "allow". A door's path therefore counts only as it is
written in this module; spelled any other way it is Flask's, which knows no such page.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from sts.edge import forward_auth, introspection, token
from sts.edge.form import PEER
from sts.edge.reply import problem
from sts.errors import INTERNAL_ERROR, Refusal
from sts.model import DoorName, Incoming, Reply, Steps
from sts.telemetry import log

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from sts.exchange import Exchange


METRICS_PATH: Final = "/metrics"


class Revision(Protocol):
    """One accepted configuration at work."""

    @property
    def exchange(self) -> Exchange:
        """The way of a request."""

    @property
    def token_door(self) -> token.TokenDoor:
        """The door at `/token`."""

    @property
    def forward_auth_door(self) -> forward_auth.ForwardAuthDoor:
        """The door at `/forward-auth`."""

    @property
    def introspection(self) -> introspection.Introspection:
        """What answers at `/introspect`."""


class Service(Protocol):
    """One worker's service: the revision in force, and the pages that Flask serves."""

    @property
    def current(self) -> Revision:
        """The revision in force; a reload replaces it between two requests."""

    @property
    def flask(self) -> WSGIApplication:
        """Everything but the doors."""


class Application:
    """Answers the requests of one worker.

    `prefix` is the path of an issuer that has one: its token endpoint is there too, since the metadata say so and a
    gateway in front may or may not cut the path off.
    """

    def __init__(self, service: Service, prefix: str = "") -> None:
        self._service = service
        self._prefix = prefix
        self._prefixed = (prefix + token.PATH, prefix + introspection.PATH) if prefix else ()

    def reads_body(self, method: str, target: str) -> bool:
        """Whether the answer hangs on the body: a POST to one of the endpoints that take a form."""
        return method == "POST" and path_of(self._own(target)) in (token.PATH, introspection.PATH)

    def begin(self, incoming: Incoming) -> Steps[Reply]:
        """The steps to the answer: they stop before each that may wait. None of them raises."""
        try:
            target = self._own(incoming.target)
            if target != incoming.target:
                incoming = replace(incoming, target=target)
            door = door_of(target)
            if door is not None:
                revision = self._service.current  # once: a request finishes on the revision it began with
                chosen = revision.token_door if door == "token" else revision.forward_auth_door
                return (yield from revision.exchange.steps(chosen, incoming))
            path = path_of(target)
            if path == introspection.PATH:
                yield
                return self._service.current.introspection.answer(incoming)
            if path == METRICS_PATH:  # it reads the files of all workers
                yield
            return page(self._service.flask, incoming)
        except Refusal as refusal:  # thrown into the steps by the worker, which takes no more of them
            return problem(refusal.reason.forward_status, refusal.reason.name, refusal.reason.sentence)
        except Exception as fault:  # noqa: BLE001 - fails closed: a fault of ours must not look like an answer
            log.error("fault", request_id=incoming.request_id, fault=type(fault).__name__, at=log.where(fault))
            return problem(INTERNAL_ERROR.forward_status, INTERNAL_ERROR.name, INTERNAL_ERROR.sentence)

    def _own(self, target: str) -> str:
        """The target without the issuer's path."""
        return target.removeprefix(self._prefix) if self._prefixed and target.startswith(self._prefixed) else target


def page(flask: WSGIApplication, incoming: Incoming) -> Reply:
    """Ask Flask for one of its pages, none of which reads a body."""
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _fault: object = None) -> Any:  # noqa: ANN401 - PEP 3333
        said[:] = [int(status[:3]), headers]

    parts = flask(environ_of(incoming), start_response)
    try:
        body = b"".join(parts)
    finally:
        getattr(parts, "close", lambda: None)()
    status, headers = said
    return Reply(status, tuple(pair for pair in headers if pair[0].lower() != "content-length"), body)


def environ_of(incoming: Incoming) -> dict[str, Any]:
    """A request as PEP 3333 has it. HEAD is asked as GET, so that its headers are those of a GET (RFC 9110 §9.3.2)."""
    target = incoming.target
    parts = urlsplit("." + target) if target.startswith("//") else urlsplit(target)
    path = parts.path[1:] if target.startswith("//") else parts.path
    host = incoming.headers.get("host", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET" if incoming.method == "HEAD" else incoming.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": parts.query,
        "RAW_URI": target,
        "REMOTE_ADDR": incoming.peer.address,
        "SERVER_NAME": host.partition(":")[0] or "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        PEER: incoming.peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in incoming.headers.items():
        environ["CONTENT_TYPE" if name == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


def door_of(target: str) -> DoorName | None:
    """Which door a raw request target is for, None if it is Flask's.

    A target in absolute form (RFC 9112 §3.2.2) that names a door's path is that door's too: it is there to refuse it,
    so that the refusal has the door's shape and stands in the audit.
    """
    path = path_of(target)
    if path == token.PATH:
        return "token"
    if path == forward_auth.PATH or path.startswith(forward_auth.PATH + "/"):
        return "forward_auth"
    return None


def path_of(target: str) -> str:
    """The path that a raw request target names, in origin or absolute form; "/" where it names none."""
    path = target.partition("?")[0]
    return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]
