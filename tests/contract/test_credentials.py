"""One law for every kind of credential, at both doors: whatever proves it, the same is refused for the same reason.

A kind joins by an adapter that makes its credentials, good and bad, for a service, and shows them at its doors. Which
of a JWT's claims it has a counterpart of stands in `facts`; laws about others are not its.
"""

import base64
import json
import subprocess
import sys
import time
from types import MappingProxyType

import pytest
import yaml
from harness import ACCESS_TOKEN, Idp, Service, b64, decoded, minimal, unb64, wait_for
from opaque import AuthorizationServer, source
from pki import Authority

from sts import labels
from sts.state.key_records import LABEL, ApiKey, KeyRecords, digest, make
from sts.state.sqlite import SqliteState

SOON_S = 30
CLAIMS = frozenset({"exp", "nbf", "iat", "aud", "cnf", "may_act", "act", "sub", "scope", "types"})


class Shown:
    """A kind that is shown as a Bearer token."""

    facts = CLAIMS
    client = MappingProxyType({})

    def own(self, subject):
        """What the source itself calls the subject."""
        return subject

    def exchange(self, service, credential, audience="orders", **fields):
        return service.exchange(credential, audience, token_type=ACCESS_TOKEN, **fields)

    def forward(self, service, credential):
        return service.forward(credential)

    def close(self):
        self.server.close()


class Jwts(Shown):
    """Signed JWTs of an issuer."""

    name, source = "jwt", "corporate-idp"

    def __init__(self):
        self.server = Idp()

    def configured(self, _directory):
        return {}  # it is the source that contract/minimal.yaml has

    def good(self, _service, **claims):
        return self.server.token(**{"jti": str(time.monotonic_ns()), **claims})

    def unknown(self, _service):
        return self.server.token(iss="https://elsewhere.example.com")

    def too_large(self, service):
        return self.good(service, padding="x" * 20_000)

    def malformed(self, service):
        return self.good(service) + "="


class OpaqueTokens(Shown):
    """Opaque tokens of an authorization server."""

    name, source = "introspection", "legacy"

    def __init__(self):
        self.server = AuthorizationServer()

    def configured(self, _directory):
        return {self.source: source(self.server, match={"prefix": "op_"})}

    def good(self, _service, **claims):
        return self.server.token(**{"sub": "alice", **claims})

    def unknown(self, service):
        return "zz_" + self.good(service)

    def too_large(self, _service):
        return "op_" + "x" * 20_000

    def malformed(self, service):
        return self.good(service) + "\x7f"


class ApiKeys(Shown):
    """API keys, put into the service's store as the command does."""

    name, source = "api_key", "partner-keys"
    facts = frozenset({"exp", "iat", "sub", "scope"})
    prefix = "sk_live_"

    def configured(self, _directory):
        identity = {"subject": "key.owner", "scopes": "key.scopes"}
        return {self.source: {"type": "api_key", "prefix": self.prefix, "identity": identity}}

    def good(self, service, exp=None, iat=None, sub="alice", scope="orders:read orders:write billing:read"):
        key_id, text = make(self.prefix)
        var = service.directory / "var"
        state = SqliteState(var / "state.db", time.time)
        facts = {"owner": sub, "scopes": tuple((scope or "").split()), "expires_at": exp}
        key = ApiKey(key_id, self.source, digest=digest(text), created_at=iat or int(time.time()), **facts)
        KeyRecords(state, labels.read(var / "secret").keys(LABEL)).put(key)
        state.close()
        wait_for(lambda: self.exchange(service, text, scope="no:such").reason not in {"unknown_key", "revoked"})
        return text

    def unknown(self, _service):
        return make("pk_live_")[1]

    def too_large(self, _service):
        return self.prefix + "x" * 400

    def malformed(self, _service):
        text = make(self.prefix)[1]
        return text[:-1] + ("a" if text[-1] != "a" else "b")

    def exchange(self, service, credential, audience="orders", **fields):
        return service.exchange(credential, audience, token_type="urn:sts:token-type:api_key", **fields)

    def forward(self, service, credential):
        return service.forward(None, X_API_Key=credential)

    def close(self):
        """Nothing is open."""


