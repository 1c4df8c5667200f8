"""The negative cache: a service that has it answers as one without it, whatever happens in between."""

import json
import time

import pytest
from harness import Key
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from in_process import World

from sts.app import App
from sts.audit.log import AuditLog
from sts.cache.memory import Memory
from sts.cache.refusals import BYTES, LASTING, LIFE_S, Refusals
from sts.credentials import jwt
from sts.errors import REASONS
from sts.settings import load
from sts.state.revocations import name_of, revoke

STRANGER = Key("stranger", "ES256")
START = int(time.time()) - 900 + 0.5  # another hour than the machine has: nothing here may lean on its clock


class Twins(World):
    """Two services that share all but their caches: `app` has the negative one, `plain` none. Time stands still."""

    def __init__(self, folder):
        self.at, self.jwks = START, folder / "jwks.json"
        super().__init__(folder, self.prepared)
        self.document = json.loads(self.file.read_text())
        self.plain_events = []
        audit = AuditLog(self.audit_key, self.plain_events.append, self.clock, time.monotonic)
        self.plain = App(load(self.file), self.secret, self.keyring, audit, self.state, self.clock)
        self.plain.refusals = Refusals(Memory(0), self.state.revocations.current)
        self.plain.swap(load(self.file))

    def prepared(self, document):
        self.keys(self.idp.keys)
        source = document["sources"]["corporate-idp"]
        del source["jwks_uri"]
        source.update(jwks_file=str(self.jwks), require="!has(claims.blocked)", max_age="10m")
        document["audiences"]["timed"] = {"allow": "now % 2 == 0"}
        document["clients"]["edge-gateway"]["audiences"].append("timed")

    def clock(self):
        return self.at

    def token(self, key=None, **changes):
        """A good token at the hour of these services, with changes."""
        return self.idp.token(key, **{"iat": int(START) - 1, "exp": int(START) + 500, **changes})

    def keys(self, keys):
        self.jwks.write_text(json.dumps({"keys": keys}))

    def reload(self):
        self.file.write_text(json.dumps(self.document))
        for app in (self.app, self.plain):
            app.swap(load(self.file))

    def revoked(self, kind, value):
        revoke(self.state.store, name_of(self.audit_key, kind, value), self.clock())
        self.state.revocations.refresh()

    def asked(self, token, audience):
        """What each of them answers, and its event without what belongs to this one request."""
        found, app = [], self.app
        for one, events in ((app, self.events), (self.plain, self.plain_events)):
            self.app, before = one, len(events)
            try:
                reply = self.exchange(token, audience=audience)
            finally:
                self.app = app
            assert len(events) == before + 1
            event = json.loads(events[-1])
            own = ("time", "request_id", "duration_us", "jti", "kid", "cached")
            facts = {name: value for name, value in event.pop("facts", {}).items() if not isinstance(value, int)}
            shown = {name: value for name, value in event.items() if name not in own}
            found.append((reply.status, json.loads(reply.body).get("error_reason"), shown, facts))
        return found


CHANGES = [
    {},
    {"roles": ["clerk"]},
    {"roles": ["clerk"], "sub": "mallory", "jti": "named"},
    {"roles": ["clerk"], "exp": 7},
    {"roles": ["clerk"], "iat": -597},
    {"roles": ["clerk"], "nbf": 12},
    {"scope": None},
    {"aud": "elsewhere"},
    {"aud": "elsewhere", "exp": 6},
    {"aud": None},
    {"blocked": True},
    {"sub": None},
    {"sub": "edge-gateway"},
    {"may_act": {"sub": "another"}},
    {"cnf": {"jkt": "x"}},
    {"exp": -1},
    {"iat": -601},
    {"iat": None, "roles": ["clerk"]},
]
TIMES = ("exp", "iat", "nbf")


class Sequences(RuleBasedStateMachine):
    """Requests, reloads, rotations of the issuer's keys, revocations and time."""

    folder = None
    number = 0

    @initialize()
    def begin(self):
        type(self).number += 1
        place = self.folder / str(self.number)
        place.mkdir()
        self.made, self.recent, self.twins = {}, [], Twins(place)

    def teardown(self):
        self.twins.close()

    def token(self, changes, key):
        said = {name: int(START) + value if name in TIMES and value else value for name, value in changes.items()}
        idp = self.twins.idp
        key = {"rsa": idp.rsa, "ec": idp.ec, "stranger": STRANGER}[key]
        if (repr(changes), key.kid) not in self.made:
            self.made[repr(changes), key.kid] = self.twins.token(key, **said)
        return self.made[repr(changes), key.kid]

    @rule(
        changes=st.sampled_from(CHANGES),
        key=st.sampled_from(["rsa", "rsa", "ec", "stranger"]),
        audience=st.sampled_from(["orders", "billing", "timed"]),
        again=st.integers(1, 2),
    )
    def ask(self, changes, key, audience, again):
        self.recent = [*self.recent[-3:], (self.token(changes, key), audience)]
        for _ in range(again):
            self.ask_again()

    def ask_again(self):
        """What was asked lately, after whatever has happened since."""
        for token, audience in self.recent:
            with_cache, without = self.twins.asked(token, audience)
            assert with_cache == without

    @rule(seconds=st.sampled_from([0.25, 1.0, 1.5, 4.9, 5.0, 30.0]))
    def wait(self, seconds):
        self.twins.at += seconds
        self.ask_again()

    @rule(
        name=st.sampled_from(
            [("subject", "alice"), ("subject", "mallory"), ("jti", "named"), ("source", "corporate-idp")]
        )
    )
    def revoke(self, name):
        self.twins.revoked(*name)
        self.ask_again()

    @rule(kept=st.sampled_from(["both", "ec", "rsa"]))
    def rotate(self, kept):
        idp = self.twins.idp
        self.twins.keys({"both": idp.keys, "ec": [idp.ec.jwk], "rsa": [idp.rsa.jwk]}[kept])
        self.twins.reload()
        self.ask_again()

    @rule(
        role=st.sampled_from(["accountant", "clerk"]),
        named=st.booleans(),
        audience=st.sampled_from(["api-gateway", "elsewhere"]),
    )
    def reload(self, role, named, audience):
        document = self.twins.document
        document["audiences"]["billing"]["allow"] = f"'{role}' in identity.roles"
        document["sources"]["corporate-idp"]["audience"] = audience
        document["clients"].pop("mallory", None)
        if named:
            document["clients"]["mallory"] = {"auth": "secret", "secrets": ["sha256:" + "1" * 64], "audiences": []}
        self.twins.reload()
        self.ask_again()


