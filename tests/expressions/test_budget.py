"""What strangers send cannot make a rule work for long: the work is counted, and refused before it is done."""

import sys

import pytest
from cookbook import RECIPES

from sts.expressions import ABSENT, EvaluationError, bind, compile_rule
from sts.expressions.values import MAX_STEPS, MAX_STEPS_OF_SCOPE

CLAIMS = frozenset({"claims"})
AUDIENCE = frozenset({"identity", "client", "request", "route", "now"})
TOKEN_BYTES = 12_000  # what base64 leaves of a token of 16 KB
ANSWER_BYTES = 64_000  # an introspection answer


def evaluated(text, claims):
    """What an expression comes to over `claims`, and the steps that it took."""
    scope = bind({"claims": claims})
    try:
        found = compile_rule(text, CLAIMS).value(scope)
    except EvaluationError as error:
        found = error.why
    return found, MAX_STEPS_OF_SCOPE - scope.left


def calls_of_python(run):
    """How many functions, of Python and of C, are called: work that is counted by another than the budget."""
    count = 0

    def see(_frame, event, _argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def tried(rule, scope):
    """Evaluate; what comes of it does not matter."""
    try:
        rule.value(scope)
    except EvaluationError:
        return


def rules_of_the_cookbook():
    """Each rule of each recipe, with the variables that it is over."""
    for recipe in RECIPES:
        for fragment in recipe.fragments:
            for name, source in fragment.get("sources", {}).items():
                variable = "certificate" if "certificate" in name else "claims"
                for text in (source.get("require"), *source.get("identity", {}).values()):
                    if text:
                        yield recipe.title, text, frozenset({variable})
            for audience in fragment.get("audiences", {}).values():
                named = (*audience.get("claims", {}).values(), *audience.get("headers", {}).values())
                for text in (audience.get("allow"), *named):
                    if text:
                        yield recipe.title, text, AUDIENCE


RULES = sorted({(text, variables) for _, text, variables in rules_of_the_cookbook()}, key=str)


def hostile(size):
    """Values of about `size` bytes, each the worst for some function."""
    yield "," * size
    yield "a," * (size // 2)
    yield "a" * size
    yield "\u00e9" * (size // 2)
    yield " " * size
    yield [""] * (size // 3)
    yield ["app-orders-"] * (size // 14)
    yield ["4f1a"] * (size // 7)
    yield [None] * (size // 5)
    yield [[]] * (size // 3)
    yield [{}] * (size // 3)
    yield [0] * (size // 2)
    yield {f"{number:x}": 0 for number in range(size // 8)}


def data(text, variables, value):
    """Data that have `value` wherever a rule of the cookbook looks."""

    places = ("groups", "roles", "email", "principal", "sub", "agency_id", "amr", "auth_time", "tenant", "uri", "path")
    names = (*places, "employee_id", "upn", "subject", "ip", "realm_access", "resource_access", "id", "name", "level")
    read = [name for name in names if name in text]
    bound = {name: dict.fromkeys(read, value) for name in variables if name != "now"}
    for one in bound.values():
        one["realm_access"] = {"roles": value}
        one["resource_access"] = {"orders": {"roles": value}}
    return {**bound, **({"now": 1_782_885_600} if "now" in variables else {})}


class Anything:
    """A table whose every row holds the same."""

    def get(self, _pair):
        return {"employee_id": "E7", "roles": ["a"], "level": 1, "account": "A", "site": "B", "cost_centre": "1"}


@pytest.mark.parametrize("size", [TOKEN_BYTES, ANSWER_BYTES], ids=["token", "introspection answer"])
@pytest.mark.parametrize(("text", "variables"), RULES, ids=[text for text, _ in RULES])
def test_no_rule_of_the_cookbook_works_longer_than_its_budget_whatever_is_sent(text, variables, size):
    rule = compile_rule(text, variables)
    for value in hostile(size):
        scope = bind(data(text, variables, value), Anything())
        calls = calls_of_python(lambda scope=scope: tried(rule, scope))
        assert MAX_STEPS_OF_SCOPE - scope.left <= MAX_STEPS
        assert calls <= 2 * MAX_STEPS


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("claims.g.split(',').map(g, g.trim()).filter(g, g != '')", {"g": ",".join(f"g-{n}" for n in range(2000))}),
        (
            "claims.g.filter(g, g.startsWith('app-orders-')).map(g, g.substring(11))",
            {"g": [f"app-orders-{n}" for n in range(2000)]},
        ),
        ("claims.g.exists(g, g in ['a', 'b', 'c'])", {"g": [f"group-{n}" for n in range(4000)]}),
        ("claims.g.all(g, g.matches('^[a-z0-9-]+$'))", {"g": [f"group-{n}" for n in range(1500)]}),
    ],
)
def test_lists_as_long_as_people_have_them_stay_within_the_budget(text, claims):
    assert evaluated(text, claims)[0] not in ("budget", ABSENT)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("claims.l.map(x, x)", {"l": [0] * 30_000}),
        ("claims.l.map(x, claims.t + x)", {"l": ["a"] * 1000, "t": "x" * 60_000}),
        ("claims.t.replace('x', claims.t)", {"t": "x" * 60_000}),
        ("claims.t.replace('', claims.t)", {"t": "x" * 60_000}),
        ("claims.l.join(claims.t)", {"l": [""] * 5000, "t": "x" * 60_000}),
        ("claims.t.split('')", {"t": "x" * 60_000}),
        ("claims.t.split('x')", {"t": "x" * 60_000}),
        ("claims.l.map(x, claims.l == claims.m)", {"l": [0] * 1000, "m": [0] * 1000}),
        ("claims.l.map(x, 'y' in claims.l)", {"l": ["x"] * 2000}),
        ("claims.l.map(x, claims.l.map(y, claims.l.map(z, 0)))", {"l": [0] * 100}),
        ("claims.l.map(x, claims.l + claims.l)", {"l": [0] * 2000}),
        ("claims.l.map(x, claims.t.contains('y'))", {"l": [0] * 100, "t": "x" * 60_000}),
        ("claims.l.map(x, claims.t.lowerAscii())", {"l": [0] * 100, "t": "\u00e9" * 30_000}),
        ("claims.l.map(x, claims.t.matches('^x+$'))", {"l": [0] * 100, "t": "x" * 60_000}),
        ("claims.l.map(x, base64.decode(claims.t))", {"l": [0] * 200, "t": "YWFh" * 10_000}),
        ("claims.l.map(x, bytes(claims.t))", {"l": [0] * 100, "t": "x" * 60_000}),
        ("claims.m.map(x, x)", {"m": {f"{n}": 0 for n in range(30_000)}}),
        ("claims.l.all(x, ip_in(x, '10.0.0.0/8'))", {"l": ["10.0.0.1"] * 3000}),
        ("claims.l.all(x, timestamp(x).getHours('Europe/Berlin') < 24)", {"l": [1_700_000_000] * 3000}),
        ("claims.l.exists(x, x.a || x.b || x.c)", {"l": [{}] * 3000}),
        ("ip_in('10.0.0.1', claims.l)", {"l": ["10.0.0.0/8"] * 10_000}),
        ("[claims.m, claims.m, claims.m, claims.m]", {"m": [0] * 20_000}),
    ],
)
def test_work_beyond_the_budget_is_refused_before_it_is_done(text, claims):
    found, steps = evaluated(text, claims)
    assert found == "budget"
    assert steps == MAX_STEPS
    rule, scope = compile_rule(text, CLAIMS), bind({"claims": claims})
    assert calls_of_python(lambda: tried(rule, scope)) <= 2 * MAX_STEPS


@pytest.mark.parametrize("text", ["{} || true", "true && {}", "[1].exists(y, {})", "[{}].exists(z, z) || true"])
def test_nothing_in_a_rule_makes_up_for_a_spent_budget(text):
    rule = text.replace("{}", "claims.l.all(x, x == 0)")
    assert evaluated(rule, {"l": [0] * 30_000})[0] == "budget"


def test_steps_are_counted_the_same_wherever_the_answer_lies():
    first = evaluated("claims.l.exists(x, x == 1)", {"l": [1] + [0] * 999})
    last = evaluated("claims.l.exists(x, x == 1)", {"l": [0] * 999 + [1]})
    assert first == last
    assert first[1] == 1000 * 4 + 15  # a turn and three nodes for each element; fifteen nodes of the loop itself


def test_all_rules_over_the_same_variables_share_one_budget_beside_their_own():
    rule = compile_rule("claims.l.exists(x, x == 1)", CLAIMS)
    scope = bind({"claims": {"l": [0] * 10_000}})
    assert [rule.value(scope) for _ in range(4)] == [False] * 4
    with pytest.raises(EvaluationError, match="budget"):
        [rule.value(scope) for _ in range(4)]
    assert compile_rule("claims.sub", CLAIMS).value(scope) is ABSENT  # a plain path costs nothing that grows


def test_the_recipes_are_found():
    assert len(RULES) > 20