class Certificates(Shown):
    """Certificates that the gateway hands on."""

    name, source = "client_certificate", "partners"
    facts = frozenset({"exp", "nbf"})
    client = MappingProxyType({"may_present": ["partners"], "certificate_header": "client_cert"})
    base = "spiffe://partners.example/"

    def __init__(self):
        self.ca, self.stranger = (Authority(f"{name} CA", now=time.time()) for name in ("Partner", "Other"))

    def configured(self, directory):
        file = directory / "partner-ca.pem"
        file.write_text(self.ca.pem)
        known = {"ca_file": str(file), "san_prefix": self.base}
        identity = {"subject": f"certificate.uri.replace('{self.base}', '')"}
        identity["scopes"] = "['orders:read', 'orders:write', 'billing:read']"
        return {self.source: {"type": "client_certificate", **known, "identity": identity}}

    def good(self, _service, exp=None, nbf=None, sub="alice"):
        now = time.time()
        since = nbf or min(now, exp or now) - 60
        life = (since - self.ca.now, (exp or since + 3600) - self.ca.now)
        return b64(self.ca.issue(uris=(self.base + sub,), life=life).der)

    def own(self, subject):
        return self.base + subject

    def unknown(self, _service):
        return b64(self.stranger.issue().der)

    def too_large(self, service):
        return ".".join([self.good(service)] * 7)

    def malformed(self, service):
        return self.good(service)[:-20]

    def exchange(self, service, credential, audience="orders", **fields):
        return service.exchange(credential, audience, token_type="urn:sts:token-type:client_certificate", **fields)

    def forward(self, service, credential):
        leaf, *chain = [f":{base64.b64encode(unb64(part)).decode()}:" for part in credential.split(".")]
        more = {"Client_Cert_Chain": ", ".join(chain)} if chain else {}
        return service.forward(None, Client_Cert=leaf, **more)

    def close(self):
        """Nothing is open."""


KINDS = [Jwts, OpaqueTokens, ApiKeys, Certificates]


def having(*facts):
    """For the kinds that have all these facts."""
    return pytest.mark.parametrize("kind", [one.name for one in KINDS if one.facts.issuperset(facts)], indirect=True)


@pytest.fixture(scope="module")
def kinds():
    made = [kind() for kind in KINDS]
    yield {one.name: one for one in made}
    for one in made:
        one.close()


@pytest.fixture(params=[kind.name for kind in KINDS])
def kind(request, kinds):
    return kinds[request.param]


