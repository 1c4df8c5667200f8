"""Who acts for whom, and tokens that a backend exchanges again (RFC 8693 §1.1, §4.1, §4.4)."""

import hashlib
import json
import time

import jwt
import pytest
from harness import ACCESS_TOKEN, GRANT, ISSUER, JWT, SECRET, Idp, Service, b64, decoded

CLIENTS = ("gateway", "plain-gateway", "orders-app", "billing-app", "stock-app")
SECRETS = {name: f"{name}-secret-for-tests-only" for name in CLIENTS}
SCOPES = "items:read items:write"


def client_of(secret, **changes):
    return {
        "auth": "secret",
        "secrets": [f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"],
        "sources": ["*"],
    } | changes


def source(provider, **changes):
    return {
        "type": "jwt",
        "issuer": provider.issuer,
        "jwks_uri": provider.url,
        "algorithms": ["RS256", "ES256"],
        "audience": ["api-gateway"],
        "identity": {"subject": "claims.sub", "scopes": "claims.scope", "roles": "claims.roles", "org": "claims.org"},
        **changes,
    }


def configuration(users, workloads, of_users=None):
    backend = {"scopes": SCOPES.split(), "claims": {"roles": "identity.roles"}, "ttl": "5m"}
    return {
        "issuer": ISSUER,
        "workers": 1,
        "clients": {
            "gateway": client_of(SECRETS["gateway"], audiences=["*"], profile="nginx", actors=["workloads"]),
            "plain-gateway": client_of(SECRETS["plain-gateway"], audiences=["*"]),
            "orders-app": client_of(
                SECRETS["orders-app"], audiences=["billing", "orders"], sources=[], backend_of=["orders"]
            ),
            "billing-app": client_of(SECRETS["billing-app"], audiences=["*"], sources=[], backend_of=["billing"]),
            "stock-app": client_of(SECRETS["stock-app"], audiences=["*"], sources=[], backend_of=["stock"]),
        },
        "sources": {
            "users": source(
                users, audiences=["orders", "billing", "stock", "closed", "guarded"], namespace="", **(of_users or {})
            ),
            "workloads": source(workloads, audiences=["orders", "guarded"], namespace="workload"),
        },
        "audiences": {
            "orders": {**backend, "claims": {"roles": "identity.roles", "org": "identity.org + '!'"}},
            "billing": {**backend, "aud": "urn:billing", "claims": {"roles": "identity.roles", "org": "identity.org"}},
            "stock": backend,
            "closed": {**backend},  # nobody is its backend
            "guarded": {
                "allow": "!has(actor.subject) || actor.subject == 'workload|batch-job'",
                "claims": {"by": "actor.subject"},
            },
        },
        "routes": {"orders": {"path": "/orders/**", "audience": "orders", "scopes": ["items:read"]}},
    }


@pytest.fixture(scope="module")
def providers():
    made = Idp("https://users.example.com"), Idp("https://workloads.example.com")
    yield made
    for provider in made:
        provider.close()


@pytest.fixture(scope="module")
def service(providers, tmp_path_factory):
    running = Service(tmp_path_factory.mktemp("delegation"), json.dumps(configuration(*providers)))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture
def asks(service):
    def ask(client, token, audience, **fields):
        form = {
            "grant_type": GRANT,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "audience": audience,
            **fields,
        }
        return service.post(form, client=client, secret=SECRETS[client])

    return ask


@pytest.fixture
def user(providers):
    def token(**changes):
        return providers[0].token(**{"scope": SCOPES, "roles": ["clerk"], "org": "acme", **changes})

    return token


@pytest.fixture
def workload(providers):
    def token(**changes):
        return {"actor_token": providers[1].token(**{"sub": "batch-job", **changes}), "actor_token_type": JWT}

    return token


@pytest.fixture
def minted(asks, user):
    """A token for orders, as its backend has received it."""

    def mint(**changes):
        answer = asks("gateway", user(**changes), "orders")
        assert answer.status == 200, answer
        return answer.token

    return mint


def judged(service, token, audience):
    """The claims by PyJWT."""
    kid = jwt.get_unverified_header(token)["kid"]
    keys = jwt.PyJWKSet.from_dict(service.jwks())
    return jwt.decode(token, keys[kid], algorithms=["ES256"], audience=audience, issuer=ISSUER)


def refusal(answer):
    return answer.status, answer.json["error"], answer.reason


# --- actor tokens ---


def test_a_proven_actor_is_named_and_the_subject_stays(service, asks, user, workload):
    """TE-22, TE-25."""
    answer = asks("gateway", user(), "orders", **workload())
    claims = judged(service, answer.token, "orders")
    assert claims["sub"] == "alice"
    assert claims["act"] == {"sub": "batch-job", "iss": "https://workloads.example.com"}
    assert claims["client_id"] == "gateway"


def test_the_same_request_with_another_actor_or_none_gets_another_token(service, asks, user, workload):
    """TE-25, CA-01: an actor token is part of the cache key."""
    token = user()
    twice = [fields for one in ({}, workload(), workload(jti="another"), {}) for fields in (one, one)]
    answers = [asks("gateway", token, "orders", **fields) for fields in twice]
    actors = [judged(service, answer.token, "orders")["act"]["sub"] for answer in answers]
    assert actors == ["gateway"] * 2 + ["batch-job"] * 4 + ["gateway"] * 2


def test_earlier_actors_are_nested_below_the_newest(service, asks, user, workload):
    """TE-22."""
    answer = asks("gateway", user(act={"sub": "frontend"}), "orders", **workload())
    assert judged(service, answer.token, "orders")["act"] == {
        "sub": "batch-job",
        "iss": "https://workloads.example.com",
        "act": {"sub": "frontend"},
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"aud": "elsewhere"}, "audience_mismatch"),
        ({"iss": "https://evil.example"}, "unknown_issuer"),
        ({"act": {"sub": "somebody"}}, "actor_refused"),
        ({"cnf": {"jkt": "x"}}, "binding_failed"),
        ({"sub": None}, "no_mapping"),
    ],
    ids=str,
)
def test_an_actor_token_is_judged_as_strictly_as_a_subject_token(asks, user, workload, providers, changes, reason):
    """TE-12: one function for subject and actor."""
    fields = {**workload(), "actor_token": providers[1].token(**{"sub": "batch-job", **changes})}
    assert refusal(asks("gateway", user(), "orders", **fields)) == (400, "invalid_request", reason)


