"""The public documents for verifiers and clients, the key set and the metadata (RFC 7517, RFC 8414); health pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from keys.errors import NoUsableKey
from sts.clients.assertion import DEFAULT_ALGORITHMS
from sts.clients.client import Network
from sts.edge.form import is_operator
from sts.edge.introspection import PATH as INTROSPECTION_PATH
from sts.edge.reply import problem, to_json
from sts.edge.token import GRANT_TYPE, PATH
from sts.errors import INTERNAL_ERROR, Reason, Refusal
from sts.model import Reply
from sts.telemetry import log

JWKS_PATH: Final = "/.well-known/jwks.json"
_RETRY_AFTER_S: Final = 10
METADATA_PATHS: Final = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


_METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_METHODS_OF_TLS: Final = ("tls_client_auth", "self_signed_tls_client_auth")  # RFC 8705 §2.1, §2.2


def metadata(issuer: str, *, mutual_tls: bool = False) -> dict[str, object]:
    """Return the authorization server metadata (RFC 8414 §2), without empty lists and members that no grant uses.

    `response_types_supported` is required, but there is no front channel, so its value is `none`. The audiences' scopes
    are not listed, because the list would publish which backends exist. `mutual_tls` is true if callers can present a
    certificate, to us or to a proxy in front.
    """
    methods = [*_METHODS, *(_METHODS_OF_TLS if mutual_tls else ())]
    document: dict[str, object] = {
        "issuer": issuer,
        "token_endpoint": issuer + PATH,
        "jwks_uri": issuer + JWKS_PATH,
        "grant_types_supported": [GRANT_TYPE],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(DEFAULT_ALGORITHMS),
        "introspection_endpoint": issuer + INTROSPECTION_PATH,
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": list(DEFAULT_ALGORITHMS),
    }
    if mutual_tls:
        document["tls_client_certificate_bound_access_tokens"] = True  # for audiences with `bind` (RFC 8705 §3.3)
    return document


def discovery(
    issuer: str,
    jwks: Callable[[], Mapping[str, object]],
    max_age: Callable[[], float],
    mutual_tls: Callable[[], bool] = lambda: False,
) -> Blueprint:
    """Serve the public documents. `max_age` is how many seconds a verifier may cache the key set from `jwks`.

    If `jwks` raises NoUsableKey, the key set may lack a key that other replicas sign with: the answer is 503.

    An issuer with a path has the metadata at both addresses: path appended (OpenID Connect Discovery §4), and path
    behind the well-known name (RFC 8414 §3.1), because a gateway in front may or may not remove the path.
    """
    pages = Blueprint("discovery", __name__)
    prefix = urlsplit(issuer).path
    documents = {found: to_json(metadata(issuer, mutual_tls=found)) for found in (False, True)}

    def show_jwks() -> Response:
        try:
            keys = jwks()
        except NoUsableKey:
            return _too_stale()
        return _public(to_json(keys), "application/jwk-set+json", max_age())

    def show_metadata() -> Response:
        return _public(documents[mutual_tls()], "application/json", max_age())

    for path in {JWKS_PATH, prefix + JWKS_PATH}:
        pages.add_url_rule(path, endpoint="jwks", view_func=show_jwks)
    for name in METADATA_PATHS:
        for path in {name, name + prefix, prefix + name}:
            pages.add_url_rule(path, endpoint="metadata", view_func=show_metadata)
    return pages


def _too_stale() -> Response:
    """Answer 503: the key store was unreachable for so long that the set may lack a key that others sign with."""
    response = Response(to_json({"error": "temporarily_unavailable"}), 503, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response


def _public(body: bytes, content_type: str, max_age: float) -> Response:
    response = Response(body, content_type=content_type)
    response.headers["Cache-Control"] = f"public, max-age={int(max_age)}"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.add_etag()
    response.make_conditional(request)
    return response


def site(*pages: Blueprint) -> Flask:
    """Serve `pages`. Faults are problem documents; there are no redirects and no automatic answers to OPTIONS."""
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
    return _problem_of(refusal.reason)


def _failed(error: Exception) -> Response:
    log.error("fault", fault=type(error).__name__, at=log.where(error))
    return _problem_of(INTERNAL_ERROR)


def _problem_of(reason: Reason) -> Response:
    return _response(problem(reason.forward_status, reason.name, reason.sentence))


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, list(reply.headers))


Networks = tuple[Network | str, ...]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this worker can answer requests, and the state of its dependencies for operators.

    Only our own dependencies count: the configuration, a usable key, revocations. An identity provider or shared cache
    that is down affects some requests; to take the service out for that would affect all. `detail` lists those.
    """

    ready: bool
    detail: Mapping[str, object] = field(default_factory=dict)


def health(
    readiness: Callable[[], Readiness], metrics: Callable[[], tuple[str, bytes]], ops_networks: Callable[[], Networks]
) -> Blueprint:
    """Serve `/healthz` and `/readyz` to all callers; detail and `/metrics` (Prometheus text) only to `ops_networks`."""
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
            abort(404)  # like an unknown path
        content_type, text = metrics()
        response = Response(text, content_type=content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    return pages


def _status(status: int, document: Mapping[str, object]) -> Response:
    response = Response(to_json(document), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
