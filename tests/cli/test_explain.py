"""`sts explain`: the pipeline itself walks, and says what each step made of the credential."""

import base64
import hashlib
import json
import socket
import subprocess
import sys
import time

import pytest
import yaml
from harness import IDP, Key, decoded, free_port, minimal
from pki import Authority
from recipient import Pair, jwks

from sts.jose import import_encryption_jwk

STEPS = [
    "edge: the request is read",
    "client: taken as proven (its secret is not asked for)",
    "edge: what is asked",
    "policy: which audiences",
    "credential: which source",
    "policy: consent",
    "credential: proven",
    "credential: audience, expiry, age, binding",
    "policy: identity",
    "policy: decision",
    "mint: the token would hold",
    "edge: the answer",
]
REQUEST = "GET https://api.example.com/orders/7"


@pytest.fixture
def explain(sts, offline, monkeypatch):
    """Explain a token with nothing but the configuration and the issuer's keys in a file: no network."""

    def refused(*_):
        raise AssertionError("something was to be fetched")

    def explain(token, *arguments, status=0):
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "connect", refused)
            result = sts("explain", "-c", offline, *arguments, input=token)
        assert result.exit_code == status, result.output
        return result.stdout

    return explain


def titles(text):
    return [line[2:].partition(":")[0] + ":" + line.split(":")[1] for line in text.splitlines() if line[0] in "✓✗"]


def test_every_step_is_told_in_order(explain, idp):
    text = explain(idp.token(), "--audience", "orders")
    assert titles(text) == STEPS
    assert "✗" not in text
    for told in (
        "tenant: agency-7   ← claims.agency_id",
        "scopes: orders:read orders:write",
        "ttl: 5m",
        "fresh until: no age limit",
    ):
        assert told in text


@pytest.mark.parametrize("arguments", [["--audience", "orders"], ["--audience", "orders", "--scope", "orders:read"]])
def test_the_token_would_hold_what_the_service_mints(explain, service, idp, arguments):
    token = idp.token()
    steps = {step["step"]: step["facts"] for step in json.loads(explain(token, *arguments, "--json"))}
    header, claims = decoded(service.exchange(token, scope=arguments[3] if len(arguments) > 2 else None).token)
    explained = steps["mint: the token would hold"]
    for one in (claims, explained["claims"]):
        assert {one.pop(name) and name for name in ("jti", "iat", "exp")} == {"jti", "iat", "exp"}
    assert explained["claims"] == claims
    assert {**explained["header"], "kid": header["kid"]} == header


def test_a_request_line_is_walked_like_the_gateways_question(explain, service, idp):
    token = idp.token()
    steps = {step["step"]: step["facts"] for step in json.loads(explain(token, "--request", REQUEST, "--json"))}
    assert list(steps) == STEPS
    assert steps["edge: what is asked"]["route"] == "orders-read"
    answer = service.forward(token)
    assert steps["mint: the token would hold"]["claims"]["scope"] == decoded(answer.token)[1]["scope"]
    header = steps["policy: decision"]["header X-User-ID"]
    assert header == f"{answer.headers['x-user-id']}   ← identity.subject"


def test_a_file_and_standard_input_are_the_same(explain, sts, offline, idp, tmp_path):
    file = tmp_path / "inbound.jwt"
    file.write_text(idp.token() + "\n")
    of_file = sts("explain", "-c", offline, "--audience", "orders", file).stdout
    of_input = explain(file.read_text(), "--audience", "orders", "-")
    assert titles(of_file) == titles(of_input) == STEPS


def test_an_open_route_needs_no_credential(explain):
    text = explain("", "--request", "GET https://api.example.com/health?x=1#part")
    assert titles(text) == [*STEPS[:3], STEPS[-1]]
    assert "token: none, the route is open" in text


