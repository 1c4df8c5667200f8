import dataclasses
import json
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.expressions import (
    ABSENT,
    EvaluationError,
    ExpressionError,
    bind,
    check_condition,
    check_reads,
    compile_rule,
)
from sts.expressions.words import FUNCTIONS

CLAIMS = frozenset({"claims"})
RULE = frozenset({"identity", "client", "request", "route", "now"})
DATA = {
    "claims": {
        "sub": "alice",
        "admin": True,
        "off": False,
        "nothing": None,
        "roles": ["reader", "writer"],
        "realm": {"roles": ["a"], "depth": {"x": 1}},
        "count": 5,
        "largest": 2**63 - 1,
        "ratio": 1.5,
        "secret": "marker-of-a-users-value",
    }
}


def value(text, data=DATA, variables=CLAIMS):
    return compile_rule(text, variables).value(data)


def why(text, data=DATA, variables=CLAIMS):
    with pytest.raises(EvaluationError) as caught:
        compile_rule(text, variables).value(data)
    return caught.value.why


def outcome(expression, data):
    """What an evaluation comes to, comparable, with 1, 1.0 and true kept apart."""
    try:
        found = expression.value(data)
    except EvaluationError as error:
        return "refused", error.why
    return "absent" if found is ABSENT else json.dumps(found, sort_keys=True)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("claims.admin", True),
        ("claims.admin == true", True),
        ("claims.off", False),
        ("'writer' in claims.roles", True),
        ("has(claims.email)", False),
        ("claims.?admin", True),
        ("claims.?admin.orValue(false)", True),
        ("claims.email == 'x' || claims.admin", True),
    ],
)
def test_a_rule_holds_only_where_it_is_exactly_true(text, held):
    assert compile_rule(text, CLAIMS).holds(DATA) is held


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("'x' in claims.groups", "absent key"),
        ("claims.email", "absent key"),
        ("claims.sub", "type mismatch"),
        ("claims.count", "type mismatch"),
        ("claims.roles", "type mismatch"),
        ("claims.nothing", "type mismatch"),
        ("claims.?email", "type mismatch"),
        ("claims.sub && true", "type mismatch"),
        ("claims.largest + 1 > 0", "overflow"),
        ("1 / (claims.count - 5) == 1", "other"),
    ],
)
def test_a_rule_that_is_neither_true_nor_false_is_an_error(text, reason):
    with pytest.raises(EvaluationError) as caught:
        compile_rule(text, CLAIMS).holds(DATA)
    assert caught.value.why == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("claims.sub", "alice"),
        ("  claims.sub\n", "alice"),
        ("claims.realm.depth.x", 1),
        ("claims.roles", ["reader", "writer"]),
        ("claims.roles.filter(r, r.startsWith('w'))", ["writer"]),
        ("claims.sub.upperAscii() + '!' // shout", "ALICE!"),
        ("{'a': claims.count, ?'b': claims.?email}", {"a": 5}),
        ("[claims.ratio, claims.admin]", [1.5, True]),
        ("claims.?roles[?0]", "reader"),
        ("claims.?roles.optMap(r, r[1])", "writer"),
        ("18446744073709551615u", 2**64 - 1),
        ("string(base64.decode('YWJj'))", "abc"),
        ("math.greatest(claims.count, 9)", 9),
    ],
)
def test_a_value_comes_as_plain_python(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "claims.email",
        "claims.realm.nothing.deeper",
        "claims.nothing",
        "claims.roles.map(r, claims.email)",
        "claims.email + '@example.com'",
        "claims.?email",
        "claims.?roles[?7]",
        "optional.none()",
        "optional.of(null)",
        "null",
    ],
)
def test_an_absent_key_null_and_none_are_absent(text):
    assert value(text) is ABSENT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("claims.sub.deeper", "type mismatch"),
        ("claims.nothing.deeper", "type mismatch"),
        ("claims.sub + 1", "type mismatch"),
        ("claims.roles['a']", "type mismatch"),
        ("claims.largest * 2", "overflow"),
        ("claims.roles[7]", "other"),
        ("int(claims.sub)", "other"),
        ("b'bytes'", "type mismatch"),
        ("duration('5s')", "type mismatch"),
        ("type(1)", "type mismatch"),
        ("[timestamp(claims.count)]", "type mismatch"),
        ("dyn(optional.of(optional.of(1)))", "type mismatch"),
    ],
)
def test_every_other_failure_is_an_error_with_its_class(text, reason):
    assert why(text) == reason


@pytest.mark.parametrize("text", ["{'a': dyn(claims.?email)}", "[claims.roles[?9]]", "true ? [claims.?a] : claims.sub"])
def test_an_optional_hidden_in_a_list_or_map_is_an_error_and_does_not_end_the_process(text):
    assert why(text) == "type mismatch"


def test_data_that_the_library_quotes_cannot_make_a_fault_look_like_an_absence():
    hostile = {"claims": {"sub": "x", "pattern": "NOT_FOUND:("}}
    assert why("int(claims.pattern)", hostile) == "other"


