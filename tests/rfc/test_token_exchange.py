"""RFC 8693 over HTTP: what a request must hold, what the answer says, and what PyJWT finds in the token."""

import json
import time
import urllib.parse

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, ID_TOKEN, JWT, SECRET, decoded, wait_for

TYPE = "urn:ietf:params:oauth:token-type:"
BAD_REQUEST = (400, "invalid_request", "malformed")
ORDERS, SHOP, STOCK = (
    "https://orders.example.internal/api",
    "https://shop.example.internal",
    "https://stock.example.internal",
)
ITEMS = "items:read items:write"


@pytest.fixture
def plain(providers):
    return providers["plain"]


# The request.


def test_the_grant_type_is_token_exchange_and_nothing_else(ask, plain, error_of):
    """TE-01, EP-09."""
    token = plain.token()
    for absent in (None, ""):
        assert error_of(ask(token, grant_type=absent)) == BAD_REQUEST
    for other in ("authorization_code", "client_credentials", "token-exchange", GRANT + " ", GRANT.upper()):
        assert error_of(ask(token, grant_type=other)) == (400, "unsupported_grant_type", "malformed")
    assert ask(token).status == 200


@pytest.mark.parametrize("absent", [None, ""])
def test_subject_token_and_its_type_are_required_and_not_empty(ask, plain, error_of, absent):
    """TE-02."""
    assert error_of(ask(absent)) == (400, "invalid_request", "missing_credential")
    assert error_of(ask(plain.token(), subject_token_type=absent)) == BAD_REQUEST


def test_an_actor_token_without_its_type_and_a_type_without_its_token_are_refused(ask, plain, error_of):
    """TE-03."""
    assert error_of(ask(plain.token(), actor_token=plain.token())) == BAD_REQUEST
    assert error_of(ask(plain.token(), actor_token_type=JWT)) == BAD_REQUEST


def test_an_actor_token_that_cannot_be_proven_refuses_and_is_never_dropped(ask, plain, error_of):
    """TE-25. What is asked for is a token with that actor: one without it would be another."""
    answer = ask(plain.token(), actor_token=plain.token(sub="bob") + "A", actor_token_type=JWT)
    assert error_of(answer)[:2] == (400, "invalid_request")
    answer = ask(plain.token(), actor_token=plain.token(sub="bob"), actor_token_type="urn:x:unknown")
    assert error_of(answer) == (400, "invalid_request", "bad_type")


@pytest.mark.parametrize("resource", ["/x", "orders", ORDERS + "#f", ORDERS + "#", "https://", "//orders", "a b:c"])
def test_a_resource_that_is_no_absolute_uri_or_has_a_fragment_is_refused(ask, plain, error_of, resource):
    """TE-04."""
    assert error_of(ask(plain.token(), audience=None, resource=resource))[:2] == (400, "invalid_target")
    assert error_of(ask(plain.token(), resource=resource))[:2] == (400, "invalid_target")


def test_every_resource_decides_the_target_and_is_meant_exactly(ask, plain, error_of, judged):
    """TE-04, TE-05, TE-31."""
    one = ask(plain.token(), audience=None, resource=ORDERS)
    assert judged(one)["aud"] == ORDERS
    both = ask(plain.token(scope=ITEMS), audience=None, resource=[SHOP, STOCK])
    assert judged(both, SHOP)["aud"] == [SHOP, STOCK]
    for other in (ORDERS + "/", ORDERS + "/x", ORDERS + "?x", ORDERS.upper(), "https://orders.example.internal"):
        assert error_of(ask(plain.token(), audience=None, resource=other)) == (400, "invalid_target", "no_consent")
        assert error_of(ask(plain.token(), audience=None, resource=[ORDERS, other]))[1] == "invalid_target"


def test_audience_and_resource_may_be_mixed_and_the_token_suits_all_of_them(ask, plain, judged):
    """TE-05, TE-31, AT-06."""
    answer = ask(plain.token(scope=ITEMS), audience=["shop", "stock"], resource=[STOCK, SHOP])
    claims = judged(answer, STOCK)
    assert claims["aud"] == [SHOP, STOCK]
    assert claims["scope"] == answer.json["scope"] == ITEMS
    assert judged(ask(plain.token(scope=ITEMS), audience="shop", resource=SHOP), SHOP)["aud"] == SHOP


