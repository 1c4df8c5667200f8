"""The strict form reader."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sts.edge.form import MAX_BODY_BYTES, MAX_PARAMETERS, parse, read_form
from sts.errors import Refusal

FORM = "application/x-www-form-urlencoded"
REPEATABLE = frozenset({"audience", "resource"})


def refusal_of(function, *arguments):
    with pytest.raises(Refusal) as refused:
        function(*arguments)
    return refused.value.reason


def test_names_and_values_are_decoded_once():
    form = parse(b"a=x+y&b=%2B%2525&c%20d=e%3Df&g=h=i")
    assert form.values == {"a": ("x y",), "b": ("+%25",), "c d": ("e=f",), "g": ("h=i",)}


def test_an_empty_parameter_is_as_good_as_absent():
    """TE-20."""
    form = parse(b"scope=&audience&audience=orders&=x", REPEATABLE)
    assert form.one("scope") is None
    assert form.all("scope") == ()
    assert form.all("audience") == ("orders",)
    assert form.one("never") is None


def test_only_repeatable_parameters_stand_more_than_once():
    """TE-19."""
    assert parse(b"audience=a&resource=r&audience=b", REPEATABLE).all("audience") == ("a", "b")
    assert refusal_of(parse, b"audience=a&audience=a").name == "malformed"


@pytest.mark.parametrize("name", ["grant_type", "subject_token", "scope", "client_id", "unheard_of"])
@pytest.mark.parametrize("values", [("a", "a"), ("a", "b"), ("", "a"), ("a", "")])
def test_a_repeated_parameter_is_refused_even_when_equal_or_empty(name, values):
    """TE-19."""
    body = "&".join(f"{name}={value}" for value in values).encode()
    reason = refusal_of(parse, body, REPEATABLE)
    assert (reason.name, reason.error, reason.token_status) == ("malformed", "invalid_request", 400)


def test_a_name_cannot_hide_its_repetition_in_an_escape():
    """TE-19."""
    assert refusal_of(parse, b"scope=a&%73cope=b", REPEATABLE).name == "malformed"


@pytest.mark.parametrize(
    "body",
    [b"a=%", b"a=%4", b"a=%zz", b"a=%u0041", b"%=a", b"a=1 2", b"a=1\n", b"a=\x00", b"a=\xc3\xa9", b"\xef\xbb\xbfa=1"],
)
def test_what_the_encoding_does_not_produce_is_refused(body):
    assert refusal_of(parse, body).name == "malformed"


@pytest.mark.parametrize("escapes", ["%ff", "%c3", "%c0%af", "%ed%a0%80", "%f5%80%80%80"])
def test_escapes_that_are_no_utf8_are_refused(escapes):
    """TE-18."""
    assert refusal_of(parse, f"a={escapes}".encode()).name == "malformed"
    assert refusal_of(parse, f"{escapes}=a".encode()).name == "malformed"


def test_as_many_parameters_as_allowed_pass_and_one_more_does_not():
    """EP-10."""
    pairs = [f"p{number}=x" for number in range(MAX_PARAMETERS + 1)]
    assert len(parse("&".join(pairs[:-1]).encode()).values) == MAX_PARAMETERS
    reason = refusal_of(parse, "&".join(pairs).encode())
    assert (reason.name, reason.token_status) == ("too_large", 413)


@pytest.mark.parametrize(
    "content_type",
    [
        FORM,
        "Application/X-WWW-Form-Urlencoded",
        f"{FORM};charset=UTF-8",
        f"{FORM}; charset=utf-8",
        f'{FORM} ; Charset="Utf-8"',
    ],
)
def test_the_content_types_of_real_clients_are_read(request_to, content_type):
    """TE-18."""
    assert read_form(request_to("POST", "/token", {"Content-Type": content_type}, b"a=b")).one("a") == "b"


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "multipart/form-data; boundary=x",
        "text/plain",
        f"{FORM}; charset=utf-16",
        f"{FORM}; charset=iso-8859-1",
        f"{FORM}; charset=utf-8; charset=utf-16",
        f"{FORM}, application/json",
        f"{FORM}x",
    ],
)
def test_another_content_type_or_charset_is_415(request_to, content_type):
    """TE-18."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    reason = refusal_of(read_form, request_to("POST", "/token", headers, b"a=b"))
    assert (reason.name, reason.error, reason.token_status) == ("malformed", "invalid_request", 415)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE", "post", "TRACE"])
def test_another_method_is_405(request_to, method):
    """EP-01."""
    assert refusal_of(read_form, request_to(method, "/token", {"Content-Type": FORM})).token_status == 405


def test_a_query_string_is_refused(request_to):
    """TE-21."""
    assert refusal_of(read_form, request_to("POST", "/token?a=b", {"Content-Type": FORM}, b"c=d")).token_status == 400
    assert read_form(request_to("POST", "/token?", {"Content-Type": FORM}, b"c=d")).one("c") == "d"


def test_a_body_that_the_server_could_not_take_is_refused(request_to):
    """EP-10."""
    headers = {"Content-Type": FORM}
    large = refusal_of(read_form, request_to("POST", "/token", headers, fault="too_large"))
    assert (large.name, large.token_status) == ("too_large", 413)
    assert refusal_of(read_form, request_to("POST", "/token", headers, fault="malformed")).token_status == 400
    over = b"a=" + b"x" * (MAX_BODY_BYTES - 1)
    assert refusal_of(read_form, request_to("POST", "/token", headers, over)).token_status == 413
    assert len(read_form(request_to("POST", "/token", headers, over[:-1])).one("a")) == MAX_BODY_BYTES - 2


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text()), max_size=10))
def test_what_a_client_encodes_is_what_is_read(pairs):
    try:
        body = urlencode(pairs).encode()
    except UnicodeEncodeError:  # a lone surrogate cannot be sent
        return
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        assert refusal_of(parse, body).name == "malformed"
        return
    form = parse(body)
    assert {name: value for name, value in pairs if value} == {
        name: form.one(name) for name in names if form.one(name) is not None
    }


@given(st.one_of(st.binary(max_size=60), st.text("a=&%+21 ;\u00e9").map(str.encode)))
@example(b"a=%C3%A9&b=+")
@example(b"&&a=1&")
def test_what_is_accepted_reads_the_same_when_written_again(body):
    try:
        form = parse(body, REPEATABLE)
    except Refusal:
        return
    again = urlencode([(name, value) for name, values in form.values.items() for value in values]).encode()
    kept = {name: values for name, values in form.values.items() if values}
    assert parse(again, REPEATABLE).values == kept
    theirs = parse_qsl(body.decode(), strict_parsing=False, keep_blank_values=False, errors="strict")
    assert sorted(theirs) == sorted((name, value) for name, values in kept.items() for value in values)