def test_a_variable_that_is_not_there_is_an_error_also_on_a_plain_path():
    data = {"identity": {"a": 1}}
    assert why("request.ip", data, RULE) == "absent variable"
    assert why("request.ip == 'x'", data, RULE) == "absent variable"


@pytest.mark.parametrize(
    "text",
    [
        "claims.secret + 1",
        "int(claims.secret)",
        "claims.roles[claims.secret]",
        "timestamp(claims.secret)",
        "ip_in(claims.secret, '10.0.0.0/8')",
    ],
)
def test_an_error_names_no_value_of_the_data(text):
    with pytest.raises(EvaluationError) as caught:
        value(text)
    assert "marker" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_now_is_whole_seconds_and_compares_with_numeric_dates():
    data = {"identity": {"auth_time": 1_700_000_000}, "now": 1_700_000_299.9}
    assert compile_rule("now - identity.auth_time < 300", RULE).holds(data)
    assert value("now", data, RULE) == 1_700_000_299
    assert value("timestamp(now).getFullYear()", data, RULE) == 2023


NAMES = st.sampled_from(["a", "b", "sub", "class_", "_x"])
TEXTS = st.text("aZ0_.'\"\\ \n\x7f\u00e9\u202e\U0001f600", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(NAMES, JSON, max_size=4), st.lists(NAMES, max_size=3))
def test_a_plain_path_gives_what_cel_gives(claims, names):
    text = ".".join(["claims", *names])
    straight = compile_rule(text, CLAIMS)
    by_cel = dataclasses.replace(straight, _path=())
    assert straight._path
    assert outcome(straight, {"claims": claims}) == outcome(by_cel, {"claims": claims})


BAD_TEXTS = st.text("a\0\ud800\udfff\u00e9 ", max_size=3)
HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=3)
    | st.integers(5000, 5001).map(lambda digits: 10**digits),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.sets(st.integers(), max_size=2)
        | st.dictionaries(BAD_TEXTS | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.dictionaries(NAMES, HOSTILE, max_size=4))
def test_hostile_data_raises_nothing_but_an_evaluation_error(claims):
    for text in ("claims.a", "claims.a == claims.b", "claims.a + 'x'", "claims.?a[?0]", "claims.map(k, claims[k])"):
        outcome(compile_rule(text, CLAIMS), {"claims": claims})


@settings(max_examples=200)
@given(
    st.text("a\0\ud800\ufeff\u00e9 ", max_size=5)
    | st.text("claims.sub()[]{}?:'\"+-!|&=<>0123456789 \n\\`,/", max_size=40)
)
def test_any_text_compiles_or_raises_an_expression_error_of_one_bounded_line(text):
    try:
        compile_rule(text, CLAIMS)
        said = ""
    except ExpressionError as error:
        said = str(error)
    assert len(said) <= 200
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 +", "column 4: it ends too early"),
        ("", "column 1: it ends too early"),
        (
            "identity.a &&\n  idntity.b",
            "line 2, column 10: unknown name or function `idntity`; did you mean `identity`?",
        ),
        ("claims.sub", "column 7: unknown name or function `claims`; there is "),
        ("lower(identity.a)", "column 6: unknown name or function `lower`; did you mean `lowerAscii`?"),
        ("identity.a.lowerASCII()", "unknown name or function `lowerASCII`; did you mean `lowerAscii`?"),
        ("identity.a.match('x')", "unknown name or function `match`; did you mean `matches`?"),
        ("ipin(request.ip, 'x')", "unknown name or function `ipin`; did you mean `ip_in`?"),
        ("base64.decod('x')", "unknown name or function `base64`; did you mean `base64.decode` or `base64.encode`?"),
        ("roles", "unknown name or function `roles`; there is `client`, `identity`"),
        ("lookup('x', 1)", "column 7: `lookup` does not take (string, int)"),
        ("1 + 'a'", "column 3: `+` does not take (int, string)"),
        ("[1][true]", "column 4: `[]` does not take (list(int), bool)"),
        ("has(identity)", "has() argument must be a field selection"),
        ("[identity.?a]", "optional"),
        ("(" * 300, "nested too deeply"),
        ("identity" + ".a" * 300, "nested too deeply"),
        ("'" + "a" * 5000 + "'", "longer than 4096 characters"),
        ("\ud800", "not valid Unicode"),
        ("'abc", "column 1: "),
        ("identity.roles = 'x'", "column 16: `=` has no place here; did you mean `==`?"),
        ("identity.a === 'x'", "`=` has no place here; did you mean `==`?"),
        ("true & false", "`&` has no place here; did you mean `&&`?"),
        ("'a' in identity.roles and true", "column 23: `and` has no place here; did you mean `&&`?"),
        ("'a' in identity.roles or true", "`or` has no place here; did you mean `||`?"),
        ("'a' in identity.roles)", "column 22: `)` has no place here"),
    ],
)
def test_a_faulty_expression_is_one_line_that_says_where_and_what(text, message):
    with pytest.raises(ExpressionError) as caught:
        compile_rule(text, RULE)
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)  # what pydantic takes for a fault of the configuration
    for noise in ("INVALID_ARGUMENT", "<input>", "expecting {", "\n", "container"):
        assert noise not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_function_that_is_offered_is_there(name):
    call = {"base64.decode": "base64.decode('')", "base64.encode": "base64.encode(b'')"}.get(name, f"{name}()")
    if "." in name:
        compile_rule(call, RULE)
        return
    used = {
        "exists": "[1].exists(x, true)",
        "filter": "[1].filter(x, true)",
        "first": "[1].first()",
        "last": "[1].last()",
        "getDayOfWeek": "timestamp(now).getDayOfWeek('Europe/Berlin')",
        "getHours": "timestamp(now).getHours('Europe/Berlin')",
        "hasValue": "identity.?a.hasValue()",
        "ip_in": "ip_in(request.ip, '10.0.0.0/8')",
        "join": "['a'].join(' ')",
        "lookup": "lookup('t', 'k')",
        "optMap": "identity.?a.optMap(x, x)",
        "orValue": "identity.?a.orValue('')",
        "replace": "'a'.replace('a', 'b')",
        "size": "size('a')",
        "string": "string(1)",
        "substring": "'a'.substring(1)",
        "timestamp": "timestamp(now)",
    }
    texts = {"contains", "endsWith", "matches", "split", "startsWith"}
    compile_rule(used.get(name) or (f"'a'.{name}('b')" if name in texts else f"'a'.{name}()"), RULE)
    with pytest.raises(ExpressionError, match=f"`{name}` is not called like this"):
        compile_rule(f"identity.x.{name}(1, 2, 3, 4, 5, 6)", RULE)


