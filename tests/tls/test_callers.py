"""Every way a caller proves itself, at a real service, in real handshakes."""

import hashlib
import json
import os
import socket
import ssl
import time

import pytest
import trustme
import yaml
from cryptography.x509 import load_pem_x509_certificate
from harness import ACCESS_TOKEN, CLIENT, GRANT, ISSUER, SECRET, Idp, Key, Service, minimal, wait_for

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ID = "spiffe://example.internal/gateway"
PROXY_SECRET = "proxy-secret-for-tests"
OPEN = {"audiences": ["orders"], "sources": ["corporate-idp"]}


@pytest.fixture(scope="module")
def gateways():
    """The CA of our gateways, and another one."""
    return trustme.CA(), trustme.CA()


def issued(ca, *names, **more):
    """A certificate with the names of a gateway, key and chain in one file."""
    return ca.issue_cert(*names, **more)


def digest(certificate):
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
    return "sha256:" + hashlib.sha256(der).hexdigest()


@pytest.fixture(scope="module")
def key():
    return Key("gateway-1", "ES256")


@pytest.fixture(scope="module")
def pinned(gateways):
    return issued(gateways[1], "pinned.example.com")


@pytest.fixture(scope="module")
def provider():
    made = Idp()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory, pki, gateways, pinned, key, provider):
    """A service with TLS and one client of each kind."""
    folder = tmp_path_factory.mktemp("callers")
    (folder / "gateways.pem").write_bytes(gateways[0].cert_pem.bytes())
    (folder / "others.pem").write_bytes(gateways[1].cert_pem.bytes())
    (folder / "gateway.jwks.json").write_text(json.dumps({"keys": [key.jwk]}))
    document = yaml.safe_load(minimal(provider))
    document["listen"] = {"address": "127.0.0.1:0", "tls": pki.listen | {"ca_file": "others.pem"}}
    document["workers"] = 2
    of_proxy = "sha256:" + hashlib.sha256(PROXY_SECRET.encode()).hexdigest()
    document["proxies"] = [
        {"networks": ["127.0.0.0/8"], "secrets": [of_proxy], "certificate_header": "nginx"},
    ]
    document["clients"] |= {
        "by-name": {"auth": "tls", "ca_file": "gateways.pem", "san_dns": "gateway.example.com", "profile": "nginx"}
        | OPEN,
        "by-subject": {"auth": "tls", "ca_file": "gateways.pem", "subject_dn": "CN=gw.example.com,OU=Edge,O=Example"}
        | OPEN,
        "by-hash": {"auth": "tls", "certificates": [digest(pinned)]} | OPEN,
        "signing": {"auth": "private_key_jwt", "jwks_file": "gateway.jwks.json"} | OPEN,
        "fetched": {"auth": "private_key_jwt", "jwks_uri": provider.url} | OPEN,
        "partner": {"auth": "access_token", "source": "corporate-idp", "client_id": "partner"} | OPEN,
        "here": {"auth": "network", "networks": ["127.0.0.0/8"]} | OPEN,
        "elsewhere": {"auth": "network", "networks": ["10.0.0.0/8"], "transport": "ipsec"} | OPEN,
    }
    running = Service(folder, json.dumps(document), tls=pki.context())
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def call(service, pki, provider):
    """Exchange as a client, with this certificate, these headers and these parameters beside."""

    def call(client_id, certificate=None, headers=None, **fields):
        service.tls = pki.context(certificate)
        form = {
            "grant_type": GRANT,
            "subject_token": provider.token(),
            "subject_token_type": ACCESS_TOKEN,
            "audience": "orders",
            "client_id": client_id,
            **fields,
        }
        body = "&".join(f"{name}={value}" for name, value in form.items() if value is not None).encode()
        given = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return service.request("POST", "/token", given, body)

    return call


def told(service):
    """The reason and the facts of the last decision."""
    return service.events()[-1]


REFUSED = (401, "client_refused")


def outcome(answer):
    return answer.status, answer.json.get("error_reason", "")


