"""One marked user, marked secrets, every refusal that can be provoked: what was said, and what must not have been.

A token of ours stands in the answer that hands it out and nowhere else; the identity headers in a forward-auth answer
that passes; a credential, a claim's value or a secret nowhere at all.
"""

import hashlib
import itertools
import json
import re
import secrets
import time
import types
from urllib.parse import urlencode

import jwt
import pytest
from click.testing import CliRunner
from harness import ACCESS_TOKEN, CLIENT, GRANT, ID_TOKEN, JWT, Idp, Key, Service, b64, free_port, minimal, wait_for

from sts.cli.main import cli
from sts.errors import REASONS

FIELDS = {
    *("time", "event", "outcome", "reason", "request_id", "correlation_id", "door", "client", "source", "kind"),
    *(
        "audiences",
        "scopes",
        "route",
        "subject_hash",
        "credential_hash",
        "jti",
        "kid",
        "exp",
        "cached",
        "duration_us",
    ),
    "revision",
}
OURS_ALONE = {"internal_error"}  # a fault of the service's own, which no request brings about
OF_THE_STATE_ALONE = {"replayed"}  # callers and the audit are told `client_refused`
IDENTITY_HEADERS = {"x-user-id", "x-tenant-id", "x-roles"}
DOWN = "https://down.example.com"
ISSUER = "https://sts.example.internal"
SIGNING = "signing-gateway"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Marked:
    """Values that stand nowhere else in the world."""

    def __init__(self):
        self.secret, self.wrong, self.deployment = (secrets.token_urlsafe(32) for _ in range(3))
        self.user, self.tenant, self.role = (f"{name}{secrets.token_hex(8)}" for name in ("user", "tenant", "role"))
        self.email = f"{secrets.token_hex(8)}@marked.example"
        self.digest = "sha256:" + hashlib.sha256(self.secret.encode()).hexdigest()
        self.tokens = set()
        self.signing = Key("signing-1", "ES256")

    @property
    def claims(self):
        return {"sub": self.user, "email": self.email, "agency_id": self.tenant, "roles": ["accountant", self.role]}

    @property
    def private(self):
        """What must be seen nowhere; of the tokens each part."""
        parts = {part for token in self.tokens for part in token.split(".") if len(part) > 8}
        return parts | {self.secret, self.wrong, self.deployment, self.digest, self.digest[7:]} | self.values

    @property
    def values(self):
        return {self.user, self.email, self.tenant, self.role}

    def found_in(self, text, *, allowed=()):
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        return sorted(one for one in self.private - set(allowed) if one in text)


def configuration(provider, configured):
    audience = {"ttl": "5m", "scopes": ["orders:read"]}
    changes = {
        "secret": {"env": "DEPLOYMENT_SECRET"},
        "keys": {"poll": "200ms", "store_grace": "8s"},
        "clients/edge-gateway/secrets": [{"env": "GATEWAY_DIGEST"}],
        "clients/edge-gateway/audiences": ["orders", "billing", "tiny", "odd", "absent", "unsafe"],
        "clients/edge-gateway/sources": ["*"],
        f"clients/{SIGNING}": {
            "auth": "private_key_jwt",
            "jwks_file": "signing.jwks.json",
            "audiences": ["orders"],
            "sources": ["*"],
        },
        "sources/corporate-idp/audiences": ["*"],
        "sources/corporate-idp/namespace": "",
        "sources/corporate-idp/max_age": "1h",
        "sources/corporate-idp/require": "!has(claims.blocked) || int(claims.blocked) == 0",
        "sources/corporate-idp/identity/email": "claims.email",
        "sources/down-idp": {
            "type": "jwt",
            "issuer": DOWN,
            "jwks_uri": f"http://127.0.0.1:{free_port()}/jwks.json",
            "algorithms": ["RS256"],
            "audience": "api-gateway",
            "audiences": ["*"],
            "namespace": "down",
            "identity": {"subject": "claims.sub"},
        },
        "audiences/closed": {"ttl": "5m"},
        "audiences/tiny": {**audience, "max_token_bytes": 256},
        "audiences/odd": {**audience, "allow": "timestamp(identity.tenant) < timestamp(identity.email)"},
        "audiences/absent": {**audience, "claims": {"cost": "int(identity.tenant)"}},
        "audiences/unsafe": {**audience, "headers": {"X-Roles": "identity.roles"}},
        "routes/unsafe": {"path": "/unsafe", "audience": "unsafe", "scopes": ["orders:read"]},
    }
    return configured(minimal(provider), changes)


