import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.jose.strict import (
    ALPHABET,
    MAX_DEPTH,
    UnfitError,
    decode_base64url,
    encode_base64url,
    strict_json,
    write_json,
)

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(SCALARS | TEXTS, lambda part: st.lists(part) | st.dictionaries(TEXTS, part), max_leaves=20)


@given(JSON)
def test_ordinary_json_is_read_as_the_standard_library_reads_it(value):
    assert strict_json(json.dumps(value).encode()) == value
    assert strict_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert strict_json(write_json(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"sub": "alice", "sub": "root"}',
        '{"a": {"b": [{"c": 1, "c": 1}]}}',
        '{"a": 1, "\\u0061": 2}',
        "NaN",
        '{"exp": Infinity}',
        '{"exp": -Infinity}',
        "[1e400]",
        "[-1e400]",
        "1" + "0" * 5000,
        '"\\ud800"',
        '{"a": ["\\udfff"]}',
        '{"\\ud83d": 1}',
        '"\\u0000"',
        '{"a\\u0000": 1}',
        '"\0"',
        '"line\nbreak"',
        "[1,]",
        "{'a': 1}",
        "{} {}",
        "",
        " ",
        "// no\n{}",
    ],
)
def test_json_that_can_be_read_in_two_ways_is_unfit(text):
    """JW-18."""
    with pytest.raises(UnfitError):
        strict_json(text.encode())


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-be"),
        '{"a": 1}'.encode("utf-32-le"),
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
    ],
    ids=["bom", "utf-16", "utf-16-be", "utf-32-le", "latin-1", "raw surrogate", "overlong"],
)
def test_json_in_anything_but_plain_utf8_is_unfit(data):
    """JW-17."""
    with pytest.raises(UnfitError):
        strict_json(data)


def test_a_surrogate_pair_written_with_escapes_is_one_character():
    assert strict_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def nested(depth, opening="[", closing="]"):
    return (opening * depth + closing * depth).encode()


def test_nesting_is_bounded_where_it_is_said_to_be():
    assert strict_json(nested(MAX_DEPTH))
    with pytest.raises(UnfitError):
        strict_json(nested(MAX_DEPTH + 1))
    with pytest.raises(UnfitError):
        strict_json(nested(MAX_DEPTH + 1, '{"a":', "}").replace(b":}", b":1}"))


def test_many_flat_members_and_brackets_in_texts_are_no_depth():
    assert len(strict_json(b"[" + b",".join([b"[]", b"{}"] * 200) + b"]")) == 400
    assert strict_json(b'["' + b"[{" * 500 + b'\\"[[["]')


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, '"\\' * 100_000 + "[" * 50, '"' * 99_999 + "[" * 50])
def test_hostile_nesting_and_quoting_is_refused_at_once(text):
    began = time.thread_time()
    with pytest.raises(UnfitError):
        strict_json(text.encode())
    assert time.thread_time() - began < 5


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_unfit_and_nothing_else(data):
    try:
        value = strict_json(data)
    except UnfitError:
        return
    assert json.loads(write_json(value)) == value


def test_why_something_is_unfit_holds_nothing_of_it():
    for data in (b'{"secret-name": 1, "secret-name": 2}', b'["secret-text\\ud800"]', b"secret", b'"\xffsecret'):
        with pytest.raises(UnfitError) as caught:
            strict_json(data)
        assert "secret" not in str(caught.value)


@given(st.binary(max_size=100))
def test_base64url_goes_there_and_back(data):
    assert decode_base64url(encode_base64url(data)) == data


@given(st.text(st.sampled_from(ALPHABET.decode()), max_size=30))
def test_no_two_texts_of_base64url_mean_the_same_bytes(text):
    """JW-19."""
    try:
        data = decode_base64url(text.encode())
    except UnfitError:
        return
    assert encode_base64url(data) == text.encode()


@pytest.mark.parametrize("part", [b"A", b"AAAAA", b"AB", b"AAB", b"A_", b"AA-"])
def test_a_wrong_length_or_spare_bits_are_unfit(part):
    with pytest.raises(UnfitError):
        decode_base64url(part)


def test_what_is_no_json_cannot_be_written():
    with pytest.raises(ValueError, match="JSON"):
        write_json({"exp": float("nan")})
    with pytest.raises(TypeError):
        write_json({"exp": {1, 2}})
    assert write_json({"a": [1, "é"]}) == b'{"a":[1,"\\u00e9"]}'
