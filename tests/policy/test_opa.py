"""What OPA is told, and what its answers come to: it only ever narrows."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.errors import NOT_ALLOWED, SOURCE_UNREACHABLE, Refusal
from sts.lookups.opa import Said
from sts.model import Admitted, RequestFacts
from sts.policy.opa import fresh_until

NOW = 1_000_000.0  # the clock of World
ORDERS = {"orders": {"scopes": ["read", "write"], "opa": True}}


class Opa:
    """Says what it is told to say, and keeps what it was asked."""

    def __init__(self, document, max_age=None):
        self.said = Said(document, max_age)
        self.asked = []

    def ask(self, question):
        self.asked.append(question)
        return self.said


@pytest.fixture
def narrow(world):
    """Decide as `orders` (or other audiences) would, then let an OPA narrow it."""

    def narrow(opa, audiences=ORDERS, ask=None, fresh_until=float("inf"), routes=None):
        policy = replace(world.policy(audiences, routes=routes), opa=opa)
        ask = ask or world.ask
        target = policy.target(world.client, ask)
        admitted = Admitted(world.principal, NOW + 600, fresh_until)
        identity = policy.identify(admitted, world.rows)
        grant = policy.decide(world.client, identity, admitted, target, ask, NOW, world.rows)
        return grant, policy.narrow(grant, world.client, identity, admitted, target, ask, NOW)

    return narrow


def test_an_audience_that_does_not_say_so_asks_nobody(narrow):
    opa = Opa({"result": False})
    before, after = narrow(opa, {"orders": {"scopes": ["read"]}})
    assert after is before
    assert opa.asked == []


@pytest.mark.parametrize(
    ("max_age", "fresh", "expected"),
    [(None, float("inf"), NOW), (0.0, float("inf"), NOW), (7.0, float("inf"), NOW + 7), (7.0, NOW + 3, NOW + 3)],
)
def test_true_changes_nothing_but_how_long_the_grant_is_fresh(narrow, max_age, fresh, expected):
    """An answer that does not say how long it may be kept is not kept at all."""
    before, after = narrow(Opa({"result": True, "decision_id": "x"}, max_age), fresh_until=fresh)
    assert after == replace(before, fresh_until=expected)


@pytest.mark.parametrize(
    "document",
    [
        *(
            {},
            {"result": False},
            {"result": None},
            {"result": "true"},
            {"result": 1},
            {"result": 1.0},
            {"result": [True]},
        ),
        *({"result": {"allow": True}}, {"allow": True}, {"Result": True}, {"result": ""}),
    ],
    ids=json.dumps,
)
def test_everything_but_true_refuses(narrow, refused, document):
    with refused(NOT_ALLOWED):
        narrow(Opa(document, 60.0))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_law_nothing_but_true_is_consent(result):
    if result is True:
        assert fresh_until(Opa({"result": result}), {"audience": "orders"}, NOW) == NOW
        return
    with pytest.raises(Refusal) as caught:
        fresh_until(Opa({"result": result}), {"audience": "orders"}, NOW)
    assert caught.value.reason is NOT_ALLOWED


def test_without_anybody_to_ask_there_is_no_consent(narrow, refused):
    with refused(SOURCE_UNREACHABLE):
        narrow(None)


def test_opa_is_told_who_asks_for_whom_for_what_and_no_credential(narrow, world):
    opa, facts = Opa({"result": True}), RequestFacts("GET", "api.example.com", "/orders/7", "https", "10.0.0.1")
    narrow(
        opa, ask=replace(world.ask, door="forward_auth", route="r", scopes=("read",), request=facts), routes={"r": None}
    )
    (question,) = opa.asked
    assert json.loads(json.dumps(question)) == {
        "door": "forward_auth",
        "client": {"id": "gateway"},
        "source": "idp",
        "kind": "jwt",
        "act": {"sub": "gateway", "iss": "https://sts.example.internal"},
        "audience": "orders",
        "scopes": ["read"],
        "identity": {"subject": "alice", "scopes": ["read", "write"], "roles": ["accountant"]},
        "actor": {},
        "request": {
            "method": "GET",
            "host": "api.example.com",
            "path": "/orders/7",
            "scheme": "https",
            "ip": "10.0.0.1",
        },
        "route": {"name": "r"},
    }
    assert world.ask.credential.value not in json.dumps(question)


def test_what_is_not_known_at_the_token_endpoint_is_empty(narrow):
    opa = Opa({"result": True})
    narrow(opa, {"orders": {"opa": True}})
    (question,) = opa.asked
    assert (question["request"], question["route"], question["scopes"], question["door"]) == ({}, {}, None, "token")


def test_each_audience_of_a_token_is_asked_for_and_the_shortest_consent_counts(narrow, world):
    both = {"multi": True, "opa": True}
    opa = Opa({"result": True}, 9.0)
    _, after = narrow(
        opa, {"orders": both, "billing": both, "mail": {"multi": True}},
        replace(world.ask, audiences=("orders", "billing", "mail")),
    )  # fmt: skip
    assert [question["audience"] for question in opa.asked] == ["orders", "billing"]
    assert after.fresh_until == NOW + 9


def test_every_request_fact_belongs_to_the_cache_key(world):
    """Or OPA's consent to one request would let another pass."""
    policy = world.policy(ORDERS)
    ask = replace(world.ask, request=RequestFacts("GET", "api.example.com", "/orders/7", ip="10.0.0.1"))
    facts = policy.facts_read(policy.target(world.client, ask), ask)
    assert facts == (
        ("host", "api.example.com"),
        ("ip", "10.0.0.1"),
        ("method", "GET"),
        ("path", "/orders/7"),
        ("scheme", ""),
    )


def test_who_is_refused_already_is_not_asked_about(narrow, refused):
    opa = Opa({"result": True})
    with refused(NOT_ALLOWED):
        narrow(opa, {"orders": {"opa": True, "allow": "false"}})
    assert opa.asked == []