@pytest.fixture(scope="module")
def said(tmp_path_factory, configured):
    """Everything that a service, and the commands, said to a marked user's requests."""
    marked, provider, asked = Marked(), Idp(), []

    def answer(handler):
        asked.append(f"{handler.path} {handler.headers}")
        handler.reply(json.dumps({"keys": provider.keys}).encode())

    provider.answer = answer
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "signing.jwks.json").write_text(json.dumps({"keys": [marked.signing.jwk]}))
    environment = {"DEPLOYMENT_SECRET": marked.deployment, "GATEWAY_DIGEST": marked.digest, "TMPDIR": str(folder)}
    service = Service(folder, configuration(provider, configured), environment=environment)
    found = types.SimpleNamespace(marked=marked, folder=folder, at_doors=[], pages=[], commands=[])
    try:
        scenario = Scenario(service, provider, marked, found)
        scenario.doors()
        scenario.elsewhere()
        scenario.commands(environment)
        scenario.revoked(environment)
        scenario.replayed()
        scenario.without_a_key()
        scenario.without_the_state()
    finally:
        status = service.stop()
        provider.close()
    found.asked, found.log, found.audit = asked, service.log(), service.audit_file.read_text()
    found.events = [json.loads(line) for line in found.audit.splitlines()]
    assert status == 0, found.log
    return found


