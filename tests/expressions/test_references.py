"""No evaluation loses or keeps references: a lost one of None ends the process, a kept one fills its memory."""

import gc
import sys

import pytest

from sts.expressions import EvaluationError, bind, compile_rule
from sts.expressions.values import MAX_STEPS_OF_SCOPE

CLAIMS = frozenset({"claims"})
SHARED = [None, True, False, 0, 1, 7, 256, "", "a", ()]
VALUES = {
    "null": None,
    "nulls": [None] * 50,
    "true": True,
    "booleans": [True, False] * 25,
    "number": 7,
    "numbers": [0, 1, 7, 256] * 10,
    "large": 2**63,
    "double": 1.5,
    "text": "a",
    "texts": ["", "a"] * 25,
    "map": {"a": None, "b": [1, None], "c": {"d": True}},
    "maps": [{"a": None}] * 20,
    "empty": [],
    "nested": [[None, [True, [1, ["a"]]]]],
}
EXPRESSIONS = [
    "claims.v",
    "[claims.v]",
    "{'a': claims.v}",
    "claims.?v",
    "[?claims.?v]",
    "claims.v == null",
    "claims.v == claims.v",
    "dyn(claims.v) in [claims.v]",
    "type(claims.v) == int",
    "string(claims.v)",
    "size(claims.v)",
    "claims.v.map(x, x)",
    "claims.v.filter(x, x != null)",
    "claims.v.all(x, x == 1)",
    "claims.v.exists(x, x == null) || true",
    "claims.v[0]",
    "claims.v.a",
    "claims.?v[?0].orValue(null)",
    "claims.?v.optMap(x, [x, null])",
    "claims.v + claims.v",
    "claims.gone == null || claims.v == null",
    "claims.v ? 1 : 2",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_reference_counts_are_what_they_were(text):
    rule = compile_rule(text, CLAIMS)
    scopes = [bind({"claims": {"v": value}}) for value in VALUES.values()]

    def evaluate(times):
        for scope in scopes:
            for _ in range(times):
                scope.left = MAX_STEPS_OF_SCOPE
                try:
                    rule.value(scope)
                except EvaluationError:
                    continue

    evaluate(2)
    gc.collect()
    before = [sys.getrefcount(one) for one in SHARED]
    evaluate(100)
    gc.collect()
    after = [sys.getrefcount(one) for one in SHARED]
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) < 50  # other threads count too


def test_a_list_of_nulls_costs_no_worker_its_life():
    rule = compile_rule("claims.roles", CLAIMS)
    made = compile_rule("claims.roles.map(r, r)", CLAIMS)
    for _ in range(100):
        scope = bind({"claims": {"roles": [None] * 2000}})
        assert rule.value(scope) == made.value(scope) == [None] * 2000