@pytest.mark.parametrize(
    ("changes", "arguments", "step", "reason"),
    [
        ({}, ["--audience", "nowhere"], "policy: which audiences", "no_consent"),
        ({}, ["--audience", "orders", "--type", "id_token"], "credential: which source", "bad_type"),
        ({}, ["--audience", "orders", "--type", "urn:x:saml"], "credential: which source", "bad_type"),
        ({}, ["--audience", "orders", "--scope", "a b c"], "policy: decision", "insufficient_scope"),
        ({"iss": "https://evil.example"}, ["--audience", "orders"], "credential: which source", "unknown_issuer"),
        ({"exp": 1}, ["--audience", "orders"], "credential: proven", "expired"),
        ({"aud": "other"}, ["--audience", "orders"], "credential: audience, expiry, age, binding", "audience_mismatch"),
        ({"sub": None}, ["--audience", "orders"], "policy: identity", "no_mapping"),
        ({"sub": "edge-gateway"}, ["--audience", "orders"], "policy: decision", "subject_collision"),
        ({"roles": ["clerk"]}, ["--audience", "billing"], "policy: decision", "not_allowed"),
        ({"agency_id": "x" * 4000}, ["--audience", "orders"], "mint: the token would hold", "token_too_large"),
        ({"agency_id": "ü"}, ["--request", REQUEST], "policy: decision", "unsafe_header_value"),
        ({}, ["--request", "DELETE https://api.example.com/health/x"], "edge: what is asked", "no_route"),
        ({}, ["--request", "GET https://api.example.com/orders/%2e%2e/x"], "edge: what is asked", "ambiguous_path"),
    ],
)
def test_a_refusal_names_its_step_and_its_reason_and_ends_with_1(explain, idp, changes, arguments, step, reason):
    token = idp.token(**changes)
    text = explain(token, *arguments, status=1)
    assert titles(text) == STEPS[: STEPS.index(step) + 1]
    (refused,) = (line for line in text.splitlines() if line.startswith("✗"))
    assert refused.startswith(f"✗ {step}: {reason}. ")
    *_, last = json.loads(explain(token, *arguments, "--json", status=1))
    assert (last["step"], last["refused"]) == (step, reason)
    assert token not in text


def test_a_credential_of_no_source_is_shown_unverified_beside_the_issuers_that_are_known(explain, idp):
    token = idp.token(iss="https://evil.example", sub="a\x1b[31m")
    text = explain(token, "--audience", "orders", status=1)
    refused = text.partition("✗ credential: which source: unknown_issuer")[2]
    assert '    unverified header: {"alg": ' in refused
    assert '    unverified claims: {"iss": "https://evil.example", ' in refused
    assert f"    configured issuers: {IDP}\n" in refused
    assert "\x1b" not in text
    assert token.rpartition(".")[2] not in text
    *_, last = json.loads(explain(token, "--audience", "orders", "--json", status=1))
    assert last["hints"]["unverified claims"]["iss"] == "https://evil.example"
    assert "unverified" not in json.dumps(last["facts"])


@pytest.mark.parametrize("wrong", ["Bearer {}", "opaque", "a.b.c.d.e"])
def test_what_is_no_jwt_is_said_to_be_none(explain, idp, wrong):
    text = explain(wrong.format(idp.token()), "--audience", "orders", status=1)
    told = 'not a JWT (three base64url parts); if it begins with "Bearer ", leave that out'
    assert f"    credential: {told}\n    configured issuers: {IDP}\n" in text
    assert "unverified" not in text


def test_other_refusals_show_nothing_unverified(explain, idp):
    assert "unverified" not in explain(idp.token(aud="other"), "--audience", "orders", status=1)


def test_a_forged_token_is_refused_where_it_is_proven(explain, idp):
    text = explain(idp.token(Key("rsa-1")), "--audience", "orders", status=1)
    assert "✗ credential: proven: bad_signature" in text


@pytest.mark.parametrize(
    ("token", "arguments", "told"),
    [
        ("", ["--audience", "orders"], "✗ edge: what is asked: missing_credential"),
        ("", ["--request", REQUEST], "✗ edge: what is asked: missing_credential"),
        ("two words", ["--request", REQUEST], "✗ edge: what is asked: malformed"),
        ("x" * 70_000, ["--audience", "orders"], "✗ edge: the request is read: too_large"),
        ("x.y.z", ["--audience", "\udcff"], "✗ edge: the request is read: malformed"),
    ],
)
def test_what_is_no_credential_is_refused_as_the_door_would(explain, token, arguments, told):
    assert told in explain(token, *arguments, status=1)


