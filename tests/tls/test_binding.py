"""Tokens that are bound to a certificate: what comes in needs it at every exchange, what goes out has the caller's."""

import base64
import hashlib
import json
import ssl
import subprocess
import urllib.parse

import pytest
import trustme
import yaml
from harness import CLIENT, SECRET, Idp, Service, minimal


@pytest.fixture(scope="module")
def users():
    """The CA of our users' certificates; it proves nobody here, it is only taken in handshakes."""
    return trustme.CA()


@pytest.fixture(scope="module")
def provider():
    made = Idp()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory, pki, users, provider):
    folder = tmp_path_factory.mktemp("binding")
    (folder / "users.pem").write_bytes(users.cert_pem.bytes())
    document = yaml.safe_load(minimal(provider))
    document["listen"] = {"address": "127.0.0.1:0", "tls": pki.listen | {"ca_file": "users.pem"}}
    document["workers"] = 1
    document["clients"][CLIENT] |= {"certificate_header": "nginx", "audiences": ["orders", "bound", "shared"]}
    document["clients"]["backend"] = document["clients"][CLIENT] | {
        "secrets": ["sha256:" + hashlib.sha256(b"backend-secret").hexdigest()],
        "audiences": ["orders", "bound"],
        "backend_of": ["bound"],
    }
    orders = document["audiences"]["orders"]
    document["audiences"]["bound"] = {"scopes": orders["scopes"], "bind": "caller_certificate"}
    document["audiences"]["shared"] = {"scopes": orders["scopes"], "bind": "caller_certificate", "reuse": "unique"}
    document["routes"]["bound"] = {"path": "/bound/**", "audience": "bound", "scopes": ["orders:read"]}
    running = Service(folder, json.dumps(document), tls=pki.context())
    yield running
    assert running.stop() == 0, running.log()


def pem(certificate):
    return certificate.cert_chain_pems[0].bytes().decode()


def thumbprint(certificate):
    """`x5t#S256` as openssl computes it (RFC 8705 §3.1)."""
    der = subprocess.run(
        ["openssl", "x509", "-outform", "DER"], input=pem(certificate).encode(), capture_output=True, check=True
    ).stdout
    digest = subprocess.run(["openssl", "dgst", "-sha256", "-binary"], input=der, capture_output=True, check=True)
    return base64.urlsafe_b64encode(digest.stdout).rstrip(b"=").decode()


def bound_to(certificate, **more):
    return {"cnf": {"x5t#S256": thumbprint(certificate), **more}}


@pytest.fixture
def exchange(service, pki):
    """Exchange a token with this certificate in the handshake."""

    def exchange(token, certificate=None, **fields):
        service.tls = pki.context(certificate)
        return service.exchange(token, **fields)

    return exchange


def reason(answer):
    return answer.status, answer.json.get("error_reason", "")


FAILED = (400, "binding_failed")


def test_a_bound_token_needs_its_certificate_at_the_first_exchange_and_at_every_cached_one(
    exchange, service, users, provider
):
    """MT-05, CA-05. Lesson 2.18 (Auth0 and Keycloak do not look at `cnf`)."""
    mine, other = users.issue_cert("alice@example.com"), users.issue_cert("bob@example.com")
    token = provider.token(**bound_to(mine))
    assert reason(exchange(token)) == FAILED
    assert reason(exchange(token, other)) == FAILED
    for cached in (False, True):
        assert exchange(token, mine).status == 200
        assert service.events()[-1]["cached"] is cached
    assert reason(exchange(token, other)) == FAILED
    assert reason(exchange(token)) == FAILED
    assert exchange(token, mine).status == 200


@pytest.mark.parametrize("more", [{"jkt": "x"}, {"x5t#S512": "x"}, {"kid": "x"}])
def test_a_binding_that_cannot_be_checked_whole_is_refused(exchange, users, provider, more):
    """CN-01, DP-08, DP-10."""
    mine = users.issue_cert("alice@example.com")
    assert reason(exchange(provider.token(**bound_to(mine, **more)), mine)) == FAILED
    assert reason(exchange(provider.token(cnf=more), mine)) == FAILED
    assert reason(exchange(provider.token(cnf={}), mine)) == FAILED


def test_the_binding_of_what_came_in_is_never_copied(exchange, service, users, provider):
    """CN-02. Lesson 2.18."""
    mine = users.issue_cert("alice@example.com")
    answer = exchange(provider.token(**bound_to(mine)), mine)
    assert "cnf" not in service.verified(answer.json["access_token"])


