"""Just under each limit a token passes, just over it it is refused: a limit never cuts (EP-10, lesson 2.2)."""

import json

import pytest
from harness import b64

MAX_TOKEN = 16384
MAX_HEADER = 8192
FIELD = 8190
MAX_DEPTH = 32


def sized(idp, length):
    """A good token of exactly this many characters."""
    for extra in range(4):
        header = {"alg": "RS256", "kid": "rsa-1", "x": "y" * extra}
        claims = idp.claims(pad="")
        room = length - len(idp.rsa.sign_raw(b64(header), b64(claims)))
        for pad in range(max(0, room * 3 // 4 - 4), room * 3 // 4 + 4):
            token = idp.rsa.sign_raw(b64(header), b64({**claims, "pad": "p" * pad}))
            if len(token) == length:
                return token
    raise AssertionError(length)


@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "over it"])
def test_a_token_is_as_long_as_it_may_be_or_refused(doors, idp, over):
    """EP-10, lesson 2.2 (CVE-2026-9704 Keycloak: an oversized subject_token was dropped, and the flow went on)."""
    token = sized(idp, MAX_TOKEN + over)
    if over:
        doors.refuse(token, "too_large")
    else:
        assert doors.at_token(token).status == 200
        assert doors.at_forward(token).status == 431


@pytest.mark.parametrize("length", [40_000, 60_000])
def test_a_token_far_over_the_limit_is_refused_before_it_is_read(doors, idp, length):
    doors.refuse(sized(idp, length), "too_large")


def test_a_gateways_header_field_is_as_long_as_the_server_takes_or_refused(doors, idp):
    """docs/errors.md, "Answers that are not ours": a field of more than 8190 bytes is answered by the server."""
    room = FIELD - len("Authorization: Bearer ") - len("\r\n")
    passed = doors.at_forward(sized(idp, room))
    assert passed.status == 200
    refused = doors.at_forward(sized(idp, FIELD + 1))
    assert refused.status == 431
    assert "authorization" not in refused.headers


@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "over it"])
def test_a_header_is_as_long_as_it_may_be_or_refused(doors, idp, over):
    header = {"alg": "RS256", "kid": "rsa-1", "x5c": ""}
    room = (MAX_HEADER * 3) // 4 - len(json.dumps(header, separators=(",", ":")))
    encoded = b64({**header, "x5c": "A" * (room + over)})
    assert (len(encoded) > MAX_HEADER) == bool(over)
    token = idp.rsa.sign_raw(encoded, b64(idp.claims()))
    if over:
        doors.refuse(token, "too_large")
    else:
        assert doors.at_token(token).status == 200


@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "over it"])
def test_claims_are_as_deep_as_they_may_be_or_refused(doors, idp, over):
    deep = []
    for _ in range(MAX_DEPTH - 2 + over):
        deep = [deep]
    token = idp.token(deep=deep)
    if over:
        doors.refuse(token, "malformed")
    else:
        doors.accept(token)


def test_brackets_in_a_text_are_no_depth(doors, idp):
    doors.accept(idp.token(note="[{" * 200, other='\\"[' * 50))


@pytest.mark.parametrize("over", [0, 1], ids=["at the limit", "over it"])
def test_a_time_is_as_far_as_every_reader_agrees_on_or_refused(doors, idp, over):
    token = idp.token(exp=2**53 + 2 * over)
    if over:
        doors.refuse(token, "malformed")
    else:
        doors.accept(token)


def test_a_kid_of_256_characters_is_looked_for_and_one_more_is_refused(doors, idp):
    doors.refuse(idp.token(header={"kid": "k" * 256}), "unknown_key")
    doors.refuse(idp.token(header={"kid": "k" * 257}), "malformed")


def test_what_would_make_too_large_a_token_is_refused_and_not_cut(doors, idp):
    """FA-07: a gateway's buffers hold 4 KB, and nginx would make a 500 of it."""
    doors.accept(idp.token(agency_id="x" * 300))
    doors.refuse(idp.token(agency_id="x" * 4000), "token_too_large")
    doors.refuse(idp.token(sub="x" * 4000), "no_mapping")


def test_a_crowd_of_scopes_or_roles_is_answered_at_once(doors, idp):
    """No list is walked for each of another: `refuse` looks at the time."""
    many = [f"r{number}" for number in range(1200)]
    doors.refuse(idp.token(roles=many), "token_too_large")
    doors.refuse(idp.token(scope=" ".join(many)), "insufficient_scope")
    answer = doors.at_token(idp.token(), scope=" ".join(many))
    doors.refused(answer, "insufficient_scope")


def test_a_crowd_of_audiences_in_a_token_is_answered_at_once(doors, idp):
    others = [f"aud-{number}" for number in range(900)]
    doors.refuse(idp.token(aud=others), "audience_mismatch")
    assert doors.at_token(idp.token(aud=[*others, "api-gateway"])).status == 200


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"subject_token": ""}, "invalid_request", "missing_credential"),
        ({"subject_token": None}, "invalid_request", "missing_credential"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "malformed"),
        ({"grant_type": "client_credentials", "subject_token": None}, "unsupported_grant_type", "malformed"),
        ({"grant_type": "password"}, "unsupported_grant_type", "malformed"),
        ({"grant_type": None}, "invalid_request", "malformed"),
    ],
)
def test_no_request_falls_through_to_another_grant(doors, idp, changes, error, reason):
    """Lesson 2.2 (CVE-2026-9704): a client without a subject's token never gets one of its own."""
    form = {"subject_token": idp.token(), **changes}
    answer = doors.at_token(form.pop("subject_token"), **form)
    assert (answer.status, answer.json["error"], answer.reason) == (400, error, reason)