def test_law_a_service_with_the_negative_cache_answers_as_one_without_it(tmp_path):
    Sequences.folder = tmp_path
    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.fixture
def twins(tmp_path):
    made = Twins(tmp_path)
    yield made
    made.close()


@pytest.fixture
def proofs(monkeypatch):
    """How many signatures were verified."""
    counted, verify = [], jwt.verify

    def counting(*arguments):
        counted.append(1)
        return verify(*arguments)

    monkeypatch.setattr(jwt, "verify", counting)
    return counted


def refusal(twins, token, audience="billing"):
    return json.loads(twins.exchange(token, audience=audience).body).get("error_reason")


def test_a_refused_request_is_refused_again_without_a_proof_for_five_seconds(twins, proofs):
    token = twins.token(roles=["clerk"])
    assert [refusal(twins, token) for _ in range(3)] == ["not_allowed"] * 3
    assert len(proofs) == 1
    assert len(twins.events) == 3
    first, *others = map(json.loads, twins.events)
    assert {event["subject_hash"] for event in others} == {first["subject_hash"]} != {None}
    twins.at += LIFE_S
    assert refusal(twins, token) == "not_allowed"
    assert len(proofs) == 2


@pytest.mark.parametrize(
    ("changes", "audience", "reason"),
    [
        ({"nbf": START + 60}, "orders", "not_yet_valid"),
        ({"cnf": {"jkt": "x"}}, "orders", "binding_failed"),
        ({"exp": START - 1}, "orders", "expired"),
        ({}, "timed", "not_allowed"),
    ],
    ids=["not yet valid", "bound to a key", "expired", "a rule that reads the time"],
)
def test_what_may_pass_a_moment_later_is_not_remembered(twins, changes, audience, reason):
    twins.at = START + (START - 0.5 + 1) % 2  # an odd second
    if audience != "timed":
        twins.at = START
    assert refusal(twins, twins.token(**changes), audience) == reason
    assert len(twins.app.refusals._memory) == 0


def test_a_wrong_signature_and_an_unknown_key_are_not_remembered(twins):
    head, _, signature = twins.token().rpartition(".")
    assert refusal(twins, f"{head}.AAAA{signature[4:]}") == "bad_signature"
    assert refusal(twins, twins.token(STRANGER)) == "unknown_key"
    assert len(twins.app.refusals._memory) == 0


def test_a_flood_of_refusals_takes_no_more_than_its_own_memory_and_no_token_with_it(twins):
    good = twins.token()
    assert refusal(twins, good, "orders") is None
    for number in range(20):
        assert refusal(twins, twins.token(twins.idp.ec, roles=["clerk"], jti=str(number))) == "not_allowed"
    memory = twins.app.refusals._memory
    assert memory.bound == BYTES
    assert 20 * 500 < memory.size < 20 * 5000
    assert len(twins.app.memory) == 1


def test_no_reason_that_another_party_or_a_moment_decides_lasts():
    names = {reason.name for reason in LASTING}
    assert names <= set(REASONS)
    assert not any(reason.retry for reason in LASTING)
    assert names.isdisjoint({"unknown_key", "bad_signature", "not_yet_valid", "revoked", "replayed", "expired"})


def test_a_refusal_ends_with_the_issuers_key_that_proved_its_credential(twins, proofs, monkeypatch):
    token = twins.token(roles=["clerk"])
    assert [refusal(twins, token) for _ in range(2)] == ["not_allowed"] * 2
    assert len(proofs) == 1
    monkeypatch.setattr(jwt.JwtSource, "key_current", lambda _source, _key: False)
    assert refusal(twins, token) == "not_allowed"
    assert len(proofs) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"exp": START + 4}, "expired"), ({"iat": START - 597}, "too_old")],
    ids=["expired", "too old"],
)
def test_a_refusal_ends_where_the_age_of_its_credential_gives_another_reason(twins, changes, reason):
    token = twins.token(roles=["clerk"], **changes)
    assert refusal(twins, token) == "not_allowed"
    twins.at += 3.5
    assert refusal(twins, token) == reason
