"""Our evaluation comes to what cel-expr-python's comes to: generated expressions over generated data.

Left out, since the library does what no one would want: a number as the index of an optional that holds no list (it
becomes an optional that holds an error), and a map whose keys are equal but of two types (it keeps both).
"""

import json

import cel_library
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sts.expressions import ABSENT, EvaluationError, bind, compile_rule

VARIABLES = frozenset({"claims", "now"})
NOW = 1_700_000_000

PATHS = [f"claims.{name}" for name in "abcdlmst"] + ["claims.gone", "claims.m.x", "claims.m.y.z", "now"]
OPTIONALS = ["claims.?a", "claims.?gone", "claims.?m.?x", "optional.none()", "optional.of(1)", "claims.?l[?0]"]
NUMBERS = ["0", "1", "-1", "7", "3u", "0u", "18446744073709551615u", "9223372036854775807", "-9223372036854775808"]
DOUBLES = ["1.5", "-0.5", "2.0", "0.0", "1e300", "(1.0 / 0.0)", "(0.0 / 0.0)"]
TEXTS = ["''", "'a'", "'ab'", "'b,a'", "'1'", "'-7'", "'é'", "' A '", "'YQ=='", "'2020-02-29T23:59:59.5Z'", "'1h30m'"]
OTHERS = ["true", "false", "null", "b'a'", "b''", "timestamp(5)", "duration('-1.5s')", "string", "type(1)"]
LISTS = ["[]", "[1, 2]", "['a', 'b']", "[1, 'a', null]", "{}", "{'a': 1}", "{1: 'x'}", "{true: 1}", "{2u: 3}"]
LEAVES = st.sampled_from([*PATHS, *PATHS, *OPTIONALS, *NUMBERS, *DOUBLES, *TEXTS, *OTHERS, *LISTS])

NO_ARGUMENT = [
    "trim",
    "lowerAscii",
    "upperAscii",
    "size",
    "first",
    "last",
    "hasValue",
    "value",
    "join",
    "reverse",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
]
ONE_ARGUMENT = [
    "contains",
    "startsWith",
    "endsWith",
    "indexOf",
    "lastIndexOf",
    "split",
    "join",
    "charAt",
    "substring",
    "orValue",
    "or",
]
TWO_ARGUMENTS = ["indexOf", "lastIndexOf", "split", "replace", "substring"]
CONVERSIONS = ["int", "uint", "double", "string", "bytes", "bool", "timestamp", "duration", "type", "size"]
MATHEMATICS = [
    "ceil",
    "floor",
    "round",
    "trunc",
    "abs",
    "sign",
    "isNaN",
    "isInf",
    "isFinite",
    "sqrt",
    "greatest",
    "least",
]
OPERATORS = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"]
ZONES = ["Europe/Berlin", "Asia/Kolkata", "+02:00", "-05:30", "UTC"]
MACROS = ["all", "exists", "exists_one", "map", "filter", "optMap"]


def joined(template, *parts):
    return st.builds(template.format, *parts)


def composed(part):
    """Expressions made of those that `part` gives, whose types the compiler does not know."""
    one = part.map("dyn({})".format)
    within = st.one_of(one, st.sampled_from(["x", "x.a", "[x]", "x == 1", "x + x", "string(x)", "size(x) > 0"]))
    return st.one_of(
        joined("({} {} {})", one, st.sampled_from(OPERATORS), one),
        joined("({} {} {})", one, st.sampled_from(["&&", "||"]), one),
        joined("({} ? {} : {})", one, one, one),
        joined("{}{}", st.sampled_from("!-"), one),
        joined("{}[{}]", st.sampled_from([*PATHS, *LISTS]).map("dyn({})".format), one),
        joined("{}[?{}]", one, one),
        joined("{}.?{}", one, st.sampled_from("axz")),
        joined("{}.{}", st.sampled_from([*PATHS, *LISTS]).map("dyn({})".format), st.sampled_from("axz")),
        joined("has({}.{})", st.sampled_from([*PATHS, *LISTS]).map("dyn({})".format), st.sampled_from("axz")),
        joined("{}({})", st.sampled_from(CONVERSIONS), one),
        joined("math.{}({})", st.sampled_from(MATHEMATICS), one),
        joined("math.{}({}, {})", st.sampled_from(["greatest", "least"]), one, one),
        joined("base64.{}({})", st.sampled_from(["encode", "decode"]), one),
        joined("{}.{}()", one, st.sampled_from(NO_ARGUMENT)),
        joined("{}.{}({})", one, st.sampled_from(ONE_ARGUMENT), one),
        joined("{}.{}({}, {})", one, st.sampled_from(TWO_ARGUMENTS), one, one),
        joined("{}.replace({}, {}, {})", one, one, one, one),
        joined("{}.matches('{}')", one, st.sampled_from(["a", "^[a-z]+$", "(?i)B", "^$"])),
        joined("timestamp({}).{}('{}')", one, st.sampled_from(["getHours", "getDate"]), st.sampled_from(ZONES)),
        joined("{}.{}(x, {})", one, st.sampled_from(MACROS), within),
        joined("{}.map(x, {}, {})", one, within, within),
        joined("optional.{}({})", st.sampled_from(["of", "ofNonZeroValue"]), one),
        joined("[{}, {}]", one, one),
        joined("[?{}, {}]", st.sampled_from(OPTIONALS[:4]), one),
        joined("{{'a': {}, 'b': {}}}", one, one),
        joined("{{?'a': {}, 'b': {}}}", st.sampled_from(OPTIONALS[:4]), one),
        joined("{{{}: 1}}", one),
    )


