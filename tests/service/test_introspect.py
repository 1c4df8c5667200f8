"""`POST /introspect` over real sockets: who may ask about which token, and what is answered; authlib asks too."""

import base64
import hashlib
import json
import subprocess
import sys
import time

import pytest
import yaml
from authlib.integrations.requests_client import OAuth2Session
from harness import CLIENT, ISSUER, SECRET, Key, Service, b64, decoded, in_time, minimal, wait_for
from recipient import Pair, jwks

BACKENDS = {
    "orders-service": ["orders"],
    "billing-service": ["billing"],
    "both-service": ["orders", "stock"],
    "none": [],
}
INACTIVE = {"active": False}


def secret_of(client):
    return f"{client}-secret-for-tests-only"


def configuration(idp, recipient):
    document = yaml.safe_load(minimal(idp))
    for name, audiences in BACKENDS.items():
        digest = hashlib.sha256(secret_of(name).encode()).hexdigest()
        document["clients"][name] = {
            "auth": "secret",
            "secrets": [f"sha256:{digest}"],
            "backend_of": audiences,
            "audiences": [],
            "sources": [],
        }
    orders = document["audiences"]["orders"]
    orders.update({"aud": "https://orders.example.internal", "multi": True})
    orders["claims"] = {**orders["claims"], "active": "false", "username": "identity.subject"}
    document["audiences"]["stock"] = {**orders, "aud": "https://stock.example.internal"}
    document["audiences"]["sealed"] = {
        "format": "jwe",
        "scopes": ["orders:read"],
        "encryption": {"jwks_file": str(recipient), "alg": "ECDH-ES", "enc": "A256GCM"},
    }
    document["clients"]["both-service"]["backend_of"].append("sealed")
    document["clients"][CLIENT]["audiences"] = ["*"]
    document["workers"] = 1
    return document


@pytest.fixture(scope="module")
def recipient():
    """The backend of the audience whose tokens are encrypted."""
    return Pair()


@pytest.fixture(scope="module")
def document(idp, recipient, tmp_path_factory):
    file = tmp_path_factory.mktemp("recipient") / "jwks.json"
    file.write_text(json.dumps(jwks(recipient)))
    return configuration(idp, file)


@pytest.fixture(scope="module")
def backends(document, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("introspect"), json.dumps(document))
    yield running
    assert running.stop() == 0, running.log()


