"""Nothing that came in can break out of an answer's headers, challenge or body (lesson 3.9, TE-35)."""

import re

import pytest
from harness import ACCESS_TOKEN, GRANT, JWT

UNSAFE = {
    "CR LF and a header": "a\r\nX-Evil: 1",
    "a body": "a\r\n\r\n<html>",
    "LF": "a\nX-Evil: 1",
    "CR": "a\rX-Evil: 1",
    "LF at the end": "a\n",
    "a folded line": "a\r\n b",
    "a tab": "a\tb",
    "a control": "a\x01b",
    "delete": "a\x7fb",
    "escape": "\x1b[31ma",
    "next line": "a\x85b",
    "a line separator": "a\u2028X-Evil: 1",
    "Latin-1": "J\u00fcrgen",
    "an emoji": "\U0001f600",
    "a letter that ends in LF as one byte": "a\u010aX-Evil: 1",
    "a letter that ends in CR as one byte": "a\u560d\u560aX-Evil: 1",
    "a space before": " a",
    "a space after": "a ",
    "the sentinel": "-",
    "the sentinel in a list": ["-"],
    "a comma in a list": ["a,b"],
    "an empty element": ["a", ""],
    "CR LF in a list": ["a", "b\r\nX-Evil: 1"],
}
SAFE = {
    "quotes": "a\"b'c",
    "a comma": "a, b",
    "parameters": 'a; b="c"',
    "markup": "<script>alert(1)</script>",
    "escapes": "%0d%0aX-Evil:%201",
    "written escapes": "a\\r\\nX-Evil: 1",
    "a variable": "$remote_addr ${jndi:ldap://x} {{7*7}}",
    "a sentinel twice": "--",
}


@pytest.mark.parametrize("value", UNSAFE.values(), ids=UNSAFE)
def test_a_claim_that_cannot_stand_in_a_header_is_refused_at_the_gateway(world, value):
    """Design §5.3: refused, never repaired. The token itself may hold it: there it is JSON."""
    token = world.first.token(note=value)
    answer = world.doors.at_forward(token)
    world.doors.refused(answer, "unsafe_header_value", token)
    assert "x-evil" not in answer.headers
    assert world.doors.at_token(token).status == 200


@pytest.mark.parametrize("value", ["J\u00fcrgen", "a\r\nX-Evil: 1", "a\nb", "\u560a"], ids=repr)
def test_a_subject_that_cannot_stand_in_a_header_is_refused_at_the_gateway(world, value):
    token = world.first.token(sub=value)
    world.doors.refused(world.doors.at_forward(token), "unsafe_header_value", token)
    claims = world.service.verified(world.doors.at_token(token).token)
    assert claims["sub"] == f"first|{value}"


@pytest.mark.parametrize("value", SAFE.values(), ids=SAFE)
def test_a_claim_that_can_stand_in_a_header_stands_there_as_it_is(world, value):
    answer = world.doors.at_forward(world.first.token(note=value))
    assert (answer.status, answer.headers["x-note"]) == (200, value)


def test_the_separator_of_a_namespace_cannot_be_forged(world):
    """Lesson 2.16 (GitHub OIDC "Sleeper Squats": joined names collide)."""
    answer = world.doors.at_token(world.first.token(sub="second|alice"))
    assert world.service.verified(answer.token)["sub"] == "first|second%7Calice"
    answer = world.doors.at_token(world.first.token(sub="second%7Calice"))
    assert world.service.verified(answer.token)["sub"] == "first|second%257Calice"


@pytest.mark.parametrize(
    "value", ['a","sub":"root', '"}', "{{claims.sub}}", "${sub}", '{"sub":"root"}', "a\\", "';--", "\u2028"], ids=repr
)
def test_a_claim_cannot_add_claims(world, value):
    """Lesson 3.8 (WSO2 #4085: templates that become JSON): a mapping takes data to data."""
    answer = world.doors.at_token(world.first.token(agency_id=value))
    claims = world.service.verified(answer.token)
    assert (claims["tenant"], claims["sub"]) == (value, "first|alice")


