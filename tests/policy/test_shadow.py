"""A rule on trial: judged and told, and never part of the decision."""

from dataclasses import replace

import pytest

from sts.errors import NOT_ALLOWED
from sts.expressions import Expression
from sts.model import RequestFacts, Trial


def granted(world, shadow, **audience):
    return world.decide(world.policy({"orders": {"scopes": ["read", "write"], "shadow": shadow, **audience}}))


@pytest.mark.parametrize(
    ("shadow", "outcome"),
    [
        ("'accountant' in identity.roles", "allow"),
        ("'admin' in identity.roles", "deny"),
        ("identity.tenant == 'x'", "error"),
        ("identity.subject > 1", "error"),
        ("dyn('yes')", "error"),
        ("request.ip == '10.0.0.1'", "error"),
    ],
)
def test_what_a_rule_on_trial_would_have_done_is_told_and_not_done(world, shadow, outcome):
    without = replace(world.decide(), shadow={})
    grant = granted(world, shadow)
    assert grant.shadow == {"orders": Trial(outcome, lasts=True)}
    assert replace(grant, shadow={}) == without


def test_any_fault_of_a_rule_on_trial_is_an_error_of_that_rule_alone(world, monkeypatch):
    policy = world.policy({"orders": {"scopes": ["read"], "shadow": "true"}})

    def broken(_self, _scope):
        raise MemoryError

    monkeypatch.setattr(Expression, "holds", broken)
    assert world.decide(policy).shadow["orders"].outcome == "error"


def test_a_rule_on_trial_that_reads_the_clock_leaves_the_token_in_the_cache_and_does_not_last(world):
    grant = granted(world, "timestamp(now).getHours() < 24")
    assert grant.keep is True
    assert grant.shadow == {"orders": Trial("allow", lasts=False)}


def test_the_request_facts_that_a_rule_on_trial_reads_are_part_of_the_cache_key(world):
    """Or one request's judgement would be written down for another."""
    policy = world.policy({"orders": {"shadow": "request.ip == '10.0.0.1'"}})
    facts = RequestFacts("GET", "api.example.com", "/orders/1", ip="10.0.0.1")
    ask = replace(world.ask, request=facts)
    assert policy.facts_read(policy.target(world.client, ask), ask) == (("ip", "10.0.0.1"),)


def test_each_audience_has_its_own_trial(world):
    policy = world.policy(
        {
            "orders": {"multi": True, "shadow": "false"},
            "billing": {"multi": True, "shadow": "true"},
            "mail": {"multi": True},
        }
    )
    grant = world.decide(policy, replace(world.ask, audiences=("orders", "billing", "mail")))
    assert {name: trial.outcome for name, trial in grant.shadow.items()} == {"orders": "deny", "billing": "allow"}


def test_who_is_refused_anyway_is_no_trial(world, refused):
    with refused(NOT_ALLOWED):
        granted(world, "true", allow="false")