def test_a_forged_actor_is_refused(asks, user, workload, providers):
    fields = workload()
    head, _, signature = fields["actor_token"].split(".")
    forged = {**fields, "actor_token": f"{head}.{b64(providers[1].claims(sub='root'))}.{signature}"}
    assert refusal(asks("gateway", user(), "orders", **forged)) == (400, "invalid_request", "bad_signature")


def test_the_actors_source_must_list_the_audience_too(asks, user, workload):
    """Consent is asked of each credential that comes along."""
    assert asks("gateway", user(), "billing").status == 200
    assert refusal(asks("gateway", user(), "billing", **workload())) == (400, "invalid_target", "no_consent")


def test_may_act_holds_the_actor_token_to_its_name(service, asks, user, workload):
    """TE-26."""
    named = {"iss": "https://workloads.example.com", "sub": "batch-job"}
    answer = asks("gateway", user(may_act=named), "orders", **workload())
    assert judged(service, answer.token, "orders")["act"]["sub"] == "batch-job"
    assert refusal(asks("gateway", user(may_act=named), "orders"))[2] == "actor_refused"
    other = {**named, "sub": "another-job"}
    assert refusal(asks("gateway", user(may_act=other), "orders", **workload()))[2] == "actor_refused"


def test_an_actor_that_the_subject_does_not_name_is_refused_unless_the_client_may_bring_it(
    service, asks, user, workload
):
    """Whoever holds two tokens does not act in the name of one for the other."""
    refused = (400, "invalid_request", "actor_refused")
    assert refusal(asks("plain-gateway", user(), "orders", **workload())) == refused
    named = user(may_act={"iss": "https://workloads.example.com", "sub": "batch-job"})
    answer = asks("plain-gateway", named, "orders", **workload())
    assert judged(service, answer.token, "orders")["act"]["sub"] == "batch-job"
    # `actors` is a list of sources: a colleague's token of the users' own is none of them.
    colleague = {"actor_token": user(sub="bob"), "actor_token_type": JWT}
    assert refusal(asks("gateway", user(), "orders", **colleague)) == refused
    event = service.events()[-1]
    assert "`actors`" in event["facts"]["why"]


