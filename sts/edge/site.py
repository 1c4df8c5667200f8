"""The Flask application: everything but the two doors."""

from __future__ import annotations

from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException

from sts.edge.reply import problem
from sts.errors import INTERNAL_ERROR, Reason, Refusal
from sts.model import Reply
from sts.telemetry import log


def site(*pages: Blueprint) -> Flask:
    """Serve `pages`. Faults are problem documents; nothing redirects, and OPTIONS is answered by nobody."""
    app = Flask("sts", static_folder=None, template_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    for blueprint in pages:
        app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _not_served)
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(Exception, _failed)
    return app


def _not_served(error: HTTPException) -> Response:
    status = error.code or 500
    kept = [(name, value) for name, value in error.get_headers() if name == "Allow"]
    reason = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    return _response(problem(status, reason, error.name, headers=kept))


def _refused(refusal: Refusal) -> Response:
    return _ours(refusal.reason)


def _failed(error: Exception) -> Response:
    log.error("fault", fault=type(error).__name__, at=log.where(error))
    return _ours(INTERNAL_ERROR)


def _ours(reason: Reason) -> Response:
    return _response(problem(reason.forward_status, reason.name, reason.sentence))


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, list(reply.headers))