def test_backends_that_do_not_share_tokens_are_never_named_in_one(ask, plain, error_of):
    """TE-05, AT-06: else one of them could use the token at the other, and a scope would mean two things."""
    for audiences in (
        ["orders", "billing"],
        ["shop", "orders"],
        ["shop", "open"],
        ["shop", "alone"],
        ["alone", "stock"],
    ):
        assert error_of(ask(plain.token(scope=f"{ITEMS} orders:read"), audience=audiences))[1:] == (
            "invalid_target",
            "no_consent",
        )


def test_an_unknown_audience_and_a_forbidden_one_are_an_invalid_target_alike(ask, plain, error_of):
    """TE-06, TE-05, EP-09."""
    token = plain.token(scope=ITEMS)
    narrow = {"client": "narrow", "secret": "narrow-secret-for-tests-only"}
    assert ask(token, audience="shop", **narrow).status == 200
    answers = [ask(token, audience=name, **narrow) for name in ("stock", "nowhere", ["shop", "stock"], "*", "SHOP")]
    assert {error_of(answer) for answer in answers} == {(400, "invalid_target", "no_consent")}
    assert len({answer.body for answer in answers}) == 1


def test_without_any_target_only_a_configured_default_is_used(ask, plain, error_of, judged):
    """TE-05, TE-20."""
    token = plain.token(scope=ITEMS)
    assert error_of(ask(token, audience=None)) == (400, "invalid_request", "audience_missing")
    narrow = {"client": "narrow", "secret": "narrow-secret-for-tests-only"}
    for nothing in (None, ""):
        assert judged(ask(token, audience=nothing, **narrow), SHOP)["aud"] == SHOP


def test_scopes_never_exceed_what_the_subject_has_and_the_target_knows(ask, plain, error_of, judged):
    """TE-07, TE-08, TE-28."""
    token = plain.token(scope="orders:read billing:read admin")
    whole = ask(token)
    assert judged(whole)["scope"] == whole.json["scope"] == "orders:read"
    for wide in ("orders:write", "orders:read orders:write", "billing:read", "admin", "orders:read admin"):
        assert error_of(ask(token, scope=wide)) == (400, "invalid_scope", "insufficient_scope")
    both = ask(plain.token(), scope="orders:write orders:read orders:write")
    assert judged(both)["scope"] == both.json["scope"] == "orders:write orders:read"


@pytest.mark.parametrize("scope", [" ", "a  b", "orders:read ", 'a"b', "a\\b", "a\u00e9", "a\nb", "a\tb"])
def test_a_scope_that_is_not_written_as_rfc_6749_says_is_refused(ask, plain, error_of, scope):
    """TE-07."""
    assert error_of(ask(plain.token(), scope=scope)) == (400, "invalid_scope", "malformed")


def test_a_target_without_scopes_gives_none_and_refuses_to_be_asked_for_any(ask, plain, error_of, judged):
    """TE-07, TE-08, AT-06."""
    answer = ask(plain.token(), audience="open")
    assert "scope" not in answer.json
    assert "scope" not in judged(answer, "open")
    assert error_of(ask(plain.token(), audience="open", scope="orders:read"))[1] == "invalid_scope"


def test_the_requested_type_picks_the_answers_and_absent_means_access_token(ask, plain, judged):
    """TE-09, TE-14, TE-15."""
    for asked, said in ((None, ACCESS_TOKEN), ("", ACCESS_TOKEN), (ACCESS_TOKEN, ACCESS_TOKEN), (JWT, JWT)):
        answer = ask(plain.token(), requested_token_type=asked)
        assert (answer.json["issued_token_type"], answer.json["token_type"]) == (said, "Bearer")
        assert decoded(answer.token)[0]["typ"] == "at+jwt"
        assert judged(answer)["sub"] == "alice"


@pytest.mark.parametrize("name", ["refresh_token", "id_token", "saml1", "saml2", "txn_token", "ACCESS_TOKEN", ""])
def test_a_requested_type_that_is_not_issued_is_refused(ask, plain, error_of, name):
    """TE-09."""
    assert error_of(ask(plain.token(), requested_token_type=TYPE + name)) == BAD_REQUEST


@pytest.mark.parametrize(
    "declared", [TYPE + "refresh_token", TYPE + "saml1", TYPE + "saml2", TYPE + "JWT", "jwt", "urn:x", "\u00e9"]
)
def test_a_subject_token_type_that_is_not_read_is_refused_before_the_token_is_parsed(ask, plain, error_of, declared):
    """TE-10: the reason is the type's, however broken the token, and no key is asked for."""
    for token in (plain.token(), "junk", "a.b.c", "<saml/>", "\u00e9"):
        assert error_of(ask(token, subject_token_type=declared)) == (400, "invalid_request", "bad_type")