def test_a_certificate_of_the_clients_ca_with_its_name_is_enough(call, service, gateways):
    """MT-01."""
    answer = call("by-name", issued(gateways[0], "gateway.example.com", "other.example.com"))
    assert answer.status == 200, told(service)
    assert service.verified(answer.json["access_token"])["client_id"] == "by-name"


def test_a_subject_is_enough_where_it_is_the_one_that_is_written(call, gateways):
    """MT-02."""
    names = {"common_name": "gw.example.com", "organization_name": "Example", "organization_unit_name": "Edge"}
    assert call("by-subject", issued(gateways[0], "x.example.com", **names)).status == 200
    wrong = names | {"organization_unit_name": "Other"}
    assert outcome(call("by-subject", issued(gateways[0], "x.example.com", **wrong))) == REFUSED


def test_a_certificate_that_is_listed_by_its_hash_is_enough(call, gateways, pinned):
    """MT-03."""
    assert call("by-hash", pinned).status == 200
    assert outcome(call("by-hash", issued(gateways[1], "pinned.example.com"))) == REFUSED


@pytest.mark.parametrize(
    "wrong", ["no certificate", "another name", "another purpose's CA", "a secret", "a certificate of our own CA"]
)
def test_everything_else_is_no_certificate_of_the_client(call, service, gateways, wrong):
    """MT-01, XC-08: a CA that is in the handshake for another purpose proves nothing here.

    Lesson 3.10 (WSO2 CVE-2025-9312: mutual TLS that also took calls without a certificate).
    """
    fields, certificate = {}, issued(gateways[0], "gateway.example.com")
    if wrong == "no certificate":
        certificate = None
    elif wrong == "another name":
        certificate = issued(gateways[0], "gateway.example.com.evil.com")
    elif wrong == "another purpose's CA":
        certificate = issued(gateways[1], "gateway.example.com")
    elif wrong == "a secret":
        fields["client_secret"] = SECRET
    else:
        certificate = issued(gateways[1], "by-name")
    assert outcome(call("by-name", certificate, **fields)) == REFUSED
    assert told(service)["client"] == "by-name"


def asked(service, context, session=None):
    """Who the service says is at the other end of one connection: its session, whether resumed, and the answer."""
    raw = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as speaking:
        head = "GET /forward-auth/by-name HTTP/1.1\r\nHost: sts\r\nConnection: close\r\n\r\n"
        speaking.sendall(head.encode())
        answer = speaking.recv(65536)
        return speaking.session, speaking.session_reused, answer


def is_known(answer):
    """The gateway is proven: what is missing is the profile's headers."""
    return b"profile_header_missing" in answer


def test_a_resumed_session_brings_the_identity_of_its_own_handshake_and_no_other(service, pki, gateways):
    """Only TLS 1.2 has sessions that can be resumed here, each in the worker that made them."""
    mine = pki.context(issued(gateways[0], "gateway.example.com"), version=ssl.TLSVersion.TLSv1_2)
    nobody = pki.context(version=ssl.TLSVersion.TLSv1_2)
    for context, known in ((mine, True), (nobody, False)):
        session, _, first = asked(service, context)
        assert is_known(first) is known, first
        answers = [asked(service, context, session) for _ in range(5)]
        answers += service.each(lambda context=context, session=session: asked(service, context, session))
        assert any(again for _, again, _ in answers)
        assert [is_known(answer) for _, _, answer in answers] == [known] * 7
    assert not is_known(asked(service, nobody)[2])


def test_at_forward_auth_the_gateways_own_certificate_is_its_proof(service, pki, gateways, provider):
    """MT-01."""
    service.tls = pki.context(issued(gateways[0], "gateway.example.com"))
    assert service.forward(provider.token(), client="by-name", X_Gateway_Secret=None).status == 200
    # whoever has a certificate is one client, and no other
    assert service.forward(provider.token(), client=CLIENT, X_Gateway_Secret=None).status == 403
    service.tls = pki.context(issued(gateways[0], "another.example.com"))
    answer = service.forward(provider.token(), client="by-name", X_Gateway_Secret=None)
    assert (answer.status, answer.headers["x-auth-reason"]) == (403, "client_refused")