class Scenario:
    def __init__(self, service, provider, marked, found):
        self.service, self.provider, self.marked, self.found = service, provider, marked, found
        self.good = self.token()

    def token(self, key=None, header=None, **changes):
        token = self.provider.token(key, header, **{**self.marked.claims, **changes})
        self.marked.tokens.add(token)
        return token

    def exchange(self, token, audience="orders", *, secret=None, headers=None, **fields):
        form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS_TOKEN, "audience": audience}
        form = {name: value for name, value in {**form, **fields}.items() if value is not None}
        answer = self.service.post(form, headers, secret=secret or self.marked.secret)
        self.found.at_doors.append(answer)

    def forward(self, token, uri="/orders/7", **headers):
        headers = {"X_Gateway_Secret": self.marked.secret, **headers}
        self.found.at_doors.append(self.service.forward(token, uri, **headers))

    def both(self, token, **more):
        self.exchange(token, **more)
        self.forward(token)

    def doors(self):
        for _ in range(3):  # minted, and from the cache
            self.exchange(self.good, headers={"X-Request-ID": "a-correlation.id_1"})
            self.forward(self.good)
        self.exchange(self.good, "billing", scope="billing:read", subject_token_type=JWT)
        self.forward(None, "/health")
        self.bad_credentials()
        self.bad_requests()
        self.not_allowed()

    def bad_credentials(self):
        good, forged = self.good, Key("rsa-1")
        head, body, signature = good.split(".")
        none = f"{b64({'alg': 'none'})}.{body}."
        self.marked.tokens |= {none}
        for token in (
            self.token(exp=1),
            self.token(nbf=4_000_000_000),
            self.token(iat=1_500_000_000),
            self.token(iss=f"https://{self.marked.tenant}.example"),
            self.token(iss=DOWN),
            self.token(aud=self.marked.tenant),
            self.token(cnf={"jkt": self.marked.user}),
            self.token(blocked=self.marked.user),
            self.token(sub=None),
            self.token(sub=[self.marked.user]),
            self.token(sub=CLIENT),
            self.token(nonce=self.marked.user),
            self.token(forged),
            self.token(Key("unknown")),
            self.token(header={"alg": "HS256"}),
            none,
            f"{head}.{body}.{signature[::-1]}",
            f"{head}.{body}",
            f"{head}.{signature}.{body}",
            self.token(act={"sub": {"sub": self.marked.user}}),
            self.token(may_act={"sub": self.marked.user}),
        ):
            self.both(token)
        self.both(None)
        self.exchange(self.token(padding="x" * 20_000))
        self.marked.tokens.add(f"x{signature[::-1]}.x")

    def bad_requests(self):
        good, marked = self.good, self.marked
        self.exchange(good, None)
        self.exchange(good, secret=marked.wrong)
        self.exchange(good, scope="orders:read orders:all")
        self.exchange(good, actor_token=good, actor_token_type=JWT)
        self.exchange(good, subject_token_type=ID_TOKEN)
        self.exchange(good, subject_token_type=marked.user)
        self.exchange(good, subject_token_type="urn:ietf:params:oauth:token-type:saml2")
        self.exchange(good, grant_type=marked.user)
        self.exchange(good, client_secret=marked.secret)
        self.exchange(good, resource=f"{marked.user} {good}")
        self.exchange(good, headers={"Content-Type": f"text/{marked.user}"})
        self.exchange(good, padding="x" * 70_000)
        for target, method, headers in (
            (f"/token?subject_token={good}&client_secret={marked.secret}", "POST", {}),
            ("/token", "GET", {"Authorization": f"Bearer {good}"}),
            ("/token", "POST", {"Authorization": f"Bearer {good}"}),
            ("/token", "POST", {"Authorization": f"Basic {marked.secret}"}),
            (f"/forward-auth/{good}", "GET", {"X-Gateway-Secret": marked.secret}),
            (f"/forward-auth/nobody/{good}", "GET", {"X-Gateway-Secret": marked.secret}),
            (f"http://sts.example/forward-auth/{CLIENT}?{good}", "GET", {"X-Gateway-Secret": marked.wrong}),
        ):
            sent = {"Content-Type": "application/x-www-form-urlencoded", **headers}
            body = b"" if method == "POST" else None
            self.found.at_doors.append(self.service.request(method, target, sent, body))
        self.forward(good, X_Gateway_Secret=marked.wrong)
        self.forward(good, X_Gateway_Secret=f"{marked.secret}, {marked.secret}")
        self.forward(good, X_Gateway_Secret=None)
        self.forward(good, X_Original_Method=None)
        self.forward(good, X_Original_Host=f"{marked.tenant}/")
        self.forward(good, f"/{marked.user}?access_token={good}")
        self.forward(good, f"/orders/..%2f{marked.user}")
        self.forward(good, Authorization=f"Bearer {good}, Bearer {good}")
        self.forward(good, Authorization=f"Basic {b64(f'{marked.user}:{marked.secret}'.encode())}")
        self.forward(good, X_Request_ID=good)

    def not_allowed(self):
        for audience in ("nowhere", "closed", "tiny", "odd", "absent", self.good):
            self.exchange(self.good, audience)
        self.exchange(self.token(scope=self.marked.user))
        self.exchange(self.token(roles=[self.marked.role]), "billing")
        self.forward(self.token(roles=[f"{self.marked.role},admin"]), "/unsafe")
        self.forward(self.token(agency_id=f"ü{self.marked.tenant}"))
        self.forward(self.token(scope="orders:write"))

    def elsewhere(self):
        """Pages that are no doors, and requests that the HTTP server refuses by itself."""
        good, secret = self.good, self.marked.secret
        for target in (
            "/.well-known/jwks.json",
            "/.well-known/openid-configuration",
            "/metrics",
            "/readyz",
            "/healthz",
            f"/{good}",
            f"/tokens?subject_token={good}",
            f"/readyz?{secret}",
        ):
            answer = self.service.get(target, {"Authorization": f"Bearer {good}", "X-Gateway-Secret": secret})
            self.found.pages.append(repr(answer.headers).encode() + answer.body)
        for head in (
            f"GET /forward-auth/{CLIENT} HTTP/1.1\r\nHost: a\r\nX_Gateway_Secret: {secret}\r\n\r\n",
            f"GET /forward-auth/{CLIENT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {good * 20}\r\n\r\n",
            f"GET /{good} {secret}\r\n\r\n",
            f"{good} / HTTP/1.1\r\nHost: a\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: a\r\nX {secret}: {good}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {secret}\r\n\r\n",
        ):
            self.found.pages.append(self.service.raw(head.encode()))

    def commands(self, environment):
        config = str(self.service.file)
        file, bad, secret = (self.found.folder / name for name in ("token", "bad-token", "secret-file"))
        file.write_text(self.good)
        bad.write_text(self.token(exp=1))
        secret.write_text(self.marked.secret)
        url = f"http://127.0.0.1:{self.service.port}"
        exchange = ["exchange", "--url", url, "--client", CLIENT, "--secret-file", str(secret), "--audience", "orders"]
        request = "GET https://api.example.com/orders/7?a=b"
        shows = self.marked.values  # these two are asked for what is in a token, and say so
        for arguments, allowed in (
            (["explain", "-c", config, "--audience", "orders", str(file)], shows),
            (["explain", "-c", config, "--audience", "orders", "--json", str(file)], shows),
            (["explain", "-c", config, "--request", request, str(file)], shows),
            (["explain", "-c", config, "--audience", "orders", str(bad)], shows),
            (["explain", "-c", config, "--audience", "odd", str(file)], shows),
            ([*exchange, str(file)], shows),
            ([*exchange, str(bad)], ()),
            (["check", "-c", config], ()),
            (["check", "-c", config, "--effective"], ()),
            (["keys", "list", "-c", config], ()),
            (["health", "-c", config], ()),
            (["keys", "rotate", "-c", config], ()),
        ):
            self.command(environment, arguments, allowed)
        for path in (file, bad, secret):
            path.unlink()

    def command(self, environment, arguments, allowed=()):
        result = CliRunner(env=environment).invoke(cli, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        self.found.commands.append((arguments[:2], result.stdout, allowed))
        self.found.commands.append((arguments[:2], result.stderr, ()))

    def revoked(self, environment):
        """Revoke a user of its own: from then on every worker refuses its credential at both doors."""
        token = self.token(sub=f"revoked-{self.marked.user}")
        self.both(token)
        config = str(self.service.file)
        self.command(environment, ["revoke", "-c", config, "--subject", f"revoked-{self.marked.user}"])

        def refused():
            self.both(token)
            return {answer.status for answer in self.found.at_doors[-2:]} == {400, 401}

        wait_for(refused, every=0.3)

    def sign_in(self, assertion):
        """Ask as a client that signs, for an audience that there is not."""
        form = {"grant_type": GRANT, "subject_token": self.good, "subject_token_type": ACCESS_TOKEN}
        form |= {"audience": "nowhere", "client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}
        sent = {"Content-Type": "application/x-www-form-urlencoded"}
        self.found.at_doors.append(self.service.request("POST", "/token", sent, urlencode(form).encode()))
        return self.found.at_doors[-1]

    def assertion(self):
        claims = {"iss": SIGNING, "sub": SIGNING, "aud": ISSUER, "jti": secrets.token_hex(8)}
        made = self.marked.signing.sign({**claims, "exp": int(time.time()) + 290})
        self.marked.tokens.add(made)
        return made

    def replayed(self):
        """Use one assertion twice."""
        assertion = self.assertion()
        assert self.sign_in(assertion).status == 400
        assert self.sign_in(assertion).status == 401

    def without_the_state(self):
        """Replace the state: what may be used only once cannot be marked any more."""
        state = self.service.directory / "var" / "state.db"
        state.rename(state.with_name("former.db"))
        state.touch(0o600)
        assert self.sign_in(self.assertion()).status == 503

    def without_a_key(self):
        """Take the key ring away: once the worker has gone without it for too long, it signs no more."""
        (self.service.directory / "var" / "keyring.json").unlink()
        numbers = itertools.count()

        def refused():
            self.exchange(self.token(jti=str(next(numbers))))
            return self.found.at_doors[-1].status == 503

        wait_for(refused, every=0.3)
        self.forward(self.token(jti=str(next(numbers))))


def test_every_reason_that_can_be_provoked_was(said):
    assert {event["reason"] for event in said.events} == {None, *REASONS} - OURS_ALONE - OF_THE_STATE_ALONE
    assert "the assertion was used before" in {event.get("facts", {}).get("why") for event in said.events}


def test_each_decision_has_one_event_and_each_event_its_answer(said):
    assert len(said.at_doors) > 100
    ids = [event["request_id"] for event in said.events]
    assert len(set(ids)) == len(ids)
    asked = {answer.headers["x-request-id"] for answer in said.at_doors}
    assert len(asked) == len(said.at_doors)
    assert len(set(ids) - asked) == 2  # `sts exchange`, twice
    assert asked <= set(ids)
    by_id = {event["request_id"]: event for event in said.events}
    for answer in said.at_doors:
        event = by_id[answer.headers["x-request-id"]]
        assert event["outcome"] == ("allowed" if answer.status == 200 else "refused")
        assert (event["reason"] is None) == (answer.status == 200)
        if answer.status not in (200, 401):  # on 401 at forward-auth a stranger is told less
            assert answer.reason == event["reason"]


def test_an_event_has_the_documented_fields_and_no_other(said):
    """Lesson 2.19 (CVE-2025-62705 OpenBao: what is masked by type leaks in another type)."""
    for event in said.events:
        assert set(event) - {"facts"} == FIELDS
        assert ("facts" in event) == (event["outcome"] == "refused")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
        assert event["event"] == "decision"
        assert event["door"] in ("token", "forward_auth")
        assert event["duration_us"] >= 0
        for name in ("subject_hash", "credential_hash"):
            assert event[name] is None or re.fullmatch("hmac:[0-9a-f]{32}", event[name])
    assert len({event["revision"] for event in said.events}) == 1


def test_the_event_of_a_token_names_it(said):
    by_id = {event["request_id"]: event for event in said.events}
    tokens = [answer for answer in said.at_doors if answer.status == 200 and (answer.body or answer.token != "-")]
    assert len(tokens) >= 7
    for answer in tokens:
        event, claims = by_id[answer.headers["x-request-id"]], claims_of(answer.token)
        assert (event["jti"], event["exp"]) == (claims["jti"], claims["exp"])
        assert (event["client"], event["source"], event["kind"]) == (CLIENT, "corporate-idp", "jwt")
        assert event["audiences"] == [claims["aud"]]
        assert " ".join(event["scopes"]) == claims["scope"]
        assert event["subject_hash"]
        assert event["credential_hash"]
    assert any(event["cached"] for event in said.events)
    assert {event["correlation_id"] for event in said.events} == {None, "a-correlation.id_1"}
    assert {event["route"] for event in said.events} >= {None, "orders-read", "health", "unsafe"}


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


@pytest.fixture
def private(said):
    """Look for what is private, the tokens that were handed out included."""
    for answer in said.at_doors:
        if answer.status == 200:
            said.marked.tokens.add(answer.token)
    return said.marked


@pytest.mark.parametrize("where", ["audit", "log"])
def test_audit_and_log_hold_nothing_private(said, private, where):
    """Lesson 3.9 (APISIX #13205 and Tokenetes log credentials and subjects)."""
    text = getattr(said, where)
    assert len(text) > 1000
    assert private.found_in(text) == []


def test_a_refusal_holds_nothing_private(said, private):
    """ER-02. Lesson 3.9 (Oathkeeper puts `jwt_claims` into errors)."""
    refusals = [answer for answer in said.at_doors if answer.status != 200]
    assert len(refusals) > 80
    assert [found for answer in refusals if (found := private.found_in(f"{answer.headers}{answer.body}"))] == []


def test_an_answer_that_passes_holds_the_token_and_the_identity_headers_alone(said, private):
    for answer in said.at_doors:
        if answer.status != 200:
            continue
        headers = {name: value for name, value in answer.headers.items() if name not in IDENTITY_HEADERS}
        if answer.body:
            assert private.found_in(json.dumps({**answer.json, "access_token": ""})) == []
        else:
            assert headers.pop("authorization") == ("-" if answer.token == "-" else f"Bearer {answer.token}")
        assert private.found_in(repr(headers)) == []


def test_no_page_and_no_answer_of_the_server_holds_anything_private(said, private):
    """ER-02."""
    assert len(said.pages) == 14
    assert [found for page in said.pages if (found := private.found_in(page))] == []


def test_no_command_prints_a_credential_a_token_or_a_secret(said, private):
    assert len(said.commands) == 26
    for name, text, allowed in said.commands:
        assert private.found_in(text, allowed=allowed) == [], name


def test_nothing_private_is_left_in_files(said, private):
    files = [path for path in said.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"log", "audit.jsonl", "sts.yaml"}
    assert [(path.name, found) for path in files if (found := private.found_in(path.read_bytes()))] == []


def test_an_issuer_learns_nothing_private(said, private):
    assert said.asked
    assert private.found_in("".join(said.asked)) == []