def test_a_rule_decides_who_may_act(service, asks, user, workload):
    """It reads the actor's mapped identity; without an actor token there is none."""
    answer = asks("gateway", user(), "guarded", **workload())
    assert judged(service, answer.token, "guarded")["by"] == "workload|batch-job"
    assert "by" not in judged(service, asks("gateway", user(), "guarded").token, "guarded")
    answer = asks("gateway", user(), "guarded", **workload(sub="another-job"))
    assert (answer.status, answer.reason) == (400, "not_allowed")


def test_a_token_ends_with_its_actor(asks, user, workload):
    """TE-30."""
    ends = int(time.time()) + 120
    answer = asks("gateway", user(), "orders", **workload(exp=ends))
    assert decoded(answer.token)[1]["exp"] <= ends


# --- exchanged again by a backend ---


def test_a_backend_exchanges_the_users_token_for_the_next_backend(service, asks, minted):
    """TE-22, TE-33."""
    first = minted()
    answer = asks("orders-app", first, "billing")
    before, after = judged(service, first, "orders"), judged(service, answer.token, "urn:billing")
    assert (after["sub"], after["client_id"], after["src"]) == ("alice", "orders-app", "users")
    assert after["act"] == {"sub": "orders-app", "iss": ISSUER, "act": {"sub": "gateway", "iss": ISSUER}}
    assert after["exp"] <= before["exp"]
    assert after["jti"] != before["jti"]


def test_only_what_is_exactly_an_attribute_comes_back(service, asks, minted):
    """A claim that a rule made up for one backend is no attribute for the next one."""
    claims = judged(service, asks("orders-app", minted(), "billing").token, "urn:billing")
    assert claims["roles"] == ["clerk"]
    assert "org" not in claims  # for orders it was changed


def test_scopes_only_narrow(service, asks, minted):
    """TE-07: no wider than the token that came back, whatever the user once had."""
    narrow = asks("orders-app", minted(scope="items:read"), "billing")
    assert judged(service, narrow.token, "urn:billing")["scope"] == "items:read"
    wider = asks("orders-app", minted(scope="items:read"), "billing", scope="items:write")
    assert refusal(wider) == (400, "invalid_scope", "insufficient_scope")


def test_chains_grow_to_four_actors_and_no_further(asks, minted):
    """TE-23."""
    token = minted()
    for client, audience in (("orders-app", "billing"), ("billing-app", "stock"), ("stock-app", "billing")):
        token = asks(client, token, audience).token
    assert decoded(token)[1]["act"]["act"]["act"]["act"] == {"sub": "gateway", "iss": ISSUER}
    assert refusal(asks("billing-app", token, "stock")) == (400, "invalid_request", "actor_refused")


def test_only_the_backend_that_the_token_was_minted_for_may_exchange_it(asks, minted):
    """TE-33."""
    token = minted()
    assert refusal(asks("billing-app", token, "stock")) == (400, "invalid_target", "no_consent")
    assert refusal(asks("gateway", token, "billing")) == (400, "invalid_target", "no_consent")


def test_a_backend_needs_the_audience_in_its_own_list(asks, minted):
    assert refusal(asks("orders-app", minted(), "stock")) == (400, "invalid_target", "no_consent")


def test_the_first_source_must_list_the_next_audience(asks, providers):
    """Nobody launders consent through a backend: workloads reach orders and nothing behind it."""
    first = asks("gateway", providers[1].token(scope=SCOPES), "orders").token
    assert decoded(first)[1]["src"] == "workloads"
    assert refusal(asks("orders-app", first, "billing")) == (400, "invalid_target", "no_consent")
    assert asks("orders-app", first, "orders").status == 200


def test_a_token_for_a_backend_that_is_no_client_carries_no_src_and_comes_back_nowhere(asks, user):
    """TE-33."""
    token = asks("gateway", user(), "closed").token
    assert "src" not in decoded(token)[1]
    assert refusal(asks("orders-app", token, "billing")) == (400, "invalid_request", "unknown_issuer")