def signed(key, **changes):
    good = {"iss": "signing", "sub": "signing", "aud": ISSUER, "exp": int(time.time()) + 60, "jti": os.urandom(8).hex()}
    claims = {name: value for name, value in (good | changes).items() if value is not None}
    return {"client_assertion": key.sign(claims, {"typ": None}), "client_assertion_type": ASSERTION}


def test_a_signed_assertion_is_enough_with_and_without_the_client_id(call, service, key):
    """PK-01."""
    for client_id in ("signing", None):
        answer = call(client_id, **signed(key))
        assert answer.status == 200, told(service)
        assert service.verified(answer.json["access_token"])["client_id"] == "signing"


def test_a_clients_keys_are_fetched_where_it_publishes_them(call, service, provider):
    """PK-07: and a key that is published later is found."""
    who = {"iss": "fetched", "sub": "fetched"}
    assert call("fetched", **signed(provider.ec, **who)).status == 200, told(service)
    assert outcome(call("fetched", **signed(Key("ec-1", "ES256"), **who))) == REFUSED
    assert outcome(call("fetched", **signed(Key("ec-9", "ES256"), **who))) == REFUSED


def test_an_assertion_is_good_once_whichever_worker_gets_it(call, service, key):
    """PK-05: two workers, one store."""
    used = signed(key)
    assert call("signing", **used).status == 200
    assert service.each(lambda: outcome(call("signing", **used))) == [REFUSED] * 2


def test_an_assertion_that_was_used_gets_nothing_out_of_a_warm_cache(call, service, key, provider):
    """CA-04: its mark is looked at before the cache, and the cache answers nothing for it. Lesson C.2."""
    token, used = provider.token(), signed(key)
    wait_for(lambda: call("signing", subject_token=token, **signed(key)).status == 200 and told(service)["cached"])
    assert call("signing", subject_token=token, **used).status == 200
    assert service.each(lambda: outcome(call("signing", subject_token=token, **used))) == [REFUSED] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ISSUER + "/token"},
        {"iss": "by-name"},
        {"sub": "by-name"},
        {"exp": None},
        {"exp": int(time.time()) - 1},
        {"exp": int(time.time()) + 5000},
        {"jti": None},
    ],
    ids=" ".join,
)
def test_an_assertion_that_says_something_else_is_refused(call, key, changes):
    """PK-01, PK-02, PK-03, PK-04, PK-05."""
    assert outcome(call("signing", **signed(key, **changes))) == REFUSED


def test_an_assertion_of_another_key_or_client_is_refused(call, key):
    """PK-01, PK-07."""
    assert outcome(call("signing", **signed(Key("gateway-1", "ES256")))) == REFUSED
    assert outcome(call("by-name", **signed(key))) == REFUSED
    assert outcome(call(CLIENT, **signed(key))) == REFUSED


def test_two_ways_in_one_request_are_malformed(call, key):
    """EP-03."""
    for beside in ({"client_secret": SECRET}, {}):
        headers = {} if beside else {"Authorization": "Bearer x"}
        assert outcome(call("signing", headers=headers, **signed(key), **beside)) == (400, "malformed")


def own_token(provider, **changes):
    return provider.token(**{"aud": ISSUER, "sub": "partner", "client_id": "partner", "scope": None} | changes)


def test_an_access_token_of_its_own_is_enough(call, service, provider):
    """2-legged OAuth 2.0: the client credentials grant at the third party, then `Authorization: Bearer` here."""
    for client_id in ("partner", None):
        answer = call(client_id, headers={"Authorization": f"Bearer {own_token(provider)}"})
        assert answer.status == 200, told(service)
        assert service.verified(answer.json["access_token"])["client_id"] == "partner"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "api-gateway"},
        {"aud": [ISSUER + "/token"]},
        {"sub": "alice"},
        {"client_id": "another"},
        {"client_id": None},
        {"exp": int(time.time()) - 1},
        {"nbf": int(time.time()) + 86400},  # the suite is long
        {"iss": "https://other.example.com"},
        {"nonce": "x"},
        {"cnf": {"x5t#S256": "x"}},
    ],
    ids=" ".join,
)
def test_an_access_token_that_is_not_the_clients_own_is_refused(call, provider, changes):
    """A user's token, though meant for us or issued to the same client, proves no client."""
    assert outcome(call("partner", headers={"Authorization": f"Bearer {own_token(provider, **changes)}"})) == REFUSED


