"""One law for every kind of credential, at both doors: whatever proves it, the same is refused for the same reason.

A kind joins by an adapter that makes its credentials, good and bad; what a kind does not have it leaves out by name.
"""

import json
import subprocess
import sys
import time

import pytest
import yaml
from harness import Idp, Service, decoded, minimal, wait_for
from opaque import AuthorizationServer, source

SOON_S = 30


class Jwts:
    """Signed JWTs of an issuer."""

    name, source = "jwt", "corporate-idp"

    def __init__(self):
        self.server = Idp()

    def configured(self):
        return {}  # it is the source that contract/minimal.yaml has

    def good(self, **claims):
        return self.server.token(**{"jti": str(time.monotonic_ns()), **claims})

    def unknown(self):
        return self.server.token(iss="https://elsewhere.example.com")

    def too_large(self):
        return self.good(padding="x" * 20_000)

    def malformed(self):
        return self.good() + "="


class OpaqueTokens:
    """Opaque tokens of an authorization server."""

    name, source = "introspection", "legacy"

    def __init__(self):
        self.server = AuthorizationServer()

    def configured(self):
        return {self.source: source(self.server, match={"prefix": "op_"})}

    def good(self, **claims):
        return self.server.token(**{"sub": "alice", **claims})

    def unknown(self):
        return "zz_" + self.good()

    def too_large(self):
        return "op_" + "x" * 20_000

    def malformed(self):
        return self.good() + "\x7f"


KINDS = [Jwts, OpaqueTokens]


@pytest.fixture(scope="module")
def kinds():
    made = [kind() for kind in KINDS]
    yield {one.name: one for one in made}
    for one in made:
        one.server.close()


@pytest.fixture(params=[kind.name for kind in KINDS])
def kind(request, kinds):
    return kinds[request.param]


@pytest.fixture(scope="module")
def document(kinds):
    written = yaml.safe_load(minimal(kinds["jwt"].server))
    written["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    for one in kinds.values():
        written["sources"].update(one.configured())
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


def refused(service, credential, reason, status=401):
    """Refused at both doors, for exactly this reason, which the audit has at both."""
    at_token, at_forward = service.exchange(credential), service.forward(credential)
    assert (at_token.status, at_token.reason) == (400, reason)
    assert at_forward.status == status
    assert "access_token" not in at_token.json
    assert "authorization" not in at_forward.headers
    assert [event["reason"] for event in service.events()[-2:]] == [reason, reason]
    return True


def test_a_good_one_is_the_same_subject_at_both_doors(shared, kind):
    credential = kind.good()
    tokens = [shared.exchange(credential).token, shared.forward(credential).token]
    assert {shared.verified(token)["sub"] for token in tokens} == {f"{kind.source}|alice"}
    for event in shared.events()[-2:]:
        assert (event["outcome"], event["source"], event["kind"]) == ("allowed", kind.source, kind.name)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_700_000_000}, "expired"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"iat": 4_000_000_000}, "not_yet_valid"),
        ({"aud": "elsewhere"}, "audience_mismatch"),
        ({"aud": []}, "audience_mismatch"),
        ({"aud": ["api-gateway-2", "API-GATEWAY"]}, "audience_mismatch"),
        ({"cnf": {"jkt": "k"}}, "binding_failed"),
        ({"exp": "4000000000"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"aud": {"api-gateway": True}}, "malformed"),
        ({"cnf": "none"}, "malformed"),
    ],
    ids=str,
)
def test_what_is_not_meant_for_us_alive_and_well_formed_is_refused(shared, kind, claims, reason):
    """BE-03, CA-03. Lesson 2.5 (CVE-2026-18214, CVE-2026-18215 Keycloak: opaque tokens skipped the checks of JWTs)."""
    assert refused(shared, kind.good(**claims), reason)


@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": ""}], ids=str)
def test_one_without_a_subject_maps_to_nobody(shared, kind, claims):
    assert refused(shared, kind.good(**claims), "no_mapping", 403)


@pytest.mark.parametrize(
    "may_act", [{"sub": "somebody"}, {}, {"iss": "https://elsewhere.example", "sub": "edge-gateway"}]
)
def test_one_that_names_another_actor_is_refused(shared, kind, may_act):
    assert refused(shared, kind.good(may_act=may_act), "actor_refused", 403)


def test_one_of_no_source_is_refused(shared, kind):
    """Lesson 2.8."""
    assert refused(shared, kind.unknown(), "unknown_issuer")


def test_one_that_is_too_large_is_refused(shared, kind):
    answer = shared.exchange(kind.too_large())
    assert (answer.status, answer.reason) == (400, "too_large")
    answer = shared.forward(kind.too_large())  # the parser may find the head too large before the door sees it
    assert answer.status in {401, 431}


def test_a_malformed_one_is_refused(shared, kind):
    assert shared.exchange(kind.malformed()).reason in {"malformed", "bad_type"}