SCOPES = (
    'a"b',
    "a\\b",
    "a\x7f",
    "a\tb",
    "a\nb",
    "a  b",
    " a",
    "a ",
    "\u00e9",
    'orders:read", error="x',
    "a\r\nX-Evil: 1",
)


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_a_scope_that_is_none_is_refused_and_not_repeated(doors, idp, scope):
    """TE-35, RFC 6749 §3.3 and §5.2."""
    token = idp.token()
    answer = doors.at_token(token, scope=scope)
    assert (answer.status, answer.json["error"], answer.reason) == (400, "invalid_scope", "malformed")
    assert set(answer.json) == {"error", "error_reason", "error_description"}
    assert "x-evil" not in answer.headers
    assert scope.strip() not in str(answer.json) or len(scope) < 4
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", answer.json["error_description"])


def test_the_challenge_names_the_routes_scopes_and_nothing_that_was_asked(doors, idp):
    """RFC 6750 §3, lesson 3.9 (skybridge #1025: quotes break a challenge)."""
    doors.refuse(idp.token(scope='orders:read x", error="y'), "no_mapping")
    answer = doors.at_forward(idp.token(scope="orders:read x:y"), method="DELETE")
    assert answer.status == 403
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="sts", error="insufficient_scope", '
        'error_description="The scope is not available to this request.", scope="orders:write"'
    )


FIELDS = ("audience", "resource", "subject_token_type", "requested_token_type", "grant_type", "client_id", "scope")
HOSTILE = 'x"\r\nX-Evil: 1\r\n\r\n<b>\u00e9\u2028'


@pytest.mark.parametrize("field", FIELDS)
def test_no_parameter_is_repeated_in_an_answer(service, idp, field):
    """TE-35."""
    form = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": ACCESS_TOKEN, "audience": "orders"}
    answer = service.post({**form, field: HOSTILE})
    assert answer.status == 400
    assert "x-evil" not in answer.headers
    told = f"{answer.headers} {answer.body.decode('ascii')}"
    assert "Evil" not in told
    assert "<b>" not in told
    assert "\\u00e9" not in told


@pytest.mark.parametrize(
    "value", ['"', "a b", "a,b", "x" * 129, "<b>", "../..", "\u00e9", "a\tb", "%0d%0aX-Evil:1"], ids=repr
)
def test_a_request_id_of_the_caller_is_neither_repeated_nor_kept_unless_it_is_plain(doors, idp, value):
    """Design §5.3: the answer's is ours; the caller's is a label in the audit."""
    answer = doors.at_forward(idp.token(), headers=[("X-Request-ID", value.encode())])
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    event, _line = doors.event(answer)
    assert event["correlation_id"] is None
    assert value not in str(answer.headers.values()) or len(value) < 3
    plain = doors.at_forward(idp.token(), headers=[("X-Request-ID", "trace-1.a_b")])
    assert plain.headers["x-request-id"] != "trace-1.a_b"
    assert doors.event(plain)[0]["correlation_id"] == "trace-1.a_b"


def test_one_callers_claims_never_stand_in_anothers_refusal(doors, idp):
    """Lesson 3.9 (Oathkeeper 26.2.5: shared error objects carried another caller's claims)."""
    for _ in range(3):
        doors.at_token(idp.token(sub="carol-the-other-caller", agency_id="carols-agency"))
        answers = doors.refuse(idp.token(exp=1), "expired")
        assert not any(b"carol" in answer.body for answer in answers if hasattr(answer, "body"))


def test_every_answer_says_that_nobody_may_keep_it(doors, idp):
    """TE-17, FA-08, lesson 3.9 (nginx #824: a shared cache may keep an answer of forward-auth)."""
    for answer in (doors.at_token(idp.token()), doors.at_forward(idp.token()), doors.at_token(idp.token(), JWT)):
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
