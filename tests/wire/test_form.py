"""Every form that is not exactly one good form gets its documented answer, and no token."""

import base64
import urllib.parse

import pytest
from harness import ACCESS_TOKEN, CLIENT, GRANT, JWT, SECRET

FORM = "application/x-www-form-urlencoded"


def encoded(pairs):
    return urllib.parse.urlencode(pairs).encode()


def padded(body, length):
    """The same form with a parameter that nobody knows, so that it has exactly `length` bytes."""
    return body + b"&pad=" + b"a" * (length - len(body) - 5)


@pytest.fixture
def refused(post, description):
    """Assert that a request is refused with this status and reason, as described."""

    def refused(status, reason, body=None, **how):
        answer = post(body, **how)
        assert (answer.status, answer.reason) == (status, reason), answer
        description.check("/token", how.get("method", "post"), answer)
        return answer

    return refused


def test_a_good_form_is_good(post, description):
    answer = post()
    assert answer.status == 200
    description.check("/token", "post", answer)


def test_a_body_of_64_kib_is_read_and_one_byte_more_is_not(post, refused, form):
    """EP-10."""
    body = encoded(form())
    assert post(padded(body, 65536)).status == 200
    refused(413, "too_large", padded(body, 65537))
    refused(413, "too_large", padded(body, 1_000_000))


def test_64_parameters_are_read_and_one_more_is_not(post, refused, form):
    """EP-10: known or not, with a value or without."""
    pairs = form()
    more = [(f"p{number}", "") for number in range(64 - len(pairs))]
    assert post(encoded(pairs + more)).status == 200
    refused(413, "too_large", encoded([*pairs, *more, ("p", "")]))
    refused(413, "too_large", encoded(form([("audience", "orders")] * 64)))
    assert post(encoded(pairs) + b"&" * 1000).status == 200  # nothing between them is no parameter


@pytest.mark.parametrize(
    "name",
    [
        *("grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope", "client_id"),
        *("client_secret", "actor_token", "actor_token_type", "client_assertion", "client_assertion_type", "unknown"),
    ],
)
@pytest.mark.parametrize("values", [("a", "a"), ("a", "b"), ("", "a"), ("a", ""), ("", "")], ids=repr)
def test_a_parameter_stands_once(refused, form, name, values):
    """TE-02 and RFC 6749 §3.2: even where one of the two is empty."""
    refused(400, "malformed", encoded(form(**{name: None}) + [(name, value) for value in values]))


def test_audience_and_resource_may_be_repeated(post, refused, form):
    """RFC 8693 §2.1: the same target twice is one; two targets are refused for what they are, not for their number."""
    assert post(encoded(form([("audience", "orders")]))).status == 200
    assert post(encoded(form([("audience", "")]))).status == 200
    assert post(encoded(form([("audience", "billing")]))).status == 400
    refused(400, "no_consent", encoded(form([("resource", "https://a.example"), ("resource", "https://b.example")])))


@pytest.mark.parametrize(
    "query", ["x=1", "grant_type=x", "client_secret=x", "subject_token=x", "=", "&", "%00", "?", "access_token=x"]
)
def test_a_query_is_refused(refused, query):
    """RFC 6749 §2.3.1, RFC 9700 §4.3.2: what stands there stands in logs."""
    refused(400, "malformed", target=f"/token?{query}")


@pytest.mark.parametrize(
    "content_type",
    [
        FORM,
        FORM.upper(),
        f"{FORM};charset=UTF-8",
        f"{FORM}; charset=utf-8",
        f'{FORM} ; charset="UTF-8" ',
        f"{FORM};CHARSET=utf-8",
    ],
)
def test_a_form_in_utf_8_is_read_however_it_is_called(post, content_type):
    assert post(Content_Type=content_type).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=a",
        f"{FORM}2",
        f"x{FORM}",
        f"{FORM},{FORM}",
        f"{FORM};",
        f"{FORM};charset=",
        f"{FORM};charset=utf-16",
        f"{FORM};charset=iso-8859-1",
        f"{FORM};charset=utf-7",
        f"{FORM};charset=utf-8;charset=utf-16",
        f"{FORM};charset='utf-8'",
        f"{FORM};boundary=a",
        f"{FORM} charset=utf-8",
        "*/*",
        "application/x-www-form-urlencode\xe9",
    ],
)
def test_anything_but_a_form_in_utf_8_is_refused(refused, content_type):
    refused(415, "malformed", Content_Type=content_type)


