"""What the server calls: the two doors straight away, everything else through Flask.

The doors are found on the raw request target, before Flask would answer OPTIONS by itself, redirect `//` and decode the
path: to a gateway each of these answers could look like "allow". A door's path therefore counts only as it is
written in this module; spelled any other way it is Flask's, which knows no such page.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from sts.edge import forward_auth, introspection, token
from sts.edge.form import MAX_BODY_BYTES, correlation_id, peer_of
from sts.edge.reply import send
from sts.model import DoorName, Incoming

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from sts.exchange import Exchange


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


def application(service: Service, prefix: str = "") -> WSGIApplication:
    """Serve `service` as a WSGI application.

    `prefix` is the path of an issuer that has one: its token endpoint is there too, since the metadata say so and a
    gateway in front may or may not cut the path off.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        target = environ.get("RAW_URI", "")
        if prefix and target.startswith((prefix + token.PATH, prefix + introspection.PATH)):
            environ["RAW_URI"] = target = target.removeprefix(prefix)
        door = door_of(target)
        if door is None:
            if path_of(target) == introspection.PATH:
                incoming = receive(environ, "token")
                return send(service.current.introspection.answer(incoming), incoming.method, start_response)
            return service.flask(environ, start_response)
        revision = service.current  # once: a request finishes on the revision it began with
        incoming = receive(environ, door)
        chosen = revision.token_door if door == "token" else revision.forward_auth_door
        return send(revision.exchange.answer(chosen, incoming), incoming.method, start_response)

    return serve


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


def receive(environ: WSGIEnvironment, door: DoorName) -> Incoming:
    """Take a request from the server. The body is read for `POST /token` alone, and never further than its limit."""
    headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"}
    if "CONTENT_TYPE" in environ:
        headers["content-type"] = environ["CONTENT_TYPE"]
    method = environ["REQUEST_METHOD"]
    body, fault = _read_body(environ) if door == "token" and method == "POST" else (b"", "")
    return Incoming(
        method=method,
        target=environ["RAW_URI"],
        headers=headers,
        peer=peer_of(environ),
        request_id=secrets.token_hex(16),
        body=body,
        fault=fault,
        correlation_id=correlation_id(headers),
    )


def _read_body(environ: dict[str, Any]) -> tuple[bytes, str]:
    """The body, and what is wrong with it: "", "too_large" or "malformed"."""
    declared = environ.get("CONTENT_LENGTH")
    if not declared and "HTTP_TRANSFER_ENCODING" not in environ:
        return b"", ""
    try:
        length = int(declared) if declared else None
        if length is not None and length > MAX_BODY_BYTES:
            return b"", "too_large"
        body: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    except Exception:  # noqa: BLE001 - each server has its own errors for bad chunks and peers that went away
        return b"", "malformed"
    if len(body) > MAX_BODY_BYTES:
        return b"", "too_large"
    return body, "" if length in (None, len(body)) else "malformed"