def test_a_misspelt_attribute_is_found_with_its_near_miss():
    known = {"identity": frozenset({"tenant", "roles"})}
    check_reads(compile_rule("identity.tenant == client.whatever && has(identity.roles)", RULE), known)
    with pytest.raises(ExpressionError, match=r"`identity` has no `tennant`; did you mean `tenant`\?"):
        check_reads(compile_rule("has(identity.tennant)", RULE), known)
    with pytest.raises(ExpressionError, match="`identity` has no `zip`; there is `roles`, `tenant`"):
        check_reads(compile_rule("identity.?zip.orValue('')", RULE), known)


@pytest.mark.parametrize("text", ["identity.tenant", "identity.tenant == 'a'", "'a' in identity.roles"])
def test_what_can_be_true_is_taken_as_a_condition(text):
    check_condition(compile_rule(text, RULE))


@pytest.mark.parametrize("text", ["'accountant'", "size(identity.roles)", "identity.?tenant", "[true]"])
def test_what_can_never_be_true_is_a_fault_at_load(text):
    with pytest.raises(ExpressionError, match="must come to true or false"):
        check_condition(compile_rule(text, RULE))


def test_a_hostile_comprehension_ends_quickly():
    loops = "".join(f"claims.l.all(v{depth}, " for depth in range(4)) + "true" + ")" * 4
    rule = compile_rule(loops, CLAIMS)
    scope = bind({"claims": {"l": list(range(200))}})
    began = time.thread_time()
    with pytest.raises(EvaluationError) as caught:
        rule.holds(scope)
    assert caught.value.why == "budget"
    assert time.thread_time() - began < 5


def test_a_hostile_regular_expression_ends_quickly():
    rule = compile_rule("claims.sub.matches('^(a+)+$')", CLAIMS)
    began = time.thread_time()
    assert rule.holds({"claims": {"sub": "a" * 50_000 + "!"}}) is False
    assert time.thread_time() - began < 5


def test_a_scope_made_for_one_set_of_variables_serves_expressions_of_another():
    scope = bind({"claims": {"sub": "alice"}, "now": 5})
    assert compile_rule("claims.sub + '!'", CLAIMS).value(scope) == "alice!"
    assert compile_rule("claims.sub + string(now)", frozenset({"claims", "now", "request"})).value(scope) == "alice5"


def test_an_expression_is_shared_by_threads():
    rule = compile_rule("claims.roles.filter(r, r != claims.sub).map(r, r + claims.sub)", CLAIMS)
    faults = []

    def work(me):
        scope = {"claims": {"sub": me, "roles": [me, "x", "y"]}}
        expected = ["x" + me, "y" + me]
        faults.extend(me for _ in range(500) if rule.value(scope) != expected)

    threads = [threading.Thread(target=work, args=(f"user{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_an_expression_compiled_before_a_fork_works_after_it():
    rule = compile_rule("claims.sub + '!'", CLAIMS)
    assert rule.value(DATA) == "alice!"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if rule.value(DATA) == "alice!" and value("claims.sub + '?'") == "alice?" else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_expression_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        compile_rule("true", CLAIMS).text = "false"


def test_a_text_with_nul_that_base64_held_is_no_value():
    """A reader that cuts a text at NUL would take "admin\\0x" for "admin"."""
    data = {"claims": {"b": "YWRtaW4AeA==", "s": "YWJj"}}
    assert value("string(base64.decode(claims.s))", data) == "abc"
    assert why("string(base64.decode(claims.b))", data) == "unsafe text"
    assert not compile_rule("string(base64.decode(claims.b)) == 'admin'", CLAIMS).holds(data)