def test_an_opaque_text_is_no_jwt_and_has_no_source(ask, error_of):
    """TE-10."""
    assert error_of(ask("opaque", subject_token_type=JWT)) == BAD_REQUEST
    assert error_of(ask("opaque")) == (400, "invalid_request", "unknown_issuer")


def test_each_declared_type_is_held_against_what_the_token_is(ask, providers, error_of):
    """TE-11: by its content. Where a source takes ID tokens, one is judged as such under every name."""
    refused = (400, "invalid_request", "bad_type")
    plain, login = providers["plain"], providers["login"]
    for marked in ({"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"typ": "ID"}):
        for declared in (ACCESS_TOKEN, JWT, ID_TOKEN):
            assert error_of(ask(plain.token(**marked), subject_token_type=declared)) == refused
        assert ask(login.token(**marked), subject_token_type=ID_TOKEN).status == 200
    assert error_of(ask(plain.token(), subject_token_type=ID_TOKEN)) == refused
    for declared in (ACCESS_TOKEN, JWT):
        assert error_of(ask(login.token(), subject_token_type=declared)) == refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"aud": "elsewhere"}, "audience_mismatch"),
        ({"iss": "https://evil.example"}, "unknown_issuer"),
        ({"may_act": {"sub": "somebody"}}, "actor_refused"),
        ({"sub": CLIENT}, "subject_collision"),
        ({"sub": None}, "no_mapping"),
    ],
    ids=str,
)
def test_a_subject_token_that_is_not_acceptable_is_an_invalid_request(ask, plain, error_of, changes, reason):
    """TE-12, EP-09: never `invalid_grant` (RFC 8693 §2.2.2)."""
    assert error_of(ask(plain.token(**changes))) == (400, "invalid_request", reason)


@pytest.mark.parametrize("content_type", [
    None, "", "application/json", "multipart/form-data; boundary=x", "text/plain",
    "application/x-www-form-urlencoded; charset=utf-16", "application/x-www-form-urlencoded; charset=iso-8859-1",
])  # fmt: skip
def test_a_body_of_another_type_or_charset_is_415(raw, form, plain, error_of, content_type):
    """TE-18."""
    assert error_of(raw(form(plain.token()), {"Content-Type": content_type})) == (415, "invalid_request", "malformed")


