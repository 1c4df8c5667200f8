import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.expressions import EvaluationError, as_attribute, as_scopes, as_subject


def refused(reader, value):
    with pytest.raises(EvaluationError) as caught:
        reader(value)
    return caught.value.why


def test_a_subject_is_text_of_bounded_length():
    assert as_subject("alice") == "alice"
    assert as_subject("x" * 1024) == "x" * 1024
    assert refused(as_subject, "") == "empty"
    assert refused(as_subject, "x" * 1025) == "too long"


@pytest.mark.parametrize("value", [7, True, None, ["alice"], {"sub": "alice"}, 1.5])
def test_a_subject_is_never_anything_but_text(value):
    assert refused(as_subject, value) == "type mismatch"


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("orders:read orders:write", ("orders:read", "orders:write")),
        ("  b a  b ", ("b", "a")),
        ("", ()),
        (["b", "a", "b"], ("b", "a")),
        ([], ()),
    ],
)
def test_scopes_are_a_list_or_text_between_spaces_in_order_without_repeats(value, scopes):
    assert as_scopes(value) == scopes


@pytest.mark.parametrize("value", ["a\tb", "a\nb", 'a"b', "a\\b", "é", ["a b"], [""], "x" * 257, ["a\0"]])
def test_what_is_no_scope_token_is_refused(value):
    assert refused(as_scopes, value) == "not a scope"


@pytest.mark.parametrize("value", [None, 7, {"a": 1}, ["a", 7], ["a", None], [["a"]], ("a",)])
def test_scopes_of_another_type_are_refused(value):
    assert refused(as_scopes, value) == "type mismatch"


@given(st.lists(st.from_regex(r"\A[\x21\x23-\x5b\x5d-\x7e]{1,9}\Z")))
def test_scopes_as_text_and_as_list_are_the_same(tokens):
    assert as_scopes(" ".join(tokens)) == as_scopes(tokens) == tuple(dict.fromkeys(tokens))


@pytest.mark.parametrize("value", ["", "text", 7, 0, -(2**63), True, False])
def test_an_attribute_is_text_an_integer_or_a_boolean(value):
    assert as_attribute(value) is value


def test_an_attribute_may_be_a_list_of_texts():
    assert as_attribute(["a", "b", "a"]) == ("a", "b", "a")
    assert as_attribute([]) == ()


@pytest.mark.parametrize("value", [None, 1.5, {"a": 1}, ["a", 1], [["a"]], [None], b"x", [True]])
def test_other_attributes_are_refused(value):
    assert refused(as_attribute, value) == "type mismatch"
