"""One service for the rows of docs/standards.md: an issuer with a path, three identity providers, several backends."""

import base64
import hashlib
import json
import os
import time
import urllib.parse

import jwt
import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, SECRET, Idp, Key, Service

OUR_ISSUER = "https://sts.example.internal/tenant"
NAMES = ["orders", "shop", "stock", "alone", "billing", "open"]
SHARED = {"multi": True, "scopes": ["items:read", "items:write"], "claims": {"roles": "identity.roles"}}


def source_of(provider, **changes):
    return {
        "type": "jwt",
        "issuer": provider.issuer,
        "jwks_uri": provider.url,
        "algorithms": ["RS256", "ES256"],
        "audience": ["api-gateway"],
        "audiences": ["*"],
        "namespace": "",
        "same_subjects": True,
        "identity": {
            "subject": "claims.sub",
            "scopes": "claims.scope",
            "roles": "claims.roles",
            "auth_time": "claims.auth_time",
            "acr": "claims.acr",
            "amr": "claims.amr",
        },
        **changes,
    }


def client_of(secret, **changes):
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {"auth": "secret", "secrets": [f"sha256:{digest}"], "audiences": NAMES, "sources": ["*"], **changes}


@pytest.fixture(scope="session")
def providers():
    """Providers: `login` gives ID tokens only, `strict` RFC 9068 only, `dated` limits the age, `down` always fails."""
    made = {name: Idp(f"https://{name}.example.com") for name in ("plain", "login", "strict", "dated", "down")}
    made["down"].answer = lambda handler: handler.reply(b"no", status=500)
    yield made
    for provider in made.values():
        provider.close()


@pytest.fixture(scope="session")
def signing_key():
    """The key of the client `signing-gateway`."""
    return Key("gateway-1", "ES256")


@pytest.fixture(scope="session")
def assertion(signing_key):
    """What the client `signing-gateway` proves itself with, once."""

    def sign(**changes):
        good = {"iss": "signing-gateway", "sub": "signing-gateway", "aud": OUR_ISSUER, "jti": os.urandom(8).hex()}
        form = {"client_assertion": signing_key.sign({**good, "exp": int(time.time()) + 60, **changes})}
        return form | {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}

    return sign


@pytest.fixture(scope="session")
def rfc(providers, signing_key, tmp_path_factory):
    """The service, with `ask` for a request to `/token` of exactly these parameters."""
    folder = tmp_path_factory.mktemp("rfc")
    (folder / "gateway.jwks.json").write_text(json.dumps({"keys": [signing_key.jwk]}))
    signing = {"auth": "private_key_jwt", "jwks_file": "gateway.jwks.json", "audiences": NAMES, "sources": ["*"]}
    configuration = {
        "issuer": OUR_ISSUER,
        "workers": 1,
        "clients": {
            CLIENT: client_of(SECRET, profile="nginx"),
            "signing-gateway": signing,
            "narrow": client_of("narrow-secret-for-tests-only", audiences=["shop"], default_audience="shop"),
        },
        "sources": {
            "plain": source_of(providers["plain"]),
            "login": source_of(providers["login"], token_types=["id_token"]),
            "strict": source_of(providers["strict"], typ=["at+jwt"]),
            "dated": source_of(providers["dated"], max_age="1h", max_lifetime="2h", max_auth_age="1h"),
            "down": source_of(providers["down"]),
        },
        "audiences": {
            "orders": {
                "aud": "https://orders.example.internal/api",
                "scopes": ["orders:read", "orders:write"],
                "claims": {name: f"identity.{name}" for name in ("auth_time", "acr", "amr", "roles")},
            },
            "shop": {**SHARED, "aud": "https://shop.example.internal"},
            "stock": {**SHARED, "aud": "https://stock.example.internal"},
            "alone": {"scopes": SHARED["scopes"]},
            "billing": {"scopes": ["billing:read"]},
            "open": {"ttl": "2m"},
        },
        "routes": {
            "orders": {"path": "/orders/**", "audience": "orders", "scopes": ["orders:read"]},
            "open": {"path": "/open/**", "audience": "open"},
        },
    }
    running = Service(folder, json.dumps(configuration))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="session")
def ask(rfc):
    """POST a good exchange with changes: a list repeats a parameter, None leaves it out."""

    def send(token, *, client=CLIENT, secret=SECRET, headers=None, **changes):
        form = {
            "grant_type": GRANT,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "audience": "orders",
            **changes,
        }
        pairs = [
            (name, value)
            for name, found in form.items()
            if found is not None
            for value in (found if isinstance(found, list) else [found])
        ]
        return rfc.post(pairs, headers, client=client, secret=secret)

    return send


@pytest.fixture(scope="session")
def raw(rfc):
    """Send bytes as they stand, with the client's Basic unless `headers` differ; a header of None is left out."""

    def send(body, headers=None, target="/token", method="POST"):
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        given = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": f"Basic {basic}",
            **(headers or {}),
        }
        kept = {name: value for name, value in given.items() if value is not None}
        return rfc.request(method, target, kept, body)

    return send


@pytest.fixture(scope="session")
def form():
    """A good exchange as bytes, for `raw`."""

    def encode(token, **changes):
        good = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
        return urllib.parse.urlencode({**good, **changes}).encode()

    return encode


@pytest.fixture(scope="session")
def judged(rfc):
    """The claims of a token of ours by PyJWT, which is given the key set, the issuer and the audience by name."""

    def verify(answer, audience="https://orders.example.internal/api"):
        kid = jwt.get_unverified_header(answer.token)["kid"]
        keys = jwt.PyJWKSet.from_dict(rfc.get("/.well-known/jwks.json").json)
        return jwt.decode(answer.token, keys[kid], algorithms=["ES256"], audience=audience, issuer=OUR_ISSUER)

    return verify


@pytest.fixture(scope="session")
def error_of():
    """Status, code and reason of a refusal, whose shape is RFC 6749 §5.2's and which no cache may keep."""

    def read(answer):
        assert set(answer.json) == {"error", "error_reason", "error_description"}, answer
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["pragma"] == "no-cache"
        allowed = {0x20, 0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)}
        assert set(answer.json["error_description"].encode()) <= allowed
        return answer.status, answer.json["error"], answer.reason

    return read