def test_an_audience_binds_its_tokens_to_the_callers_own_certificate(exchange, service, users, provider):
    """MT-04, CN-02: whatever the inbound token says, and each caller's its own."""
    one, other = users.issue_cert("gateway-1.example.com"), users.issue_cert("gateway-2.example.com")
    token = provider.token()
    for certificate in (one, other, one):
        answer = exchange(token, certificate, audience="bound")
        claims = service.verified(answer.json["access_token"], "bound")
        assert claims["cnf"] == {"x5t#S256": thumbprint(certificate)}
    assert service.events()[-1]["cached"] is True


def test_a_caller_without_a_certificate_gets_no_token_that_anybody_may_use(exchange, provider):
    """MT-04."""
    assert reason(exchange(provider.token(), audience="bound")) == FAILED
    assert reason(exchange(provider.token(), audience="shared")) == FAILED


def test_a_token_of_ours_that_is_bound_is_exchanged_again_only_by_the_certificates_holder(
    exchange, service, pki, users, provider
):
    """MT-05: the backend that received it has another key, so it cannot pass it on as its own."""
    gateway, backend = users.issue_cert("gateway.example.com"), users.issue_cert("backend.example.com")
    token = exchange(provider.token(), gateway, audience="bound").json["access_token"]
    for certificate, expected in ((None, FAILED), (backend, FAILED), (gateway, (200, ""))):
        service.tls = pki.context(certificate)
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": "orders",
        }
        assert reason(service.post(form, client="backend", secret="backend-secret")) == expected


def test_a_backend_that_asks_about_a_bound_token_is_told_its_binding(exchange, service, users, provider):
    """MT-07."""
    gateway = users.issue_cert("gateway.example.com")
    token = exchange(provider.token(), gateway, audience="bound").json["access_token"]
    given = base64.b64encode(b"backend:backend-secret").decode()
    answer = service.request(
        *("POST", "/introspect"),
        {"Authorization": f"Basic {given}", "Content-Type": "application/x-www-form-urlencoded"},
        f"token={token}".encode(),
    )
    assert answer.json["active"] is True
    assert answer.json["cnf"] == {"x5t#S256": thumbprint(gateway)}


def handed_on(certificate, verify="SUCCESS"):
    escaped = urllib.parse.quote(pem(certificate), safe="")
    return {"X_SSL_Client_Cert": escaped, "X_SSL_Client_Verify": verify}


def test_at_forward_auth_it_is_the_users_certificate_that_the_gateway_hands_on(service, pki, users, provider):
    """MT-05, CC-03."""
    mine, other, gateway = (users.issue_cert(f"{name}@example.com") for name in ("alice", "bob", "gateway"))
    token = provider.token(**bound_to(mine))
    service.tls = pki.context()
    for _ in range(2):
        assert service.forward(token, **handed_on(mine)).status == 200
        for headers in ({}, handed_on(other), {"X_SSL_Client_Verify": "NONE"}):
            answer = service.forward(token, **headers)
            assert (answer.status, answer.headers["x-auth-reason"]) == (401, "invalid_credential")
            assert service.events()[-1]["reason"] == "binding_failed"
    # the gateway's own connection is no proof of what its users hold
    service.tls = pki.context(mine)
    assert service.forward(token).status == 401
    service.tls = pki.context(gateway)
    assert service.forward(token, **handed_on(mine)).status == 200


def test_at_forward_auth_too_the_minted_token_is_bound_to_the_gateway_and_not_to_its_user(
    service, pki, users, provider
):
    """CN-02."""
    user, gateway = users.issue_cert("alice@example.com"), users.issue_cert("gateway.example.com")
    service.tls = pki.context(gateway)
    answer = service.forward(provider.token(**bound_to(user)), uri="/bound/1", **handed_on(user))
    assert answer.status == 200
    token = answer.headers["authorization"].removeprefix("Bearer ")
    assert service.verified(token, "bound")["cnf"] == {"x5t#S256": thumbprint(gateway)}
    service.tls = pki.context()
    answer = service.forward(provider.token(**bound_to(user)), uri="/bound/1", **handed_on(user))
    assert (answer.status, service.events()[-1]["reason"]) == (401, "binding_failed")


def test_a_certificate_header_from_who_may_send_none_is_refused(service, pki, users, provider):
    """CC-03."""
    mine = users.issue_cert("alice@example.com")
    token = provider.token(**bound_to(mine))
    service.tls = pki.context()
    escaped = urllib.parse.quote(pem(mine), safe="")
    der = base64.b64encode(ssl.PEM_cert_to_DER_cert(pem(mine))).decode()
    for name, value in (
        ("X-SSL-Client-Cert", escaped),
        ("Client-Cert", f":{der}:"),
        ("X-Forwarded-Client-Cert", f"Cert={escaped}"),
    ):
        form = {"grant_type": "x", "subject_token": token}
        assert reason(service.post(form, {name: value, "X-SSL-Client-Verify": "SUCCESS"})) == (400, "malformed")
    assert SECRET not in service.log()
