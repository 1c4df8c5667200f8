"""What may stand in an identity header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.policy.headers import ABSENT, header_name, header_value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("alice", "alice"),
        ("Doe, John", "Doe, John"),
        (42, "42"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
        (["admin", "user"], "admin,user"),
        (("admin",), "admin"),
        (["-", "-"], "-,-"),
    ],
)
def test_a_value_is_written_as_it_is(value, written):
    assert header_value(value) == written


@pytest.mark.parametrize("value", [None, "", [], ()])
def test_nothing_is_the_mark_for_an_absent_header(value):
    assert header_value(value) == ABSENT


@pytest.mark.parametrize(
    "value",
    [
        "-",
        ["-"],
        ["a,b"],
        ["a", ""],
        [""],
        "a\r\nX-Admin: 1",
        "a\n",
        "a\rb",
        "a\tb",
        "a\x00",
        "\x7f",
        "Müller",
        "\u2028",
        " alice",
        "alice ",
        ["a", " b"],
        [1],
        [["a"]],
        1.5,
        b"abc",
        {"a": 1},
    ],
)
def test_a_value_that_could_be_read_differently_is_refused(value):
    with pytest.raises(ValueError, match=r".") as refusal:
        header_value(value)
    assert str(value) not in str(refusal.value)


@given(st.one_of(st.text(), st.lists(st.text(), max_size=3), st.integers(), st.booleans(), st.none()))
def test_what_is_written_is_one_header_line_that_a_parser_gives_back_unchanged(value):
    try:
        written = header_value(value)
    except ValueError:
        return
    assert written.isascii()
    assert written.isprintable()
    assert written.strip() == written != ""
    if isinstance(value, list) and value:
        assert written.split(",") == value
    assert (written == ABSENT) == (value in (None, "", []))


@pytest.mark.parametrize("name", ["X-User-ID", "X-Tenant-ID", "X-A"])
def test_an_identity_header_has_a_name_of_its_own(name):
    assert header_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "User-ID",
        "X_User",
        "X-",
        "X-User ID",
        "X-User\n",
        "X-Accel-Redirect",
        "x-accel-buffering",
        "X-Forwarded-For",
        "X-Original-URI",
        "X-GATEWAY-SECRET",
        "X-Gateway-Secret",
        "X-Request-ID",
        "X-Auth-Reason",
        "X-Token-Expires-At",
    ],
)
def test_an_identity_header_cannot_take_a_name_with_another_meaning(name):
    with pytest.raises(ValueError, match=r"identity header"):
        header_name(name)
