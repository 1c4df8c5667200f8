"""What Flask serves: the public documents, health, and its faults."""

import json
from ipaddress import ip_network

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keys.errors import NoUsableKey
from sts.edge.discovery import Readiness, discovery, health, metadata, site
from sts.edge.form import PEER
from sts.errors import NO_KEY, Refusal
from sts.jose import SUPPORTED
from sts.model import Peer

ISSUER = "https://sts.example.internal"
JWKS = {"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "kid": "kid-1", "use": "sig", "alg": "ES256"}]}
NAMES = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


class Parts:
    """What the application hands in; a test changes it."""

    def __init__(self):
        self.jwks = JWKS
        self.max_age = 300.0
        self.readiness = Readiness(ready=True, detail={"degraded": ["corporate-idp"]})
        self.networks = (ip_network("127.0.0.0/8"),)
        self.fault = None

    def key_set(self):
        if self.fault is not None:
            raise self.fault
        return self.jwks

    def serve(self, issuer=ISSUER):
        pages = discovery(issuer, self.key_set, lambda: self.max_age)
        text = b"# HELP sts_keys Keys.\n# TYPE sts_keys gauge\nsts_keys 2.0\n"
        return site(
            pages, health(lambda: self.readiness, lambda: ("text/plain; version=0.0.4", text), lambda: self.networks)
        ).test_client()


@pytest.fixture
def parts():
    return Parts()


@pytest.fixture
def http(parts):
    return parts.serve()


def problem_of(reply):
    assert reply.content_type == "application/problem+json"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.json["status"] == reply.status_code
    return reply.status_code, reply.json["error_reason"]


# The key set.


def test_a_key_set_that_may_lack_what_others_sign_with_is_not_shown(http, parts):
    parts.fault = NoUsableKey("the key store has not been seen for 9000 s")
    reply = http.get("/.well-known/jwks.json")
    assert (reply.status_code, reply.json) == (503, {"error": "temporarily_unavailable"})
    assert reply.headers["Cache-Control"] == "no-store"
    assert int(reply.headers["Retry-After"]) > 0
    parts.fault = None
    assert http.get("/.well-known/jwks.json").status_code == 200


def test_the_key_set_is_served_as_rfc_7517_says(http):
    """JK-01."""
    reply = http.get("/.well-known/jwks.json")
    assert reply.status_code == 200
    assert reply.content_type == "application/jwk-set+json"
    assert json.loads(reply.data) == JWKS
    assert reply.headers["Cache-Control"] == "public, max-age=300"
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert "Set-Cookie" not in reply.headers


def test_an_unchanged_key_set_is_304_and_a_changed_one_is_not(http, parts):
    """MD-08."""
    tag = http.get("/.well-known/jwks.json").headers["ETag"]
    again = http.get("/.well-known/jwks.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == tag
    assert again.headers["Cache-Control"] == "public, max-age=300"
    parts.jwks = {"keys": []}
    changed = http.get("/.well-known/jwks.json", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_the_key_set_s_age_is_what_the_configuration_says_now(http, parts):
    parts.max_age = 60.0
    assert http.get("/.well-known/jwks.json").headers["Cache-Control"] == "public, max-age=60"


# The metadata.


def test_the_metadata_says_what_there_is(http):
    """MD-03, MD-04."""
    assert http.get(NAMES[0]).json == {
        "issuer": ISSUER,
        "token_endpoint": f"{ISSUER}/token",
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": sorted(SUPPORTED),
        "introspection_endpoint": f"{ISSUER}/introspect",
        "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ],
        "introspection_endpoint_auth_signing_alg_values_supported": sorted(SUPPORTED),
    }


def test_both_names_show_the_same_document_byte_for_byte(http):
    """MD-06."""
    one, other = (http.get(name) for name in NAMES)
    assert one.status_code == other.status_code == 200
    assert one.data == other.data
    assert one.content_type == other.content_type == "application/json"
    assert one.headers["ETag"] == other.headers["ETag"]
    assert "max-age" in one.headers["Cache-Control"]


def test_the_metadata_holds_no_empty_list_and_no_front_channel():
    """MD-05."""
    document = metadata(ISSUER)
    assert all(document.values())
    assert "authorization_endpoint" not in document


@pytest.mark.parametrize("name", NAMES)
def test_an_issuer_with_a_path_has_its_documents_under_both_rules(parts, name):
    """MD-01."""
    http = parts.serve(f"{ISSUER}/tenant/a")
    inserted, appended = http.get(f"{name}/tenant/a"), http.get(f"/tenant/a{name}")
    assert inserted.status_code == appended.status_code == http.get(name).status_code == 200
    assert inserted.data == appended.data
    assert inserted.json["issuer"] == f"{ISSUER}/tenant/a"
    assert http.get(inserted.json["jwks_uri"].removeprefix(ISSUER)).json == JWKS
    assert http.get(f"{name}/tenant/b").status_code == 404


# Health.


def test_healthz_says_that_the_process_answers(http):
    reply = http.get("/healthz", environ_base={PEER: Peer("192.0.2.7")})
    assert (reply.status_code, reply.json) == (200, {"status": "ok"})
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("ready", "status", "text"), [(True, 200, "ready"), (False, 503, "not ready")])
def test_readyz_tells_everybody_whether_and_operators_why(http, parts, ready, status, text):
    parts.readiness = Readiness(ready=ready, detail={"degraded": ["corporate-idp"]})
    for_all = http.get("/readyz", environ_base={PEER: Peer("192.0.2.7")})
    assert (for_all.status_code, for_all.json) == (status, {"status": text})
    for_operators = http.get("/readyz", environ_base={PEER: Peer("127.0.0.1")})
    assert (for_operators.status_code, for_operators.json) == (status, {"status": text, "degraded": ["corporate-idp"]})
    forwarded = http.get("/readyz", environ_base={PEER: Peer("127.0.0.1")}, headers={"X-Forwarded-For": "127.0.0.1"})
    assert forwarded.json == {"status": text}


def test_metrics_are_for_operators_and_for_nobody_else_there(http):
    reply = http.get("/metrics", environ_base={PEER: Peer("127.0.0.1")})
    assert reply.status_code == 200
    assert reply.content_type.startswith("text/plain; version=")
    assert [family.name for family in text_string_to_metric_families(reply.text)] == ["sts_keys"]
    for other in (
        http.get("/metrics", environ_base={PEER: Peer("192.0.2.7")}),
        http.get("/metrics", environ_base={PEER: Peer("127.0.0.1")}, headers={"Forwarded": "for=127.0.0.1"}),
    ):
        assert problem_of(other) == (404, "not_found")
        assert other.data == http.get("/no-such-page").data


# Faults.


@pytest.mark.parametrize(
    "path",
    [
        "/no-such-page",
        "/",
        "//",
        "/.well-known//jwks.json",
        "/healthz/",
        "/token",
        "/forward-auth/x",
        "/static/x",
        "/revoke",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_an_unknown_path_is_404_whatever_the_method(http, path, method):
    """ER-01, RV-01."""
    reply = http.open(path, method=method)
    assert reply.status_code == 404
    if method != "HEAD":
        assert problem_of(reply) == (404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "XYZ"])
@pytest.mark.parametrize("path", ["/healthz", "/.well-known/jwks.json"])
def test_another_method_is_405_and_options_is_one(http, path, method):
    """ER-01."""
    reply = http.open(path, method=method)
    assert problem_of(reply) == (405, "method_not_allowed")
    assert set(reply.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_a_fault_is_503_and_shows_nothing_of_itself(http, parts, capfd):
    """ER-01, ER-02."""
    parts.fault = ValueError("MARK")
    reply = http.get("/.well-known/jwks.json")
    assert problem_of(reply) == (503, "internal_error")
    parts.fault = Refusal(NO_KEY, why="MARK")
    assert problem_of(http.get("/.well-known/jwks.json")) == (503, "no_key")
    assert b"MARK" not in reply.data
    assert "MARK" not in "".join(capfd.readouterr())