def ask(service, token, client="orders-service", secret=None, path="/introspect", **form):
    """Ask about a token as a backend does."""
    basic = base64.b64encode(f"{client}:{secret or secret_of(client)}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    fields = {"token": token, **form}
    body = "&".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    return service.request("POST", path, headers, body.encode())


def test_a_backend_learns_exactly_the_claims_of_its_token(backends, idp):
    token = backends.exchange(idp.token()).token
    answer = ask(backends, token)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    claims = backends.verified(token, "https://orders.example.internal")
    assert claims["active"] == "false" or claims["active"] is False  # a mapped claim says so, and is overruled
    assert answer.json == {**claims, "active": True, "token_type": "Bearer"}
    assert answer.json["act"] == {"sub": CLIENT, "iss": ISSUER}
    assert answer.json["username"] == "alice"


def test_a_forward_auth_token_is_the_same_to_its_backend(backends, idp):
    assert ask(backends, backends.forward(idp.token()).token).json["sub"] == "alice"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_introspects_with_each_published_method(backends, idp, method):
    metadata = backends.get("/.well-known/oauth-authorization-server").json
    assert metadata["introspection_endpoint"] == f"{ISSUER}/introspect"
    assert method in metadata["introspection_endpoint_auth_methods_supported"]
    with OAuth2Session("orders-service", secret_of("orders-service"), token_endpoint_auth_method=method) as session:
        url = metadata["introspection_endpoint"].replace(ISSUER, f"http://127.0.0.1:{backends.port}")
        answer = session.introspect_token(url, backends.exchange(idp.token()).token, token_type_hint="access_token")
        assert answer.json()["active"] is True
        assert session.introspect_token(url, "made-up").json() == INACTIVE


@pytest.mark.parametrize("client", ["billing-service", "none", CLIENT])
def test_nobody_but_the_backend_of_the_audience_learns_anything(backends, idp, client):
    """Lesson 2.7 (CVE-2026-37979 Keycloak)."""
    token = backends.exchange(idp.token()).token
    secret = SECRET if client == CLIENT else None
    answer = ask(backends, token, client, secret)
    assert answer.body == ask(backends, "made-up", client, secret).body
    assert answer.json == INACTIVE
    assert ask(backends, token).json["active"] is True


def test_a_token_for_two_audiences_needs_the_backend_of_both(backends, idp):
    form = [("audience", "orders"), ("audience", "stock")]
    form += [("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"), ("subject_token", idp.token())]
    form += [("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")]
    token = backends.post(form).token
    assert len(decoded(token)[1]["aud"]) == 2
    assert ask(backends, token, "orders-service").json == INACTIVE
    assert ask(backends, token, "both-service").json["active"] is True


def changed(token, **changes):
    """The token with claims changed under its old signature."""
    header, _, signature = token.split(".")
    return f"{header}.{b64({**decoded(token)[1], **changes})}.{signature}"


def test_what_is_no_live_token_of_ours_is_not_active(backends, idp):
    """Lesson 3.3 (WSO2-2020-0752: introspection did not verify the signature)."""
    token = backends.exchange(idp.token()).token
    header, claims = decoded(token)
    other = Key("other", "ES256")
    for dead in (
        idp.token(),  # another issuer's
        idp.token(**claims),  # ours by its claims, signed by another
        changed(token, aud=["https://orders.example.internal"]),
        changed(token, exp=claims["exp"] + 100),
        token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        token.rpartition(".")[0] + ".",
        f"{b64({'alg': 'none', 'typ': 'at+jwt'})}.{b64(claims)}.",
        other.sign(claims, {**header, "kid": header["kid"]}),
        other.sign(claims, {**header, "kid": "unknown"}),
        other.sign(claims, {**header, "kid": None, "jwk": other.jwk}),
        "x",
        "a.b.c",
        "x" * 60_000,
        "%C3%A9",
    ):
        answer = ask(backends, dead)
        assert (answer.status, answer.json) == (200, INACTIVE), dead
    assert ask(backends, token).json["active"] is True


def test_a_token_that_has_ended_is_not_active(backends, idp):

    def active(seconds):
        answer = backends.exchange(idp.token(exp=int(time.time()) + seconds))
        return answer.token if answer.status == 200 and ask(backends, answer.token).json["active"] else None

    token = in_time(active)
    time.sleep(max(0.0, decoded(token)[1]["exp"] - time.time()) + 0.05)
    assert ask(backends, token).json == INACTIVE


def test_an_encrypted_token_and_what_is_inside_are_not_active(backends, idp, recipient):
    token = backends.exchange(idp.token(), "sealed").token
    inner = recipient.decrypt(token)[1]
    assert decoded(inner)[1]["aud"] == "sealed"
    for one in (token, inner):
        assert ask(backends, one, "both-service").json == INACTIVE


def test_a_wrong_secret_is_refused_as_at_the_token_endpoint(backends, idp):
    token = backends.exchange(idp.token()).token
    answer = ask(backends, token, secret="wrong")
    assert (answer.status, answer.json["error"], answer.reason) == (401, "invalid_client", "client_refused")
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert ask(backends, token, "nobody", "wrong").body == answer.body


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"token": None}, 400, "invalid_request"),
        ({"token": ""}, 400, "invalid_request"),
        ({"token": "a&token=b"}, 400, "invalid_request"),
        ({"path": "/introspect?token=a"}, 400, "invalid_request"),
    ],
)
def test_the_form_is_read_as_strictly_as_at_the_token_endpoint(backends, change, status, error):
    answer = ask(backends, **{"token": "a", **change})
    assert (answer.status, answer.json["error"]) == (status, error)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS", "DELETE"])
def test_other_methods_are_told_which_one_there_is(backends, method):
    answer = backends.request(method, "/introspect")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_other_content_types_and_large_bodies_are_refused(backends):
    assert backends.request("POST", "/introspect", {"Content-Type": "application/json"}, b"{}").status == 415
    assert ask(backends, "x" * 70_000).status == 413


@pytest.mark.parametrize("path", ["/introspect/", "//introspect", "/Introspect", "/introspect%2F", "/a/introspect"])
def test_other_spellings_of_the_path_are_not_there(backends, path):
    assert backends.request("POST", path, {"Content-Type": "application/x-www-form-urlencoded"}, b"").status == 404