@pytest.mark.parametrize(
    "broken",
    [
        *(b"%", b"%4", b"%zz", b"%4g", b"%%41", b"%u0041", b"a b", b"a\tb", b"a\r\nb", b"a\0b", b"a\x7fb"),
        *(
            b"\xc3\xa9",
            b"\xff",
            b"%FF",
            b"%C3",
            b"%C0%AF",
            b"%E0%80%AF",
            b"%ED%A0%80",
            b"%F5%80%80%80",
            b"%F4%90%80%80",
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", [b"&unknown=%s", b"&%s=a", b"&audience=%s"])
def test_what_is_not_encoded_rightly_is_refused(refused, form, broken, where):
    refused(400, "malformed", encoded(form()) + where.replace(b"%s", broken))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"])
def test_a_form_in_another_encoding_is_refused(post, form, encoding):
    body = encoded(form()).decode().encode(encoding)
    answer = post(body)
    assert answer.status in (400, 413)
    assert answer.reason in ("malformed", "too_large")


@pytest.mark.parametrize("body", [b"", b"&", b"=", b"=&=a", b"{}", b'{"grant_type": "x"}', b"a" * 65536, b"&" * 65536])
def test_a_body_that_is_no_exchange_is_refused(post, description, body):
    answer = post(body)
    assert answer.status == 400
    assert answer.reason == "malformed"
    description.check("/token", "post", answer)


def test_a_body_may_end_at_any_byte_and_never_gives_more_than_was_asked(post, description, form):
    """Truncated forms: each is refused, or asks for what it still says."""
    body = encoded(form())
    for end in range(0, len(body), 37):
        answer = post(body[:end])
        assert answer.status == 400, body[:end]
        description.check("/token", "post", answer)


@pytest.mark.parametrize("separator", [b";", b"%26", b"\n", b","])
def test_only_an_ampersand_separates_parameters(post, form, separator):
    assert post(encoded(form()).replace(b"&", separator)).status == 400


def test_text_of_any_language_is_text(refused, form):
    for audience in ("órdenes", "注文", "\U0001f4a9", "a\0b", "orders\n", " orders", "orders ", "ORDERS", "orders%"):
        refused(400, "no_consent", encoded(form(audience=audience)))


@pytest.mark.parametrize(
    ("changes", "status", "error", "reason"),
    [
        ({"grant_type": None}, 400, "invalid_request", "malformed"),
        ({"grant_type": ""}, 400, "invalid_request", "malformed"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type", "malformed"),
        ({"grant_type": GRANT.upper()}, 400, "unsupported_grant_type", "malformed"),
        ({"subject_token": None}, 400, "invalid_request", "missing_credential"),
        ({"subject_token": ""}, 400, "invalid_request", "missing_credential"),
        ({"subject_token_type": None}, 400, "invalid_request", "malformed"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, 400, "invalid_request", "bad_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, 400, "invalid_request", "bad_type"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:id_token"}, 400, "invalid_request", "malformed"),
        ({"actor_token": "x"}, 400, "invalid_request", "malformed"),
        ({"actor_token_type": JWT}, 400, "invalid_request", "malformed"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, 400, "invalid_request", "unknown_issuer"),
        ({"audience": None}, 400, "invalid_request", "audience_missing"),
        ({"audience": "nobody"}, 400, "invalid_target", "no_consent"),
        ({"resource": "/relative"}, 400, "invalid_target", "malformed"),
        ({"resource": "https://a.example/#x"}, 400, "invalid_target", "malformed"),
        ({"scope": "orders:read  orders:write"}, 400, "invalid_scope", "malformed"),
        ({"scope": 'a"b'}, 400, "invalid_scope", "malformed"),
        ({"scope": "admin"}, 400, "invalid_scope", "insufficient_scope"),
        ({"authorization_details": "[]"}, 400, "invalid_request", "malformed"),
    ],
)
def test_each_fault_has_its_code(refused, form, changes, status, error, reason):
    """EP-09, TE-23, TE-24: RFC 6749 §5.2, RFC 8693 §2.2.2."""
    assert refused(status, reason, encoded(form(**changes))).json["error"] == error


def test_a_dpop_header_is_refused_and_not_ignored(refused):
    refused(400, "malformed", DPoP="x")


# How the client proves itself.


def basic(text):
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        basic(f"{CLIENT}:{SECRET}"),
        basic(f"{CLIENT}:{SECRET}").replace("Basic", "bAsIc"),
        basic(f"{CLIENT}:{SECRET}".replace("-", "%2D")),
        basic(f"{CLIENT}:{SECRET}".replace("-", "%2d")),
        basic("".join(f"%{ord(one):02X}" for one in CLIENT) + ":" + "".join(f"%{ord(one):02X}" for one in SECRET)),
    ],
)
def test_basic_is_read_as_all_clients_write_it(post, authorization):
    """EP-04, EP-05."""
    assert post(Authorization=authorization).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic ",
        "Basic !",
        "Basic ====",
        basic(CLIENT),
        basic(b"\xff\xfe:" + SECRET.encode()),
        basic(f"%FF:{SECRET}"),
        basic(f"{CLIENT}:{SECRET}:"),
        basic(f"{CLIENT}:{SECRET}+"),
        basic(f"{CLIENT}:{SECRET}").replace("%", "%25") + "=",
        basic(f":{SECRET}"),
        basic(f"{CLIENT}%252D:{SECRET}"),
        f"{basic(f'{CLIENT}:{SECRET}')},{basic(f'{CLIENT}:{SECRET}')}",
        f"{basic(f'{CLIENT}:{SECRET}')} x",
        f"Bearer {SECRET}",
        "Digest x",
    ],
)
def test_any_other_proof_is_the_same_401_with_a_challenge(post, description, authorization):
    """EP-04, EP-06, EP-07: 429 stands for the same refusal where there were too many."""
    answer = post(Authorization=authorization)
    assert answer.status in (401, 429)
    assert answer.reason == "client_refused"
    description.check("/token", "post", answer)