EXPRESSIONS = st.recursive(LEAVES, composed, max_leaves=6)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, -(2**63), 2**70, 1.5, -0.0, 2.0, 1e300, 1e6, 123456.75]),
    st.sampled_from(["", "a", "ab", "a,b", " A ", "1", "-7", "1.5", "true", "YQ==", "YQ", "5s", "é", "UTC"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("axyz"), inner, max_size=3)
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys("abcdst", VALUES),
        "l": st.lists(VALUES, max_size=3),
        "m": st.dictionaries(st.sampled_from("axyz"), VALUES, max_size=3),
    },
)


def ours(text, data):
    try:
        found = compile_rule(text, VARIABLES).value(data)
    except EvaluationError as error:
        return "fault", error.why
    return ("fault", "absent") if found is ABSENT else ("value", cel_library.comparable(found))


def has_a_map_of_several(value):
    """Whether a map with more than one key is among the members of `value`."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any((isinstance(one, dict) and len(one) > 1) or has_a_map_of_several(one) for one in members)


@settings(max_examples=1500)
@given(EXPRESSIONS, CLAIMS)
def test_law_an_expression_comes_to_what_the_library_makes_of_it(text, claims):
    assume(cel_library.compiled(text, VARIABLES) is not None)
    scope = bind({"claims": claims, "now": NOW})
    theirs = cel_library.outcome(text, scope.values)
    if theirs == ("value", None):  # null gives no attribute, as an absent key does
        theirs = ("fault", "absent")
    found = ours(text, scope)
    if found[0] == theirs[0] == "fault" and (".filter(" in text or ".map(" in text or "exists_one" in text):
        return  # of several elements that fail, the library names the last, and we the first
    if found != theirs and "(x, " in text and ("'b': " in text or has_a_map_of_several(claims)):
        return  # the library walks a map in no order that stays
    said = f"{text} over {json.dumps(claims)}"
    if found != theirs and "double(" in text and ("9223372036854775" in said or "18446744073709551" in said):
        return  # the library compares them less exactly: see test_conformance.py
    assert found == theirs, said


@settings(max_examples=300)
@given(st.floats() | st.sampled_from([1e5, 1e6, 123456.0, 1e-4, 1e-5, 5e-324, -0.0, 1e21]))
def test_law_a_double_is_written_as_the_library_writes_it(number):
    text = f"string(double('{number!r}'))"
    assert ours(text, {"claims": {}, "now": 0}) == cel_library.outcome(text, {"claims": {}, "now": 0})


@settings(max_examples=300)
@given(st.integers(-62_135_596_800, 253_402_300_799), st.sampled_from(ZONES), st.integers(0, 999_999_999))
def test_law_moments_are_taken_apart_as_the_library_does(seconds, zone, nanoseconds):
    moment = f"(timestamp({seconds}) + duration('{nanoseconds}ns'))"
    names = ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes")
    asked = [f"{moment}.get{name}('{zone}')" for name in names]
    if abs(seconds) < 9 * 10**9:
        asked += [f"string({moment})", f"string({moment} - timestamp(0))"]
    for text in asked:
        assume(not seconds < -62_135_500_000 and seconds < 253_402_200_000)  # a year beyond 9999 or before 1
        assert ours(text, {"claims": {}, "now": 0}) == cel_library.outcome(text, {"claims": {}, "now": 0}), text
