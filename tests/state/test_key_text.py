"""How API keys are written."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.state.key_records import digest, id_of, imported_id, is_ours, make

PREFIX = "sk_live_"


def test_a_key_begins_with_its_prefix_and_holds_letters_and_digits_only():
    key_id, text = make(PREFIX)
    assert re.fullmatch(r"sk_live_[0-9A-Za-z]{50}", text)
    assert text[len(PREFIX) :].startswith(key_id)


def test_no_two_keys_are_alike():
    """AK-01: the secret part alone has 62^32 values, more than 190 bits."""
    made = [make(PREFIX) for _ in range(200)]
    assert len({key_id for key_id, _ in made}) == len({text for _, text in made}) == 200


def test_the_id_is_read_back():
    key_id, text = make(PREFIX)
    assert id_of(PREFIX, text) == key_id
    assert is_ours(PREFIX, text)


@given(place=st.integers(0, 49), char=st.sampled_from("0aZ"))
def test_law_one_mistyped_character_is_seen(place, char):
    """AK-01: CRC-32 finds every single error."""
    _, text = make(PREFIX)
    at = len(PREFIX) + place
    mistyped = text[:at] + char + text[at + 1 :]
    assert mistyped == text or id_of(PREFIX, mistyped) == ""


def test_two_characters_in_the_wrong_order_are_seen():
    for _ in range(50):
        _, text = make(PREFIX)
        at = next(at for at in range(len(PREFIX), len(text) - 1) if text[at] != text[at + 1])
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        assert id_of(PREFIX, swapped) == ""


def test_a_key_of_another_prefix_has_another_checksum():
    _, text = make(PREFIX)
    assert id_of("sk_test_", "sk_test_" + text[len(PREFIX) :]) == ""


def test_an_imported_key_is_named_by_its_hash():
    text = PREFIX + "made-elsewhere-0123456789"
    hashed = hashlib.sha256(text.encode()).hexdigest()
    assert digest(text) == hashed
    assert id_of(PREFIX, text) == imported_id(hashed) == f"i-{hashed[:20]}"


@pytest.mark.parametrize(
    "body", ["", "short", "with space", "com,ma-com,ma", "\x00" * 10, "\N{SNOWMAN}" * 10, "x" * 300]
)
def test_what_cannot_be_a_key_has_no_id(body):
    assert id_of(PREFIX, PREFIX + body) == ""