def test_a_secret_in_the_form_is_answered_like_one_in_the_header(post, form, description):
    """EP-06, EP-07: no challenge is left out because another method failed."""
    assert post(encoded(form(client_id=CLIENT, client_secret=SECRET)), Authorization=None).status == 200
    answers = [
        post(encoded(form(client_id=CLIENT, client_secret="no")), Authorization=None),
        post(encoded(form(client_id="nobody-at-all", client_secret=SECRET)), Authorization=None),
        post(encoded(form(client_id=CLIENT)), Authorization=None),
        post(Authorization=None),
    ]
    for answer in answers:
        assert answer.status in (401, 429)
        assert answer.body == answers[0].body
        description.check("/token", "post", answer)


@pytest.mark.parametrize(
    "more",
    [
        {"client_secret": SECRET},
        {"client_id": CLIENT, "client_secret": SECRET},
        {"client_id": "another"},
        {"client_assertion": "x"},
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
    ],
)
def test_two_ways_to_prove_a_client_are_refused(refused, form, more):
    """EP-03."""
    refused(400, "malformed", encoded(form(**more)))


def test_the_client_id_beside_basic_may_repeat_it(post, form):
    assert post(encoded(form(client_id=CLIENT))).status == 200


def test_the_proof_may_come_twice_only_as_a_refusal(service, form, description):
    """Two Authorization fields arrive joined with a comma, which is no proof."""
    body = encoded(form())
    good = basic(f"{CLIENT}:{SECRET}")
    for second in (good, "Basic eDp5"):
        answer = service.request(
            "POST", "/token", [("Content-Type", FORM), ("Authorization", good), ("Authorization", second)], body
        )
        assert answer.status in (401, 429)
        description.check("/token", "post", answer)


def test_no_refusal_says_what_was_sent(post, form, credential):
    """ER-02."""
    mark = "zq9-mark-zq9"
    for body in (
        encoded(form(audience=mark)),
        encoded(form(subject_token=mark)),
        encoded(form(subject_token_type=mark)),
        encoded(form(grant_type=mark)),
        encoded(form(scope=mark)),
        encoded(form(resource=f"urn:{mark}")),
        encoded(form([(mark, mark), (mark, mark)])),
    ):
        answer = post(body)
        assert answer.status == 400
        told = f"{answer.headers}{answer.body}"
        assert mark not in told
        assert credential not in told
        assert SECRET not in told