def test_a_users_may_act_is_not_washed_away_by_a_backend(asks, user):
    """Lesson 2.3 (Keycloak #52691): what names its actor is minted for one backend and goes no further."""
    first = asks("gateway", user(may_act={"iss": ISSUER, "sub": "gateway"}), "orders").token
    assert "src" not in decoded(first)[1]
    assert refusal(asks("orders-app", first, "billing")) == (400, "invalid_request", "unknown_issuer")


def test_an_actor_reaches_no_further_backend_by_way_of_the_first(service, asks, user, workload):
    """Lesson 2.4: what a gateway is refused for want of the actor's consent, a backend does not get either."""
    assert refusal(asks("gateway", user(), "billing", **workload()))[2] == "no_consent"
    token = asks("gateway", user(), "orders", **workload()).token
    assert refusal(asks("orders-app", token, "billing")) == (400, "invalid_request", "unknown_issuer")
    assert "src" not in judged(service, token, "orders")


def test_a_changed_or_foreign_token_is_no_token_of_ours(asks, minted, providers):
    head, claims, signature = minted().split(".")
    wider = {**decoded(f"{head}.{claims}.{signature}")[1], "scope": "items:admin"}
    assert refusal(asks("orders-app", f"{head}.{b64(wider)}.{signature}", "billing"))[2] == "bad_signature"
    forged = providers[0].ec.sign({**wider, "iss": ISSUER}, {"typ": "at+jwt"})
    assert refusal(asks("orders-app", forged, "billing"))[2] == "unknown_key"


@pytest.mark.parametrize("by", ["our key", "another key"])
def test_a_forged_token_tells_no_backend_which_sources_there_are_nor_what_they_list(asks, minted, providers, by):
    """The answer is the same for a source that lists the audience, for one that does not, and for none."""
    head, claims, signature = minted().split(".")
    told = set()
    for source in ("users", "workloads", "nowhere"):
        forged = {**decoded(f"{head}.{claims}.{signature}")[1], "src": source, "sub": "mallory"}
        token = f"{head}.{b64(forged)}.{signature}"
        if by == "another key":
            token = providers[0].ec.sign(forged, {"typ": "at+jwt"})
        told.add(refusal(asks("orders-app", token, "billing")))
    assert told == {(400, "invalid_request", "bad_signature" if by == "our key" else "unknown_key")}


def test_an_exchange_again_is_cached_like_any_other(service, asks, minted):
    token = minted()
    first, second = (asks("orders-app", token, "billing").token for _ in range(2))
    assert first == second
    assert service.events()[-1]["cached"] is True
    assert service.events()[-1]["source"] == "users"


def test_a_gateways_door_takes_no_token_of_ours(service, minted):
    answer = service.forward(minted(), client="gateway", X_Gateway_Secret=SECRETS["gateway"])
    assert (answer.status, answer.headers["x-auth-reason"]) == (403, "no_consent")


@pytest.mark.parametrize(
    ("section", "name", "reason"), [("sources", "users", "unknown_issuer"), ("clients", "gateway", "revoked")]
)
def test_a_disabled_source_or_client_takes_the_tokens_it_has_made_with_it(providers, tmp_path, section, name, reason):
    """Lesson 2.6: at every exchange, again too, whether it was asked for before or not."""
    users, workloads = providers
    document = configuration(users, workloads)
    running = Service(tmp_path / "again", json.dumps(document))
    try:

        def ask(client, token, audience):
            form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": JWT, "audience": audience}
            return running.post(form, client=client, secret=SECRETS[client])

        first, second = (ask("gateway", users.token(scope=SCOPES, org=org), "orders").token for org in "ab")
        assert ask("orders-app", first, "billing").status == 200
        document[section][name]["enabled"] = False
        running.write(json.dumps(document))
        assert running.reload()["event"] == "reloaded"
        for token in (first, second):
            assert refusal(ask("orders-app", token, "billing")) == (400, "invalid_request", reason)
    finally:
        running.stop()
    assert SECRET not in running.log()