def test_a_body_in_json_or_utf_16_is_refused_under_the_right_type_too(raw, form, plain, error_of):
    """TE-18."""
    fields = dict(urllib.parse.parse_qsl(form(plain.token()).decode()))
    for body in (json.dumps(fields).encode(), form(plain.token()).decode().encode("utf-16"), b"\xff\xfe", b"a=%FF"):
        assert error_of(raw(body)) == BAD_REQUEST
    utf8 = raw(form(plain.token()), {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"})
    assert utf8.status == 200


SENT_TWICE = {
    "grant_type": GRANT,
    "subject_token": "x",
    "subject_token_type": ACCESS_TOKEN,
    "actor_token": "x",
    "actor_token_type": JWT,
    "requested_token_type": ACCESS_TOKEN,
    "scope": "orders:read",
    "client_id": CLIENT,
    "client_secret": SECRET,
    "foo": "bar",
}


@pytest.mark.parametrize("name", SENT_TWICE)
def test_a_parameter_sent_twice_is_refused_even_with_equal_values(ask, plain, error_of, name):
    """TE-19."""
    token = plain.token()
    value = token if name == "subject_token" else SENT_TWICE[name]
    for twice in ([value, value], [value, "other"], [value, ""], ["", ""]):
        token = twice if name == "subject_token" else token
        changes = {} if name == "subject_token" else {name: twice}
        assert error_of(ask(token, **changes)) == BAD_REQUEST


def test_only_audience_and_resource_may_be_sent_twice(ask, plain, judged):
    """TE-19."""
    assert judged(ask(plain.token(), audience=["orders", "orders"], resource=[ORDERS, ORDERS]))["aud"] == ORDERS


def unknown_parameters(rfc):
    lines = rfc.get("/metrics").body.decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("sts_unknown_parameters_total "))


def test_an_empty_parameter_is_absent_and_an_unknown_one_ignored_but_counted(rfc, ask, plain, judged):
    """TE-20."""
    before = unknown_parameters(rfc)
    empty = ask(plain.token(), scope="", resource="", requested_token_type="", actor_token="", actor_token_type="")
    assert judged(empty)["scope"] == "orders:read orders:write"
    assert unknown_parameters(rfc) == before
    assert judged(ask(plain.token(), foo="bar", Scope="admin"))["scope"] == "orders:read orders:write"
    wait_for(lambda: unknown_parameters(rfc) == before + 1)


def test_parameters_in_the_query_are_not_read_and_not_logged(rfc, raw, form, plain, error_of):
    """TE-21."""
    token = plain.token()
    for body in (b"", form(token)):
        assert error_of(raw(body, target="/token?" + form(token).decode())) == BAD_REQUEST
    assert error_of(raw(form(token, audience=""), target="/token?audience=orders")) == BAD_REQUEST
    told = rfc.log() + rfc.audit_file.read_text(encoding="utf-8")
    assert token.split(".")[2] not in told
    assert token.split(".")[1] not in told


def test_what_is_not_understood_but_would_change_the_token_is_refused(ask, plain, error_of):
    """TE-34, TE-32, DP-01: rich authorization details, and a DPoP proof whose sender expects a bound token."""
    details = json.dumps([{"type": "payment"}])
    assert error_of(ask(plain.token(), authorization_details=details)) == BAD_REQUEST
    assert error_of(ask(plain.token(), headers={"DPoP": "a.b.c"})) == BAD_REQUEST


@pytest.mark.parametrize(
    ("confirmation", "reason"),
    [
        *((value, "binding_failed") for value in ({"jkt": "x"}, {"x5t#S256": "x"}, {"kid": "x"}, {"jwk": {}}, {})),
        *((value, "malformed") for value in ("x", None, [])),
    ],
    ids=str,
)
def test_a_bound_token_without_a_proof_is_refused(ask, plain, error_of, confirmation, reason):
    """TE-32: whatever it is bound to; `null` is an odd value, not an absent member."""
    token = plain.rsa.sign(plain.claims() | {"cnf": confirmation})
    assert error_of(ask(token)) == (400, "invalid_request", reason)


# Who asks.


def test_nobody_gets_a_token_without_having_proven_itself(raw, form, plain, error_of):
    """TE-29, EP-06."""
    refused = (401, "invalid_client", "client_refused")
    for more in ({}, {"client_id": CLIENT}, {"client_id": CLIENT, "client_secret": "wrong"}):
        answer = raw(form(plain.token(), **more), {"Authorization": None})
        assert error_of(answer) == refused
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_the_client_id_of_a_token_is_the_proven_clients_whatever_the_form_says(ask, plain, error_of, judged):
    """TE-27."""
    assert error_of(ask(plain.token(), client_id="narrow")) == BAD_REQUEST
    assert judged(ask(plain.token(client_id="mallory", azp="mallory"), client_id=CLIENT))["client_id"] == CLIENT
    narrow = ask(plain.token(scope=ITEMS), audience="shop", client="narrow", secret="narrow-secret-for-tests-only")
    claims = judged(narrow, SHOP)
    assert claims["client_id"] == claims["act"]["sub"] == "narrow"


# The answer.


def test_the_answer_says_what_was_issued_and_has_no_refresh_token(ask, plain, judged):
    """TE-13, TE-14, TE-15, TE-16, TE-28."""
    asked = time.time()
    answer = ask(plain.token())
    answered = time.time()
    claims = judged(answer)
    assert answer.headers["content-type"] == "application/json"
    assert claims["exp"] - answered - 1 <= answer.json["expires_in"] <= claims["exp"] - asked + 1
    assert {**answer.json, "access_token": "", "expires_in": 0} == {
        "access_token": "",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 0,
        "scope": "orders:read orders:write",
    }
    assert isinstance(claims["scope"], str)


def test_no_answer_of_any_status_may_be_stored(ask, raw, form, plain, error_of):
    """TE-17, EP-01."""
    token = plain.token()
    answers = [
        ask(token),
        ask("junk"),
        ask(token, secret="wrong"),
        raw(b"", method="GET"),
        raw(b"a" * 70_000),
        raw(form(token), {"Content-Type": "text/plain"}),
    ]
    answers += [limited(ask)]
    assert [answer.status for answer in answers] == [200, 400, 401, 405, 413, 415, 429]
    for answer in answers:
        assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    for answer in answers[1:]:
        error_of(answer)
    assert answers[3].headers["allow"] == "POST"
    assert int(answers[6].headers["retry-after"]) > 0


def limited(ask):
    """Fail as a client that is not there until failures are limited."""
    for _ in range(2000):
        answer = ask("x", client="guess", secret="wrong")
        if answer.status != 401:
            break
    return answer


def test_a_source_that_cannot_be_reached_is_503_without_being_stored(ask, providers, error_of):
    """TE-17, EP-09, BE-08. The fault is not the token's, so it is not called invalid."""
    answer = ask(providers["down"].token())
    assert error_of(answer) == (503, "temporarily_unavailable", "source_unreachable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "text", ['"', "\\", "\r\nX-Evil: 1", "\u00e9", "\x00", "MARK\u2028", '{"a":1}', "<b>", "%00", "\x7f", "🙂"]
)
def test_an_error_repeats_nothing_of_the_request(ask, plain, error_of, text):
    """TE-35, ER-02."""
    text = f"MARK{text}"
    for changes in (
        {"subject_token_type": text},
        {"audience": text},
        {"resource": text},
        {"scope": text},
        {"grant_type": text},
        {"requested_token_type": text},
    ):
        answer = ask(plain.token(), **changes)
        assert error_of(answer)[0] == 400
        assert b"MARK" not in answer.body + repr(answer.headers).encode()
    for token in (text, f"{text}.{text}.{text}", plain.token() + text):
        answer = ask(token)
        assert error_of(answer)[0] == 400
        assert b"MARK" not in answer.body + repr(answer.headers).encode()


# The token.


def test_an_earlier_actor_is_nested_below_the_newest_and_keeps_only_its_name(ask, plain, judged):
    """TE-22, TE-23, TE-24."""
    earlier = {"sub": "batch", "iss": "https://other.example", "exp": 1, "nbf": 2, "aud": "x", "act": {"sub": "cron"}}
    act = judged(ask(plain.token(act=earlier)))["act"]
    assert act == {
        "sub": CLIENT,
        "iss": "https://sts.example.internal/tenant",
        "act": {"sub": "batch", "iss": "https://other.example", "act": {"sub": "cron"}},
    }


def test_an_inner_actor_gives_no_right_and_takes_none(ask, plain, error_of, judged):
    """TE-24: `may_act` is held against the present actor alone, whoever acted before."""
    may_act = {"sub": "batch", "iss": "https://other.example"}
    trusted_inside = plain.token(act={"sub": "x", "act": may_act}, may_act=may_act)
    assert error_of(ask(trusted_inside))[2] == "actor_refused"
    present = {"sub": CLIENT, "iss": "https://sts.example.internal/tenant"}
    assert judged(ask(plain.token(act={"sub": "x"}, may_act=present)))["act"]["act"] == {"sub": "x"}


def test_a_token_ends_with_whatever_ends_first(ask, plain, judged):
    """TE-30: the target's `ttl`, or the credential."""
    now = int(time.time())
    assert judged(ask(plain.token(exp=now + 90)))["exp"] == now + 90
    claims = judged(ask(plain.token(exp=now + 600), audience="open"), "open")
    assert 118 <= claims["exp"] - claims["iat"] <= 120
    half = judged(ask(plain.rsa.sign(plain.claims(exp=now + 90.9))))["exp"]
    assert half == now + 90


def test_age_and_login_limits_end_what_they_allow(ask, providers, error_of):
    """JW-30, AT-09: a token of ten years is refused where its source has limits."""
    dated, now = providers["dated"], int(time.time())
    good = {"auth_time": now - 60}
    assert ask(dated.token(**good)).status == 200
    for changes in (
        {**good, "exp": now + 10 * 365 * 86400},
        {**good, "iat": now - 3700},
        {**good, "iat": None},
        {"auth_time": now - 3700},
        {},
    ):
        assert error_of(ask(dated.token(**changes)))[1] == "invalid_request"
    assert error_of(ask(dated.token(**good, exp=now + 10 * 365 * 86400)))[2] == "too_old"


def test_a_token_of_ours_is_no_subject_token(ask, plain, error_of):
    """TE-33."""
    assert error_of(ask(ask(plain.token()).token)) == (400, "invalid_request", "unknown_issuer")
