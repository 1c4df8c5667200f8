"""Alive, ready, and what operators read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flask import Blueprint, Response, abort, request

from sts.clients.client import Network
from sts.edge.peer import is_operator
from sts.edge.reply import to_json

Networks = tuple[Network | str, ...]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this worker can answer requests, and for operators what it hangs on.

    It hangs on what is ours: the configuration, a usable key, revocations. An identity provider or a shared cache that
    is down harms some requests, not all; taking the service out for that would harm all. Those stand in `detail`.
    """

    ready: bool
    detail: Mapping[str, object] = field(default_factory=dict)


def health(
    readiness: Callable[[], Readiness], metrics: Callable[[], tuple[str, bytes]], ops_networks: Callable[[], Networks]
) -> Blueprint:
    """`/healthz` and `/readyz` for everybody; detail and `/metrics` (Prometheus text) only to `ops_networks`."""
    pages = Blueprint("health", __name__)

    @pages.get("/healthz")
    def healthz() -> Response:
        return _status(200, {"status": "ok"})

    @pages.get("/readyz")
    def readyz() -> Response:
        found = readiness()
        document: dict[str, object] = {"status": "ready" if found.ready else "not ready"}
        if is_operator(request.environ, ops_networks()):
            document.update(found.detail)
        return _status(200 if found.ready else 503, document)

    @pages.get("/metrics")
    def show_metrics() -> Response:
        if not is_operator(request.environ, ops_networks()):
            abort(404)  # like a path that is not there
        content_type, text = metrics()
        response = Response(text, content_type=content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _status(status: int, document: Mapping[str, object]) -> Response:
    response = Response(to_json(document), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
