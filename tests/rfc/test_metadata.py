"""RFC 8414 and RFC 7517: what the service publishes about itself, read as clients and verifiers read it."""

import hashlib
import json

import jwt
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from harness import CLIENT, SECRET, b64, decoded, minimal

OUR_ISSUER = "https://sts.example.internal/tenant"
SERVER = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}


def test_the_metadata_stands_where_both_rules_look_for_it(rfc):
    """MD-01, MD-06: byte for byte, whether or not a gateway in front cuts the issuer's path off."""
    inserted = get_well_known_url(OUR_ISSUER, external=False)
    assert inserted == f"{SERVER}/tenant"
    pages = [
        rfc.get(path) for path in (inserted, f"/tenant{OPENID}", SERVER, OPENID, f"{OPENID}/tenant", f"/tenant{SERVER}")
    ]
    assert {page.status for page in pages} == {200}
    assert len({page.body for page in pages}) == 1
    assert len({page.headers["etag"] for page in pages}) == 1
    assert rfc.get(f"{SERVER}/other").status == 404


def test_the_issuer_is_the_configured_one_and_that_of_every_token(rfc, ask, providers):
    """MD-02."""
    page = rfc.get(SERVER)
    assert (page.status, page.headers["content-type"]) == (200, "application/json")
    assert page.json["issuer"] == OUR_ISSUER
    assert decoded(ask(providers["plain"].token()).token)[1]["iss"] == OUR_ISSUER
    for name in ("issuer", "token_endpoint", "jwks_uri"):
        assert page.json[name].startswith(OUR_ISSUER)


def test_authlib_finds_the_metadata_in_order(rfc):
    """MD-02, MD-03, MD-04, MD-05."""
    AuthorizationServerMetadata(rfc.get(SERVER).json).validate()


METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
ALGORITHMS = sorted(
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
)


def test_the_metadata_is_exactly_what_is_built(rfc):
    """MD-03, MD-04, MD-05: no front channel, nothing empty, nothing promised."""
    document = rfc.get(SERVER).json
    assert document == {
        "issuer": OUR_ISSUER,
        "token_endpoint": f"{OUR_ISSUER}/token",
        "jwks_uri": f"{OUR_ISSUER}/.well-known/jwks.json",
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": METHODS,
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_endpoint": f"{OUR_ISSUER}/introspect",
        "introspection_endpoint_auth_methods_supported": METHODS,
        "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
    }
    assert "authorization_endpoint" not in document
    assert [] not in document.values()


def test_every_authentication_method_that_is_published_works(rfc, raw, form, ask, providers, assertion):
    """MD-03, EP-05."""
    token = providers["plain"].token()
    works = {
        "client_secret_basic": lambda: ask(token),
        "private_key_jwt": lambda: raw(form(token, **assertion()), {"Authorization": None}),
        "client_secret_post": lambda: raw(form(token, client_id=CLIENT, client_secret=SECRET), {"Authorization": None}),
    }
    for method in rfc.get(SERVER).json["token_endpoint_auth_methods_supported"]:
        assert works.pop(method)().status == 200
    assert not works


@pytest.mark.parametrize("path", [SERVER, OPENID, JWKS])
def test_public_documents_may_be_cached_revalidated_and_read_across_origins(rfc, path):
    """MD-08. Lesson C.4 (Keycloak #15216: polled every second)."""
    page = rfc.get(path)
    assert page.headers["cache-control"] == "public, max-age=300"
    assert page.headers["access-control-allow-origin"] == "*"
    assert page.headers["etag"].startswith('"')
    again = rfc.get(path, {"If-None-Match": page.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert rfc.get(path, {"If-None-Match": '"other"'}).status == 200
    for method in ("POST", "PUT", "OPTIONS"):
        assert rfc.request(method, path).status == 405


def test_the_key_set_is_a_set_of_public_signing_keys(rfc):
    """JK-01, JK-02, JK-03, JK-04."""
    page = rfc.get(JWKS)
    assert page.headers["content-type"] == "application/jwk-set+json"
    assert set(page.json) == {"keys"}
    keys = page.json["keys"]
    assert len({key["kid"] for key in keys}) == len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert PRIVATE.isdisjoint(key)
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
        assert jwt.PyJWK(key).key_type == "EC"


def test_a_kid_is_the_thumbprint_of_its_key(rfc):
    """JW-33, JK-02: RFC 7638 §3, computed here by hand."""
    for key in rfc.jwks()["keys"]:
        required = json.dumps(
            {name: key[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"), sort_keys=True
        )
        assert key["kid"] == b64(hashlib.sha256(required.encode()).digest())


def test_the_document_holds_no_certificates(rfc):
    """JK-05: nothing that could say something else than the key."""
    assert not any(name.startswith("x5") for key in rfc.jwks()["keys"] for name in key)


def test_a_verifier_that_starts_from_the_issuer_alone_reaches_the_keys(rfc, ask, providers):
    """MD-01, MD-06, JK-01: discovery, key set, verification, by PyJWT."""
    metadata = rfc.get(f"/tenant{OPENID}").json
    keys = rfc.get(metadata["jwks_uri"].removeprefix("https://sts.example.internal")).json
    token = ask(providers["plain"].token()).token
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["ES256"], issuer=metadata["issuer"], audience="https://orders.example.internal/api"
    )
    assert claims["sub"] == "alice"


def test_an_issuer_with_a_path_serves_the_token_endpoint_that_its_metadata_name(make_service, idp):
    """MD-03: with the path, as the metadata say, and without it, for a gateway that cuts it off."""
    service = make_service(minimal(idp, **{"https://sts.example.internal": "https://sts.example.internal/a"}))
    named = service.get("/.well-known/oauth-authorization-server/a").json["token_endpoint"]
    assert named == "https://sts.example.internal/a/token"
    for path in ("/a/token", "/token"):
        assert service.request("POST", path, {"Content-Type": "text/plain"}, b"x").status == 415
    assert service.request("POST", "/a/tokens").status == 404
    assert service.request("POST", "/b/token").status == 404