@pytest.fixture(scope="module")
def document(kinds, tmp_path_factory):
    written = yaml.safe_load(minimal(kinds["jwt"].server))
    written["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    for one in kinds.values():
        written["sources"].update(one.configured(tmp_path_factory.mktemp("kind")))
        written["clients"]["edge-gateway"].update(one.client)
    for name, entry in written["sources"].items():
        entry.update({"namespace": name, "audiences": ["*"]})
    written["clients"]["edge-gateway"]["sources"] = ["*"]
    written["clients"]["edge-gateway"]["audiences"] = ["*"]
    written["audiences"]["bare"] = {}  # its tokens have no scopes
    return {**written, "workers": 1}


@pytest.fixture(scope="module")
def shared(document, tmp_path_factory):
    """One service for all laws that change nothing."""
    running = Service(tmp_path_factory.mktemp("kinds"), json.dumps(document))
    yield running
    assert running.stop() == 0, running.log()


def refused(kind, service, credential, reason, status=401):
    """Refused at both doors, for exactly this reason, which the audit has at both."""
    at_token, at_forward = kind.exchange(service, credential), kind.forward(service, credential)
    assert (at_token.status, at_token.reason) == (400, reason)
    assert at_forward.status == status
    assert "access_token" not in at_token.json
    assert "authorization" not in at_forward.headers
    assert [event["reason"] for event in service.events()[-2:]] == [reason, reason]
    return True


def test_a_good_one_is_the_same_subject_at_both_doors(shared, kind):
    credential = kind.good(shared)
    tokens = [kind.exchange(shared, credential).token, kind.forward(shared, credential).token]
    assert {shared.verified(token)["sub"] for token in tokens} == {f"{kind.source}|alice"}
    for event in shared.events()[-2:]:
        assert (event["outcome"], event["source"], event["kind"]) == ("allowed", kind.source, kind.name)


JUDGED = [
    ({"exp": int(time.time()) - 60}, "expired"),
    ({"nbf": int(time.time()) + 3600}, "not_yet_valid"),
    ({"iat": 4_000_000_000}, "not_yet_valid"),
    ({"aud": "elsewhere"}, "audience_mismatch"),
    ({"aud": []}, "audience_mismatch"),
    ({"aud": ["api-gateway-2", "API-GATEWAY"]}, "audience_mismatch"),
    ({"cnf": {"jkt": "k"}}, "binding_failed"),
]
MALFORMED = [{"exp": "4000000000"}, {"exp": True}, {"aud": {"api-gateway": True}}, {"cnf": "none"}]


@pytest.mark.parametrize(
    ("kind", "claims", "reason"),
    [(one.name, claims, reason) for one in KINDS for claims, reason in JUDGED if one.facts.issuperset(claims)],
    indirect=["kind"],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_what_is_not_meant_for_us_alive_and_well_formed_is_refused(shared, kind, claims, reason):
    """BE-03, CA-03. Lesson 2.5 (CVE-2026-18214, CVE-2026-18215 Keycloak: opaque tokens skipped the checks of JWTs)."""
    assert refused(kind, shared, kind.good(shared, **claims), reason)


@having("types")
@pytest.mark.parametrize("claims", MALFORMED, ids=str)
def test_a_fact_of_another_type_is_malformed(shared, kind, claims):
    assert refused(kind, shared, kind.good(shared, **claims), "malformed")


@having("sub")
@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": ""}], ids=str)
def test_one_without_a_subject_maps_to_nobody(shared, kind, claims):
    assert refused(kind, shared, kind.good(shared, **claims), "no_mapping", 403)


@having("may_act")
@pytest.mark.parametrize(
    "may_act", [{"sub": "somebody"}, {}, {"iss": "https://elsewhere.example", "sub": "edge-gateway"}]
)
def test_one_that_names_another_actor_is_refused(shared, kind, may_act):
    assert refused(kind, shared, kind.good(shared, may_act=may_act), "actor_refused", 403)


def test_one_of_no_source_is_refused(shared, kind):
    """Lesson 2.8."""
    assert refused(kind, shared, kind.unknown(shared), "unknown_issuer")


def test_one_that_is_too_large_is_refused(shared, kind):
    answer = kind.exchange(shared, kind.too_large(shared))
    assert (answer.status, answer.reason) == (400, "too_large")
    answer = kind.forward(
        shared, kind.too_large(shared)
    )  # the parser may find the head too large before the door sees it
    assert answer.status in {401, 431}


def test_a_malformed_one_is_refused(shared, kind):
    assert kind.exchange(shared, kind.malformed(shared)).reason in {"malformed", "bad_type"}


@having("scope")
@pytest.mark.parametrize("scope", [None, "", "orders:admin", "orders:read-all"])
def test_unknown_scopes_are_not_all_scopes(shared, kind, scope):
    """Unknown is not all: nothing said, or something else said, gives nothing. Lesson 2.1 (ZITADEL #12322)."""
    credential = kind.good(shared, scope=scope)
    assert refused(kind, shared, credential, "insufficient_scope", 403)
    bare = kind.exchange(shared, credential, "bare")
    assert bare.status == 200
    assert "scope" not in shared.verified(bare.token, "bare")


@having("scope")
def test_scopes_are_never_widened(shared, kind):
    """Lesson 2.1 (CVE-2026-56668 ZITADEL)."""
    credential = kind.good(shared, scope="orders:read billing:read")
    answer = kind.exchange(shared, credential)
    assert answer.json["scope"] == shared.verified(answer.token)["scope"] == "orders:read"
    assert kind.exchange(shared, credential, scope="orders:write").reason == "insufficient_scope"


def test_the_same_one_is_answered_from_the_cache_and_another_is_not(shared, kind):
    """CA-01."""
    credential = kind.good(shared)
    first, second = kind.exchange(shared, credential), kind.exchange(shared, credential)
    assert [event["cached"] for event in shared.events()[-2:]] == [False, True]
    assert decoded(first.token)[1]["jti"] == decoded(second.token)[1]["jti"]
    assert decoded(kind.exchange(shared, kind.good(shared)).token)[1]["jti"] != decoded(first.token)[1]["jti"]


def test_no_token_outlives_it(shared, kind):
    """CA-03. Lesson 3.2: of every kind."""
    end = int(time.time()) + SOON_S
    for ask in (kind.exchange, kind.forward):
        assert shared.verified(ask(shared, kind.good(shared, exp=end)).token)["exp"] == end


@having("act")
def test_an_earlier_actor_is_kept_below_the_present_one(shared, kind):
    claims = shared.verified(kind.exchange(shared, kind.good(shared, act={"sub": "helper"})).token)
    assert claims["act"] == {"sub": "edge-gateway", "iss": claims["iss"], "act": {"sub": "helper"}}


def test_it_stands_neither_in_the_audit_nor_in_the_log(shared, kind):
    credential = kind.good(shared)
    kind.exchange(shared, credential)
    kind.forward(shared, credential)
    written = shared.audit_file.read_text(encoding="utf-8") + shared.log()
    assert credential not in written
    assert max(credential.split("."), key=len) not in written


def revoke(service, *arguments, stdin=""):
    command = [sys.executable, "-m", "sts", "revoke", *arguments, "-c", str(service.file)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_revoked_one_is_refused_from_the_cache_too(shared, kind):
    """CA-07. Lesson 3.2."""
    credential, other = kind.good(shared), kind.good(shared)
    assert kind.exchange(shared, credential).status == 200
    revoke(shared, "--credential", "-", stdin=credential)
    wait_for(lambda: kind.exchange(shared, credential).status != 200)
    assert refused(kind, shared, credential, "revoked")
    assert kind.exchange(shared, other).status == 200


def test_a_revoked_subject_of_the_source_is_refused(shared, kind):
    credential = kind.good(shared, sub=f"mallory-{kind.name}")
    assert kind.exchange(shared, credential).status == 200
    time.sleep(1.1)  # a revocation concerns what is no younger than itself
    revoke(shared, "--source", kind.source, "--subject", kind.own(f"mallory-{kind.name}"))
    wait_for(lambda: kind.exchange(shared, credential).status != 200)
    assert refused(kind, shared, credential, "revoked")


def test_a_disabled_source_refuses_it_from_the_cache_too_and_other_kinds_go_on(make_service, document, kinds, kind):
    """CA-07. Lesson 2.6."""
    service = make_service(json.dumps(document))
    credential = kind.good(service)
    others = [(other, other.good(service)) for other in kinds.values() if other is not kind]
    assert kind.exchange(service, credential).status == 200
    changed = json.loads(json.dumps(document))
    changed["sources"][kind.source]["enabled"] = False
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    wait_for(lambda: kind.exchange(service, credential).status != 200)
    assert refused(kind, service, credential, "unknown_issuer")
    for other, its in others:
        assert other.exchange(service, its).status == 200


def test_a_client_that_does_not_list_the_source_is_refused_and_a_source_that_does_not_list_the_audience(
    make_service, document, kinds, kind
):
    """BE-04. Lesson 2.4 (Dex: one path after the other had left the check out)."""
    changed = json.loads(json.dumps(document))
    gateway = changed["clients"]["edge-gateway"]
    gateway["sources"] = [one.source for one in kinds.values() if one is not kind]
    service = make_service(json.dumps(document))
    made = [(one, one.good(service)) for one in kinds.values()]
    (credential,) = [its for one, its in made if one is kind]
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    wait_for(lambda: kind.exchange(service, credential).status != 200)
    at_token, at_forward = kind.exchange(service, credential), kind.forward(service, credential)
    assert (at_token.reason, at_forward.headers["x-auth-reason"]) == ("no_consent", "no_consent")
    changed = json.loads(json.dumps(document))
    changed["sources"][kind.source]["audiences"] = ["billing"]
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    for other, its in made:
        answer = other.exchange(service, its)
        assert (answer.reason if answer.status != 200 else "") == ("no_consent" if other is kind else "")
