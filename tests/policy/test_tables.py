"""Looking rows up: before the decision, and never believed without it."""

from dataclasses import replace

import pytest

from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.lookups.rows import MAX_ROWS, Rows
from sts.model import TYPE_JWT, Presented, Row

NOW = 1_000_000.0


class Staff:
    """A table that says who was asked for."""

    trouble = ""

    def __init__(self, rows, fresh_until=float("inf")):
        self.rows, self.fresh_until, self.asked = rows, fresh_until, []

    def row(self, key, now):
        assert now == NOW
        self.asked.append(key)
        if self.rows is None:
            raise Refusal(SOURCE_UNREACHABLE, why="it answered 500")
        values = self.rows.get(key)
        return None if values is None else Row(values, self.fresh_until)


STAFF = {"alice": {"id": "E7", "boss": "bob"}, "bob": {"id": "E8", "boss": "carol"}, "carol": {"id": "E9"}}


def grant(world, source=None, audience=None, ask=None, **tables):
    """What is decided with these tables; the rules are those of a source and an audience."""
    world.rows = Rows(tables, lambda: NOW)
    policy = world.policy({"orders": {"scopes": ["read", "write"], **(audience or {})}}, source, {"r": None})
    return world.rows.given(lambda: world.decide(policy, ask))


def refused(world, **arguments):
    with pytest.raises(Refusal) as caught:
        grant(world, **arguments)
    return caught.value.reason.name, caught.value.facts


def mapping(**rules):
    return {"identity": {"subject": "claims.sub", "scopes": "claims.scope", **rules}}


def test_an_external_id_becomes_an_internal_one(world):
    staff = Staff(STAFF)
    found = grant(world, mapping(subject="lookup('staff', claims.sub).id"), staff=staff)
    assert found.subject == "E7"
    assert staff.asked == ["alice"]


def test_a_row_is_asked_for_once_however_many_rules_read_it(world):
    staff = Staff(STAFF)
    rule = "lookup('staff', claims.sub).id"
    claims = {"a": "lookup('staff', 'alice').id", "b": "lookup('staff', 'alice').boss"}
    found = grant(world, mapping(subject=rule, employee=rule), {"claims": claims}, staff=staff)
    assert dict(found.claims) == {"a": "E7", "b": "bob"}
    assert staff.asked == ["alice"]


def test_a_key_may_come_out_of_another_row(world):
    rule = "lookup('staff', lookup('staff', claims.sub).boss).id"
    assert grant(world, mapping(subject=rule), staff=Staff(STAFF)).subject == "E8"


@pytest.mark.parametrize(
    "rules",
    [
        {"source": mapping(subject="lookup('staff', 'nobody').id")},
        {"source": mapping(x="lookup('staff', 'nobody').?id.orValue('guest')")},
        {"source": {**mapping(), "require": "lookup('staff', 'nobody').id == 'x' || true"}},
        {"audience": {"allow": "lookup('staff', 'nobody').id != '' || true"}},
        {"audience": {"claims": {"a": "has(lookup('staff', 'nobody').id)"}}},
    ],
)
def test_no_row_is_no_mapping_whatever_the_rule_makes_of_it(world, rules):
    reason, facts = refused(world, **rules, staff=Staff(STAFF))
    assert (reason, facts["table"]) == ("no_mapping", "staff")
    assert "nobody" not in str(facts)


@pytest.mark.parametrize(
    "rules",
    [
        {"source": mapping(subject="lookup('staff', claims.sub).?id.orValue('guest')")},
        {"source": {**mapping(), "require": "lookup('staff', claims.sub).id == 'x' || true"}},
        {"audience": {"allow": "true || lookup('staff', identity.subject).id != ''"}},
        {"audience": {"allow": "lookup('staff', identity.subject).id != '' || true"}},
        {"audience": {"claims": {"a": "lookup('staff', identity.subject).id"}}},
    ],
)
def test_a_look_up_that_failed_is_503_whatever_the_rule_makes_of_it(world, rules):
    if rules.get("audience", {}).get("allow", "").startswith("true ||"):
        assert grant(world, **rules, staff=Staff(None)).subject == "alice"  # it was never needed
    else:
        told = {"why": "it answered 500", "table": "staff"}  # of which there may be several
        assert refused(world, **rules, staff=Staff(None)) == ("source_unreachable", told)


def test_four_rows_may_be_looked_up_and_not_five(world):
    def claims(count):
        return {"claims": {f"c{n}": f"lookup('staff', '{n}').id" for n in range(count)}}

    staff = Staff({str(n): {"id": f"E{n}"} for n in range(9)})
    assert len(grant(world, audience=claims(MAX_ROWS), staff=staff).claims) == MAX_ROWS
    reason, facts = refused(world, audience=claims(MAX_ROWS + 1), staff=staff)
    assert (reason, facts["why"]) == ("no_mapping", "more than 4 rows are looked up")


def test_a_list_that_a_caller_brings_does_not_look_up_more(world):
    world.claims["roles"] = [str(n) for n in range(500)]
    staff = Staff({str(n): {"id": f"E{n}"} for n in range(500)})
    rule = mapping(groups="claims.roles.map(r, lookup('staff', r).id)")
    assert refused(world, source=rule, staff=staff)[0] == "no_mapping"
    assert len(staff.asked) == MAX_ROWS


def test_the_judgement_ends_with_the_first_row_that_does(world):
    claims = {"claims": {"a": "lookup('x', 'alice').id", "b": "lookup('y', 'alice').id"}}
    found = grant(world, audience=claims, x=Staff(STAFF, NOW + 60), y=Staff(STAFF, NOW + 30))
    assert found.fresh_until == NOW + 30
    assert grant(world, x=Staff(STAFF, NOW + 60)).fresh_until == float("inf")


def test_a_column_that_a_row_does_not_have_is_an_absent_attribute(world):
    assert (
        dict(grant(world, audience={"claims": {"a": "lookup('staff', 'carol').boss"}}, staff=Staff(STAFF)).claims) == {}
    )
    assert (
        refused(world, source=mapping(subject="lookup('staff', 'carol').boss"), staff=Staff(STAFF))[0] == "no_mapping"
    )


def test_the_answer_depends_on_the_tables_that_its_rules_read(world):
    world_policy = world.policy(
        {"orders": {"claims": {"a": "lookup('b', 'x').id"}}, "other": {}},
        mapping(subject="lookup('a', claims.sub).id"),
        {"r": "lookup('c', 'x').id == ''"},
    )
    names = [f"{kind}/{name}" for kind in ("client", "source", "audience", "route", "table") for name in "abcr"]
    world_policy.fingerprints.update({name: name for name in [*names, "client/gateway", "source/idp"]})
    world_policy.fingerprints.update({"audience/orders": "o", "audience/other": "p"})
    target = world_policy.target(world.client, world.ask)
    presented = [Presented("jwt", "idp", TYPE_JWT, None)]
    assert set(world_policy.parts(world.client, presented, target, world.ask)) >= {"table/a", "table/b"}
    assert "table/c" not in world_policy.parts(world.client, presented, target, world.ask)
    by_route = replace(world.ask, route="r")
    assert "table/c" in world_policy.parts(world.client, presented, target, by_route)