def test_a_forged_access_token_is_refused(call, provider):
    token = own_token(provider)
    forged = token[:-20] + ("A" * 20)
    for text in (forged, "opaque", "", token + ",x"):
        assert outcome(call("partner", headers={"Authorization": f"Bearer {text}"})) == REFUSED
    other = Key("rsa-1", "RS256").sign(provider.claims(aud=ISSUER, sub="partner", client_id="partner"))
    assert outcome(call("partner", headers={"Authorization": f"Bearer {other}"})) == REFUSED


def test_this_host_is_the_client_until_a_forwarding_header_says_otherwise(call):
    """Whatever a proxy adds: then the peer is not the caller."""
    assert call("here").status == 200
    assert outcome(call("elsewhere")) == REFUSED
    for name in (
        "X-Gateway-Secret",
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Forwarded-Proto",
        "X-Envoy-External-Address",
    ):
        assert outcome(call("here", headers={name: "1"})) == REFUSED


@pytest.mark.parametrize("verdict", [{"X-SSL-Client-Verify": "NONE"}, {}], ids=["no certificate", "says nothing"])
def test_who_comes_through_a_configured_proxy_is_never_this_host(call, verdict):
    """The proxy's place is not its callers', though it adds no header that proxies add everywhere."""
    assert outcome(call("here", headers={"X-Gateway-Secret": PROXY_SECRET, **verdict})) == REFUSED


def test_the_metrics_say_how_long_our_own_certificate_holds(service, pki):
    service.tls = pki.context()
    lines = service.get("/metrics").body.decode().splitlines()
    left = float(next(line for line in lines if line.startswith("sts_certificate_seconds_left ")).split(" ")[1])
    pem = pki.ours.cert_chain_pems[0].bytes()
    assert left == pytest.approx(load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() - time.time(), abs=60)


def test_the_metadata_names_mutual_tls_where_there_is_tls(service):
    """MT-06, MD-03."""
    document = service.get("/.well-known/oauth-authorization-server").json
    assert {"tls_client_auth", "self_signed_tls_client_auth"} <= set(document["token_endpoint_auth_methods_supported"])
    assert document["tls_client_certificate_bound_access_tokens"] is True
    assert "none" not in document["token_endpoint_auth_signing_alg_values_supported"]


def test_the_user_of_the_unix_socket_is_the_client(tmp_path, provider, make_service):
    path = tmp_path / "sts.sock"
    document = yaml.safe_load(minimal(provider)) | {"workers": 1, "listen": f"unix:{path}"}
    document["clients"] |= {
        "sidecar": {"auth": "network", "networks": ["unix"], "uids": [os.getuid()], "profile": "nginx"} | OPEN,
        "other": {"auth": "network", "networks": ["unix"], "uids": [os.getuid() + 1], "profile": "nginx"} | OPEN,
    }
    running = make_service(json.dumps(document), unix=path)
    form = {"grant_type": GRANT, "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
    form["subject_token"] = provider.token()
    for client_id, token_status, forward_status in (("sidecar", 200, 200), ("other", 401, 403)):
        body = "&".join(f"{name}={value}" for name, value in (form | {"client_id": client_id}).items()).encode()
        given = {"Content-Type": "application/x-www-form-urlencoded"}
        assert running.request("POST", "/token", given, body).status == token_status
        assert running.forward(provider.token(), client=client_id, X_Gateway_Secret=None).status == forward_status, (
            running.events()[-1]
        )


def test_failing_client_authentication_is_limited_whatever_the_way(service, call, gateways, key, provider):
    """EP-08: and who proves itself passes all the same."""
    wrong = issued(gateways[0], "nobody.example.com")
    with service.only(min(service.workers())):  # each counts for itself
        wait_for(lambda: outcome(call("by-name", wrong))[0] == 429, every=0)
    assert call("by-name", issued(gateways[0], "gateway.example.com")).status == 200
    assert call("signing", **signed(key)).status == 200
    assert call("partner", headers={"Authorization": f"Bearer {own_token(provider)}"}).status == 200
