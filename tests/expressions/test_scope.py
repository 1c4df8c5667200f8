import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.expressions import EvaluationError, bind, compile_rule
from sts.expressions.scope import MAX_DEPTH

CLAIMS = frozenset({"claims"})


def refused(variables):
    with pytest.raises(EvaluationError) as caught:
        bind(variables)
    return caught.value.why


def nested(levels):
    data = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "admin\0x"},
        {"sub\0x": "admin"},
        {"sub": "\ud800"},
        {"\udfff": 1},
        {"deep": [{"x": ["é\0"]}]},
    ],
)
def test_text_that_cel_would_cut_or_choke_on_is_refused(claims):
    assert refused({"claims": claims}) == "unsafe text"


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), float("-inf"), 10**5000], ids=["nan", "inf", "-inf", "5001 digits"]
)
def test_a_number_that_json_cannot_hold_is_refused(number):
    assert refused({"claims": {"n": [number]}}) == "overflow"


@pytest.mark.parametrize("strange", [b"x", {1, 2}, object(), {1: 2}, type("S", (str,), {})("x"), range(3)])
def test_what_is_no_json_value_is_refused(strange):
    assert refused({"claims": {"x": strange}}) == "type mismatch"


@pytest.mark.parametrize("variable", [None, 1, "text", ["list"]])
def test_a_variable_is_a_map(variable):
    assert refused({"claims": variable}) == "type mismatch"


@pytest.mark.parametrize("now", [True, "1", None])
def test_now_is_a_number(now):
    assert refused({"now": now}) == "type mismatch"


@pytest.mark.parametrize("now", [float("nan"), float("inf"), 2**70])
def test_now_fits_into_64_bits(now):
    assert refused({"now": now}) == "overflow"


def test_nesting_is_bounded_before_it_can_overflow_a_stack():
    bind({"claims": nested(MAX_DEPTH)})
    assert refused({"claims": nested(MAX_DEPTH + 1)}) == "too deep"
    assert refused({"claims": nested(100_000)}) == "too deep"
    deep_list = []
    for _ in range(100_000):
        deep_list = [deep_list]
    assert refused({"claims": {"l": deep_list}}) == "too deep"


def test_the_deepest_data_that_is_taken_is_evaluated():
    claims = nested(MAX_DEPTH)
    scope = bind({"claims": claims})
    assert compile_rule("[claims]", CLAIMS).value(scope) == [claims]
    assert compile_rule("claims == claims", CLAIMS).holds(scope)


def test_integers_beyond_64_bits_are_handed_in_as_text_wherever_they_stand():
    claims = {"id": 2**64, "list": [1, -(2**63) - 1], "map": {"x": 10**30}, "fits": [2**64 - 1, -(2**63)]}
    scope = bind({"claims": claims})
    whole = {
        "id": "18446744073709551616",
        "list": [1, "-9223372036854775809"],
        "map": {"x": "1" + "0" * 30},
        "fits": [2**64 - 1, -(2**63)],
    }
    assert compile_rule("claims", CLAIMS).value(scope) == whole
    assert compile_rule("claims.id + '!'", CLAIMS).value(scope) == "18446744073709551616!"
    assert claims["id"] == 2**64


def test_nothing_is_copied_that_needs_no_change():
    claims = {"sub": "alice", "roles": ["a"], "realm": {"n": 1}}
    assert bind({"claims": claims}).values["claims"] is claims
    mixed = {"plain": {"n": 1}, "big": [2**70]}
    kept = bind({"claims": mixed}).values["claims"]
    assert kept is not mixed
    assert kept["plain"] is mixed["plain"]


def test_tuples_and_read_only_mappings_of_ours_are_taken_as_lists_and_maps():
    identity = types.MappingProxyType({"roles": ("a", "b"), "realm": types.MappingProxyType({"x": 1})})
    scope = bind({"identity": identity})
    assert compile_rule("'b' in identity.roles && identity.realm.x == 1", frozenset({"identity"})).holds(scope)


@given(st.text("aZ\0\x01\x7f\u0080\u00e9\ud800\udfff\ufffe\U0001f600", max_size=8))
def test_text_is_either_refused_or_arrives_unchanged(text):
    try:
        scope = bind({"claims": {"t": text}})
    except EvaluationError:
        assert "\0" in text or any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    else:
        assert compile_rule("[claims.t]", CLAIMS).value(scope) == [text]
