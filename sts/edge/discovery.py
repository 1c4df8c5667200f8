"""What verifiers and clients find out by themselves: the key set and the metadata (RFC 7517, RFC 8414)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from keys.errors import NoUsableKey
from sts.clients.assertion import DEFAULT_ALGORITHMS
from sts.edge.introspection import PATH as INTROSPECTION_PATH
from sts.edge.reply import to_json
from sts.edge.token import GRANT_TYPE, PATH

JWKS_PATH: Final = "/.well-known/jwks.json"
_RETRY_AFTER_S: Final = 10
METADATA_PATHS: Final = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


_METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_METHODS_OF_TLS: Final = ("tls_client_auth", "self_signed_tls_client_auth")  # RFC 8705 §2.1, §2.2


def metadata(issuer: str, *, mutual_tls: bool = False) -> dict[str, object]:
    """The authorization server metadata (RFC 8414 §2); empty lists and what no grant of ours uses are left out.

    `response_types_supported` is required, yet there is no front channel: `none` says so. The audiences' scopes are
    not listed, since they would tell everybody which backends there are. `mutual_tls` says that callers can present a
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
        document["tls_client_certificate_bound_access_tokens"] = True  # where the audience says so (RFC 8705 §3.3)
    return document


def discovery(
    issuer: str,
    jwks: Callable[[], Mapping[str, object]],
    max_age: Callable[[], float],
    mutual_tls: Callable[[], bool] = lambda: False,
) -> Blueprint:
    """The public documents. `max_age` is how many seconds a verifier may keep the key set that `jwks` gives.

    A key set that may lack what others sign with (NoUsableKey) is not shown: 503.

    An issuer with a path has the metadata under both rules, path appended (OpenID Connect Discovery §4) and path
    behind the well-known name (RFC 8414 §3.1), since a gateway in front may or may not cut the path off.
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
    """The key store has been out of sight for so long that the set may lack a key which others sign with."""
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