@pytest.mark.parametrize("scope", [None, "", "orders:admin", "orders:read-all"])
def test_unknown_scopes_are_not_all_scopes(shared, kind, scope):
    """Unknown is not all: nothing said, or something else said, gives nothing. Lesson 2.1 (ZITADEL #12322)."""
    credential = kind.good(scope=scope)
    assert refused(shared, credential, "insufficient_scope", 403)
    bare = shared.exchange(credential, "bare")
    assert bare.status == 200
    assert "scope" not in shared.verified(bare.token, "bare")


def test_scopes_are_never_widened(shared, kind):
    """Lesson 2.1 (CVE-2026-56668 ZITADEL)."""
    credential = kind.good(scope="orders:read billing:read")
    answer = shared.exchange(credential)
    assert answer.json["scope"] == shared.verified(answer.token)["scope"] == "orders:read"
    assert shared.exchange(credential, scope="orders:write").reason == "insufficient_scope"


def test_the_same_one_is_answered_from_the_cache_and_another_is_not(shared, kind):
    """CA-01."""
    credential = kind.good()
    first, second = shared.exchange(credential), shared.exchange(credential)
    assert [event["cached"] for event in shared.events()[-2:]] == [False, True]
    assert decoded(first.token)[1]["jti"] == decoded(second.token)[1]["jti"]
    assert decoded(shared.exchange(kind.good()).token)[1]["jti"] != decoded(first.token)[1]["jti"]


def test_no_token_outlives_it(shared, kind):
    """CA-03. Lesson 3.2: of every kind."""
    end = int(time.time()) + SOON_S
    for ask in (shared.exchange, shared.forward):
        assert shared.verified(ask(kind.good(exp=end)).token)["exp"] == end


def test_an_earlier_actor_is_kept_below_the_present_one(shared, kind):
    claims = shared.verified(shared.exchange(kind.good(act={"sub": "helper"})).token)
    assert claims["act"] == {"sub": "edge-gateway", "iss": claims["iss"], "act": {"sub": "helper"}}


def test_it_stands_neither_in_the_audit_nor_in_the_log(shared, kind):
    credential = kind.good()
    shared.exchange(credential)
    shared.forward(credential)
    written = shared.audit_file.read_text(encoding="utf-8") + shared.log()
    assert credential not in written
    assert max(credential.split("."), key=len) not in written


def revoke(service, *arguments, stdin=""):
    command = [sys.executable, "-m", "sts", "revoke", *arguments, "-c", str(service.file)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_revoked_one_is_refused_from_the_cache_too(shared, kind):
    """CA-07. Lesson 3.2."""
    credential, other = kind.good(), kind.good()
    assert shared.exchange(credential).status == 200
    revoke(shared, "--credential", "-", stdin=credential)
    wait_for(lambda: shared.exchange(credential).status != 200, 3)
    assert refused(shared, credential, "revoked")
    assert shared.exchange(other).status == 200


def test_a_revoked_subject_of_the_source_is_refused(shared, kind):
    credential = kind.good(sub=f"mallory-{kind.name}")
    assert shared.exchange(credential).status == 200
    time.sleep(1.1)  # a revocation concerns what is no younger than itself
    revoke(shared, "--source", kind.source, "--subject", f"mallory-{kind.name}")
    wait_for(lambda: shared.exchange(credential).status != 200, 3)
    assert refused(shared, credential, "revoked")


def test_a_disabled_source_refuses_it_from_the_cache_too_and_other_kinds_go_on(make_service, document, kinds, kind):
    """CA-07. Lesson 2.6."""
    service = make_service(json.dumps(document))
    credential = kind.good()
    assert service.exchange(credential).status == 200
    changed = json.loads(json.dumps(document))
    changed["sources"][kind.source]["enabled"] = False
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    wait_for(lambda: service.exchange(credential).status != 200, 10)
    assert refused(service, credential, "unknown_issuer")
    for other in kinds.values():
        if other is not kind:
            assert service.exchange(other.good()).status == 200


def test_a_client_that_does_not_list_the_source_is_refused_and_a_source_that_does_not_list_the_audience(
    make_service, document, kinds, kind
):
    """BE-04. Lesson 2.4 (Dex: one path after the other had left the check out)."""
    changed = json.loads(json.dumps(document))
    changed["clients"]["edge-gateway"]["sources"] = [one.source for one in kinds.values() if one is not kind]
    service = make_service(json.dumps(changed))
    at_token, at_forward = service.exchange(kind.good()), service.forward(kind.good())
    assert (at_token.reason, at_forward.headers["x-auth-reason"]) == ("no_consent", "no_consent")
    changed["clients"]["edge-gateway"]["sources"] = ["*"]
    changed["sources"][kind.source]["audiences"] = ["billing"]
    service.write(json.dumps(changed))
    assert service.reload()["event"] == "reloaded"
    for other in kinds.values():
        expected = "no_consent" if other is kind else ""
        answer = service.exchange(other.good())
        assert (answer.reason if answer.status != 200 else "") == expected