@pytest.mark.parametrize("given", [b"\xff\xfe\x00", b"x" * 1_100_000])
def test_what_cannot_be_read_at_all_is_one_line(sts, offline, given):
    result = sts("explain", "-c", offline, "--audience", "orders", input=given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("sts: the credential is ")


def test_nothing_is_needed_in_var_and_nothing_is_stored(explain, idp, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    explain(idp.token(), "--audience", "orders")
    explain(idp.token(exp=1), "--request", REQUEST, status=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_issuers_keys_are_fetched_where_they_are_published(sts, configure, idp):
    config = configure(lambda document: document["sources"]["corporate-idp"].update(jwks_uri=idp.url))
    result = sts("explain", "-c", config, "--audience", "orders", input=idp.token())
    assert (result.exit_code, titles(result.stdout)) == (0, STEPS)


def test_an_issuer_that_cannot_be_reached_is_told_so(sts, configure, idp):
    nobody = f"http://127.0.0.1:{free_port()}/jwks"
    config = configure(lambda document: document["sources"]["corporate-idp"].update(jwks_uri=nobody))
    result = sts("explain", "-c", config, "--audience", "orders", input=idp.token())
    assert result.exit_code == 3
    assert "✗ credential: proven: source_unreachable" in result.stdout


def test_the_client_is_named_where_there_are_several(sts, configure):
    def another(document):
        other = {**document["clients"]["edge-gateway"], "secrets": ["sha256:" + "ab" * 32]}
        document["clients"]["other"] = {**other, "enabled": False, "networks": ["10.0.0.0/8"]}
        del document["clients"]["other"]["profile"]

    config = configure(another)
    asked = ("explain", "-c", config, "--audience", "orders")
    assert (sts(*asked, input="x").exit_code, "There are 2 clients" in sts(*asked, input="x").stderr) == (2, True)
    disabled = sts(*asked, "--client", "other", input="x")
    assert disabled.exit_code == 1
    assert "✗ client: taken as proven (its secret is not asked for): client_refused" in disabled.stdout
    assert "client is disabled" in disabled.stdout
    no_door = sts("explain", "-c", config, "--request", REQUEST, "--client", "other", input="x")
    assert (no_door.exit_code, no_door.stdout) == (1, "")
    assert "no profile" in no_door.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--audience", "orders", "--request", REQUEST],
        ["--audience", "orders", "--client", "nobody"],
        ["--request", "GET"],
        ["--request", "GET /orders/7"],
        ["--request", " https://api.example.com/"],
        ["--request", "GET https://[/"],
        ["--audience", "orders", "no-such-file"],
        ["--audience", "orders", "--ip", "192.0.2.7"],
        ["--request", REQUEST, "--ip", "10.0.0.0/8"],
    ],
)
def test_a_faulty_command_line_is_told_with_status_2(sts, offline, arguments):
    result = sts("explain", "-c", offline, *arguments, input="x")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_faulty_configuration_is_listed(sts, configure):
    config = configure(lambda document: document["audiences"]["orders"].update(tttl="5m"))
    result = sts("explain", "-c", config, "--audience", "orders", input="x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "audiences.orders.tttl" in result.stderr


def test_no_claim_can_speak_to_the_terminal(explain, idp):
    text = explain(idp.token(sub="a\x1b[31m\u202eb", roles=["\x07"]), "--audience", "orders")
    assert {"\x1b", "\u202e", "\x07"}.isdisjoint(text)


def test_a_host_that_looks_like_the_scheme_is_read_rightly(explain, idp):
    text = explain(idp.token(), "--request", "GET https://s/orders/7", status=1)
    assert "no_route" in text


WAYS = {
    "private_key_jwt": {"jwks_file": "idp.jwks.json"},
    "tls": {"ca_file": "ca.pem", "san_uri": "spiffe://example.internal/gateway", "profile": "nginx"},
    "access_token": {"source": "corporate-idp", "client_id": "edge-gateway"},
    "network": {"networks": ["unix"], "uids": [998], "profile": "nginx"},
}


@pytest.fixture
def proving(offline, tmp_path):
    """The configuration with a client that proves itself in another way than by a secret; and one of certificates."""
    ca = Authority("Partner CA", now=time.time())
    (tmp_path / "ca.pem").write_text(ca.pem)

    def proving(auth, **more):
        document = json.loads(offline.read_text())
        client = {"auth": auth, "audiences": ["*"], "sources": ["*"]} | WAYS.get(auth, {}) | more
        if auth == "secret":
            client = document["clients"]["edge-gateway"] | {"sources": ["*"]} | more
        document["clients"] = {"edge-gateway": client}
        document["sources"]["corporate-idp"] |= {"audiences": ["*"], "namespace": ""}
        document["sources"]["partner"] = {
            "type": "client_certificate",
            "ca_file": "ca.pem",
            "san_prefix": "spiffe://partners.example/",
            "audiences": ["*"],
            "namespace": "partner",
            "identity": {"subject": "certificate.uri", "scopes": "['orders:read']"},
        }
        document["audiences"]["orders"]["bind"] = "caller_certificate" if auth == "tls" else "none"
        offline.write_text(json.dumps(document))
        return ca

    return proving


@pytest.mark.parametrize("auth", WAYS)
def test_a_client_is_taken_as_proven_in_whichever_way_it_proves_itself(explain, proving, idp, tmp_path, auth):
    gateway = proving(auth).issue("gateway")
    (tmp_path / "gateway.pem").write_text(gateway.pem)
    shown = ["--cert-file", tmp_path / "gateway.pem"] if auth == "tls" else []
    text = explain(idp.token(), "--audience", "orders", *shown)
    assert titles(text) == STEPS
    if auth == "tls":  # the audience binds its tokens to it
        digest = base64.urlsafe_b64encode(hashlib.sha256(gateway.der).digest()).rstrip(b"=").decode()
        assert f'"cnf": {{"x5t#S256": "{digest}"}}' in text
    if "profile" in WAYS[auth]:
        assert titles(explain(idp.token(), "--request", REQUEST, *shown)) == STEPS


@pytest.mark.parametrize("form", ["client_cert", "xfcc", "nginx"])
def test_a_request_with_a_certificate_is_what_the_gateway_would_send(explain, proving, form):
    ca = proving("secret", may_present=["partner"], certificate_header=form)
    below = Authority("Issuing CA", now=ca.now, parent=ca)
    leaf, deeper = ca.issue(), below.issue()
    text = explain(leaf.pem, "--request", REQUEST, "--type", "client_certificate")
    assert titles(text) == STEPS
    assert '"sub": "partner|spiffe://partners.example/billing"' in text
    told = explain(
        deeper.pem + below.pem, "--request", REQUEST, "--type", "client_certificate", status=int(form == "nginx")
    )
    assert ("unknown_issuer" in told) == (form == "nginx")  # it hands on the leaf alone


def test_a_gateway_that_may_hand_no_certificate_on_is_told_so(explain, proving):
    leaf = proving("secret").issue()
    text = explain(leaf.pem, "--request", REQUEST, "--type", "client_certificate", status=1)
    assert "a certificate header from a sender that may not forward one" in text


def test_a_certificate_file_without_one_is_a_fault_of_the_command_line(sts, offline, tmp_path):
    (tmp_path / "none.pem").write_text("none")
    for more, given in (
        (["--cert-file", tmp_path / "none.pem"], "eyJ"),
        (["--type", "client_certificate"], "-----BEGIN CERTIFICATE-----"),
    ):
        result = sts("explain", "-c", offline, "--request", REQUEST, *more, input=given)
        assert (result.exit_code, result.stderr) == (2, "sts: the file contains no PEM certificate\n")


def test_as_a_process_it_speaks_on_standard_output_alone(offline, idp):
    done = subprocess.run(
        [sys.executable, "-m", "sts", "explain", "-c", offline, "--audience", "orders"],
        input=idp.token(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert titles(done.stdout) == STEPS
    assert IDP in done.stdout


def test_a_token_that_would_be_encrypted_is_shown_as_its_backend_sees_it(sts, offline, idp, tmp_path):
    pair = Pair()
    (tmp_path / "enc.jwks.json").write_text(json.dumps(jwks(pair)))
    document = json.loads(offline.read_text())
    document["audiences"]["billing"] |= {
        "format": "jwe",
        "encryption": {"jwks_file": "enc.jwks.json", "alg": "ECDH-ES"},
    }
    offline.write_text(json.dumps(document))
    result = sts("explain", "-c", offline, "--audience", "billing", "--json", input=idp.token())
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    (mint,) = [step["facts"] for step in shown if step["step"] == "mint: the token would hold"]
    assert mint["claims"]["aud"] == "billing"
    assert mint["bytes"].endswith("then encrypted")
    assert mint["encrypted to"] == import_encryption_jwk(pair.jwk, "ECDH-ES").thumbprint


def test_what_opa_said_is_a_step_of_its_own(sts, offline, idp, fake_opa):
    document = json.loads(offline.read_text())
    document["opa"] = {"url": fake_opa.url, "timeout": "5s"}
    document["audiences"]["orders"]["opa"] = True
    offline.write_text(json.dumps(document))
    fake_opa.headers = {"Cache-Control": "max-age=90"}
    for says, status in ((True, 0), ("true", 1)):
        fake_opa.says = says
        result = sts("explain", "-c", offline, "--audience", "orders", "--json", input=idp.token())
        assert result.exit_code == status
        (step,) = [one for one in json.loads(result.stdout) if one["step"] == "policy: OPA"]
        assert step["facts"] == {"asked about": "orders", "result": says, "may be kept": "90s"}


@pytest.mark.parametrize(("ip", "why"), [("10.1.2.3", None), ("192.0.2.7", "it is not true"), (None, "absent key")])
def test_a_rule_about_addresses_is_told_for_an_address_and_named_where_it_refuses(explain, offline, idp, ip, why):
    document = json.loads(offline.read_text())
    document["routes"]["orders-read"]["allow"] = "ip_in(request.ip, '10.0.0.0/8')"
    offline.write_text(json.dumps(document))
    asked = ["--request", REQUEST, "--json", *(["--ip", ip] if ip else [])]
    (step,) = [
        one
        for one in json.loads(explain(idp.token(), *asked, status=1 if why else 0))
        if one["step"] == "policy: decision"
    ]
    if why is None:
        assert step["facts"]["allow of the route"] == "ip_in(request.ip, '10.0.0.0/8')"
    else:
        assert (step["refused"], step["facts"]["rule"]) == ("not_allowed", "allow of the route")
        assert why in step["facts"]["why"]


def test_one_of_our_own_tokens_is_walked_for_the_backend_that_hands_it_back(sts, make_service, idp):
    document = yaml.safe_load(minimal(idp))
    document["clients"]["orders-service"] = {
        "auth": "secret",
        "secrets": ["sha256:" + "ab" * 32],
        "backend_of": ["orders"],
        "audiences": ["billing"],
        "sources": [],
    }
    document["audiences"]["billing"].pop("allow", None)
    document["audiences"]["billing"]["scopes"].append("orders:read")
    service = make_service(json.dumps(document))
    token = service.exchange(idp.token(), scope="orders:read").token
    config = service.directory / "sts.yaml"
    asked = ("explain", "-c", config, "--audience", "billing", "--json")
    walked = sts(*asked, "--client", "orders-service", input=token)
    assert walked.exit_code == 0, walked.output
    steps = {step["step"]: step["facts"] for step in json.loads(walked.stdout)}
    assert steps["policy: identity"]["subject"] == decoded(token)[1]["sub"]  # of no expression
    act = steps["mint: the token would hold"]["claims"]["act"]
    assert (act["sub"], act["act"]["sub"]) == ("orders-service", "edge-gateway")
    refused = sts(*asked, "--client", "edge-gateway", input=token)
    assert json.loads(refused.stdout)[-1]["refused"] == "no_consent"
    elsewhere = sts(*asked, "--client", "orders-service", input=token, env={"STS_VAR": "nowhere"})
    assert json.loads(elsewhere.stdout)[-1]["refused"] == "no_key"


@pytest.fixture
def looking_up(offline, tmp_path):
    """The same configuration, whose subject and one claim come out of a table."""
    document = json.loads(offline.read_text())
    document["tables"] = {"staff": {"file": "staff.csv", "key": "login"}}
    document["sources"]["corporate-idp"]["identity"]["subject"] = "lookup('staff', claims.sub).id"
    document["audiences"]["orders"]["claims"] = {"site": "lookup('staff', 'boss').site"}
    offline.write_text(json.dumps(document))
    (tmp_path / "staff.csv").write_text("login,id,site\nalice,E7,home\nboss,E1,away\n")
    return offline


@pytest.mark.usefixtures("looking_up")
def test_rows_and_mapped_claims_are_told_with_where_they_come_from(explain, idp):
    text = explain(idp.token(sub="alice"), "--audience", "orders")
    assert "subject: E7   ← lookup('staff', claims.sub).id" in text
    assert "claim site: away   ← lookup('staff', 'boss').site" in text
    steps = json.loads(explain(idp.token(sub="alice"), "--audience", "orders", "--json"))
    assert [step["facts"] for step in steps if step["step"] == "policy: a row is looked up"] == [
        {"table": "staff", "key": "alice", "row": {"login": "alice", "id": "E7", "site": "home"}},
        {"table": "staff", "key": "boss", "row": {"login": "boss", "id": "E1", "site": "away"}},
    ]


@pytest.mark.usefixtures("looking_up")
def test_a_row_that_is_not_there_is_told_and_refuses(explain, idp):
    steps = json.loads(explain(idp.token(sub="mallory"), "--audience", "orders", "--json", status=1))
    assert steps[-2]["facts"] == {"table": "staff", "key": "mallory", "row": "there is none"}
    assert (steps[-1]["refused"], steps[-1]["facts"]["table"]) == ("no_mapping", "staff")


def test_a_table_that_does_not_answer_is_told(sts, looking_up, idp):
    document = json.loads(looking_up.read_text())
    document["tables"]["staff"] = {"url": f"http://127.0.0.1:{free_port()}/{{key}}"}
    looking_up.write_text(json.dumps(document))
    found = sts("explain", "-c", looking_up, "--audience", "orders", "--json", input=idp.token(sub="alice"))
    assert found.exit_code == 3
    steps = json.loads(found.stdout)
    assert steps[-1]["step"] == "policy: a row is looked up"
    assert steps[-1]["refused"] == "source_unreachable"