def test_each_question_leaves_one_event_and_no_token(backends, idp):
    token = backends.exchange(idp.token()).token
    before = len(backends.events())
    ask(backends, token)
    ask(backends, token, "billing-service")
    ask(backends, token, "nobody", "wrong")
    active, inactive, refused = backends.events()[before:]
    assert {event["event"] for event in (active, inactive, refused)} == {"introspection"}
    assert (active["outcome"], active["reason"], active["client"]) == ("active", None, "orders-service")
    assert (active["audiences"], active["jti"]) == (["orders"], decoded(token)[1]["jti"])
    assert active["subject_hash"].startswith("hmac:")
    assert active["credential_hash"] == inactive["credential_hash"]
    assert (inactive["outcome"], inactive["reason"]) == ("inactive", "audience_mismatch")
    assert inactive["jti"] is inactive["subject_hash"] is None
    assert (refused["outcome"], refused["reason"], refused["client"]) == ("refused", "client_refused", None)
    assert refused["facts"]["client_hash"].startswith("hmac:")
    written = backends.audit_file.read_text(encoding="utf-8") + backends.log()
    assert token.split(".")[1] not in written
    assert "alice" not in written
    found = backends.get("/metrics").body.decode()
    for outcome in ("active", "inactive", "refused"):
        assert f'sts_introspection_answers_total{{outcome="{outcome}"}}' in found


def test_failed_authentication_is_limited_here_too(make_service, document):
    service = make_service(json.dumps(document))
    assert ask(service, "x", secret="wrong").status == 401
    wait_for(lambda: ask(service, "x", secret="wrong").status == 429, every=0)
    assert ask(service, "x").status == 200  # right credentials always pass


def test_a_disabled_audience_has_no_active_tokens_and_a_disabled_client_may_not_ask(make_service, document, idp):
    changed = json.loads(json.dumps(document))
    service = make_service(json.dumps(changed))
    token = service.exchange(idp.token()).token
    assert ask(service, token).json["active"] is True
    changed["audiences"]["orders"]["enabled"] = False
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    assert ask(service, token).json == INACTIVE
    changed["audiences"]["orders"]["enabled"] = True
    changed["clients"]["orders-service"]["enabled"] = False
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    assert ask(service, token).status == 401


@pytest.mark.parametrize(("section", "name"), [("clients", CLIENT), ("sources", "corporate-idp")])
def test_what_a_disabled_client_or_source_has_made_is_active_no_more(make_service, document, idp, section, name):
    """Lesson 2.6."""
    changed = json.loads(json.dumps(document))
    service = make_service(json.dumps(changed))
    token = service.exchange(idp.token()).token
    assert ask(service, token).json["active"] is True
    changed[section][name]["enabled"] = False
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    assert ask(service, token).json == INACTIVE
    assert service.events()[-1]["reason"] == "revoked"


def test_an_issuer_with_a_path_serves_it_where_its_metadata_say(make_service, document):
    changed = {**document, "issuer": f"{ISSUER}/a"}
    service = make_service(json.dumps(changed))
    named = service.get("/.well-known/oauth-authorization-server/a").json["introspection_endpoint"]
    assert named == f"{ISSUER}/a/introspect"
    for path in ("/a/introspect", "/introspect"):
        assert ask(service, "x", path=path).json == INACTIVE


@pytest.mark.parametrize("what", ["--jti", "--subject", "--client", "--source", "--credential"])
def test_a_revoked_token_is_not_active(make_service, document, idp, what):
    """RV-06: whatever it was revoked by, on every worker, and no other token with it."""
    service = make_service(json.dumps(document))
    token, other = service.exchange(idp.token(sub="mallory")).token, service.exchange(idp.token()).token
    claims = decoded(token)[1]
    named = {
        "--jti": claims["jti"],
        "--subject": "mallory",
        "--client": CLIENT,
        "--source": "corporate-idp",
        "--credential": "-",
    }[what]
    time.sleep(max(0.0, claims["iat"] + 1 - time.time()))  # a revocation concerns what is no younger than itself
    command = [sys.executable, "-m", "sts", "revoke", what, named, "-c", str(service.file)]
    done = subprocess.run(command, input=token, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: ask(service, token).json == INACTIVE)
    wider = what in {"--client", "--source"}
    assert ask(service, other).json["active"] is not wider
    assert next(event for event in reversed(service.events()) if event["reason"])["reason"] == "revoked"


def test_a_revocation_list_that_is_too_old_answers_nothing(make_service, document, idp):
    """An outage of ours is 503, and never "not active"."""
    service = make_service(json.dumps({**document, "state": {"max_stale": "5s"}}))
    token = service.exchange(idp.token()).token
    assert ask(service, token).json["active"] is True
    for file in (service.directory / "var").glob("state.db*"):
        file.write_bytes(b"no database" * 1000)
    answer = wait_for(lambda: found if (found := ask(service, token)).status != 200 else None)
    assert (answer.status, answer.reason) == (503, "state_unavailable")
    assert int(answer.headers["retry-after"]) > 0
