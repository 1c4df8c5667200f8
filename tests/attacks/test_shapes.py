"""One token has one text and one reading: every other shape is refused (RFC 8725 §3.7, RFC 7515 §10.12)."""

import json
import zlib

import pytest
from harness import b64, unb64

HEADER = {"alg": "RS256", "kid": "rsa-1"}
OPAQUE = "unknown_issuer"  # what does not look signed is some opaque access token, for which there is no source


def random_part(length):
    return b64(bytes(range(1, length + 1)))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT"},
        {"alg": "dir", "enc": "A256GCM", "kid": "rsa-1"},
        {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}},
        {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 10**9, "p2s": "AAAA"},
        {"alg": "RSA1_5", "enc": "A128CBC-HS256", "zip": "DEF"},
        {"alg": "none", "enc": "none"},
    ],
    ids=lambda header: header["alg"],
)
def test_an_encrypted_token_is_not_taken_for_a_signed_one(doors, idp, header):
    """JW-07, JW-12, JW-13, JW-15, JW-16, JW-39: refused by its shape, before anything is derived or inflated."""
    for content in (random_part(48), b64(idp.claims()), b64(idp.token().encode())):
        token = f"{b64(header)}.{random_part(32)}.{random_part(12)}.{content}.{random_part(16)}"
        doors.refuse(token, OPAQUE, as_jwt="bad_type")


def test_an_encrypted_token_with_a_plain_one_inside_is_refused(doors, idp):
    """JW-06, JW-07, lesson 2.9 (CVE-2026-29000 pac4j-jwt: a JWE around a PlainJWT)."""
    plain = f"{b64({'alg': 'none'})}.{b64(idp.claims())}."
    token = f"{b64({'alg': 'dir', 'enc': 'A128GCM', 'cty': 'JWT'})}..{random_part(12)}.{b64(plain.encode())}."
    doors.refuse(token, OPAQUE, as_jwt="bad_type")


def serialised(token, *, flat=True, **changes):
    header, claims, signature = token.split(".")
    one = {"protected": header, "signature": signature}
    whole = {"payload": claims, **one} if flat else {"payload": claims, "signatures": [one]}
    return json.dumps({**whole, **changes})


@pytest.mark.parametrize("flat", [True, False], ids=["flattened", "general"])
def test_json_serialisation_is_refused(doors, idp, thief, flat):
    """JW-19, lesson 2.20. Also with a second signature, and with the header unprotected."""
    token = idp.token()
    for text in (
        serialised(token, flat=flat),
        serialised(token, flat=flat, header={"alg": "none"}),
        serialised(thief["RS256"].sign(idp.claims()), flat=flat, header={"kid": "rsa-1"}),
        b64(serialised(token, flat=flat).encode()),
    ):
        doors.refuse(text, OPAQUE, as_jwt="malformed", at_forward="malformed" if text[0] == "{" else OPAQUE)


def pieces(token):
    """What a token may be cut or glued into, and the reasons as an access token, as a JWT and at forward-auth."""
    header, claims, signature = token.split(".")
    yield "one part", header, (OPAQUE, "malformed", OPAQUE)
    yield "two parts", f"{header}.{claims}", (OPAQUE, "malformed", OPAQUE)
    yield "four parts", f"{token}.{signature}", (OPAQUE, "malformed", OPAQUE)
    yield "four parts, the last empty", f"{token}.", (OPAQUE, "malformed", OPAQUE)
    yield "five parts of a signed token", f"{token}.{claims}.{signature}", (OPAQUE, "bad_type", OPAQUE)
    yield "six parts", f"{token}.{token}", (OPAQUE, "malformed", OPAQUE)
    yield "a dot before", f".{token}", (OPAQUE, "malformed", OPAQUE)
    yield "dots only", "..", (OPAQUE, "malformed", OPAQUE)
    yield "no claims", f"{header}..{signature}", ("malformed", "malformed", "malformed")
    yield "no header", f".{claims}.{signature}", (OPAQUE, "malformed", OPAQUE)
    yield "claims first", f"{claims}.{header}.{signature}", ("malformed", "malformed", "malformed")
    yield "two tokens, comma", f"{token},{token}", (OPAQUE, "malformed", "malformed")
    yield "two tokens, space", f"{token} {token}", (OPAQUE, "malformed", "malformed")


def test_the_number_of_parts_is_three(doors, idp):
    """JW-19, JW-39."""
    for name, token, (reason, as_jwt, at_forward) in pieces(idp.token()):
        try:
            doors.refuse(token, reason, as_jwt=as_jwt, at_forward=at_forward)
        except AssertionError as error:
            raise AssertionError(name) from error


def altered(token):
    """Other texts that a generous reader takes for the same token."""
    header, claims, signature = token.split(".")
    standard = signature.replace("-", "+").replace("_", "/")
    yield "padding", f"{header}.{claims}.{signature}=="
    yield "padding inside", f"{header}==.{claims}.{signature}"
    yield "standard base64", f"{header}.{claims}.{standard}"
    yield "a space before", f" {token}"
    yield "a space after", f"{token} "
    yield "a space inside", f"{header}. {claims}.{signature}"
    yield "a tab after", f"{token}\t"
    yield "a quote around", f'"{token}"'
    yield "a quote inside", f"{header}.{claims}'.{signature}"
    yield "a comma", f"{token},"
    yield "a semicolon", f"{token};"
    yield "a line break after", f"{token}\n"
    yield "a line break inside", f"{header}.{claims}\r\n.{signature}"
    yield "NUL", f"{token}\0"
    yield "an escaped dot", token.replace(".", "%2e")
    yield "a scheme", f"Bearer {token}"
    yield "a wide letter", f"{header}.{claims}.{signature[:-1]}\uff21"
    yield "an invisible space", f"{token}\u200b"
    yield "a byte order mark", f"\ufeff{token}"
    yield "one character more", f"{token}A"
    yield "an impossible length", f"{header}.{claims}.{signature[:-1]}"
    yield "spare bits set", token[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[token[-1]]


def test_no_other_text_of_a_good_token_passes(doors, idp):
    """JW-19, lesson 2.20: base64url without padding, white space or spare bits, and nothing else."""
    token = idp.token(header={"x": "yy"})
    while not set("-_") & set(token.rpartition(".")[2]):
        token = idp.token(header={"x": "yy"}, jti=token[-16:])
    doors.accept(token)
    for name, text in altered(token):
        for declared in ("urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:jwt"):
            answer = doors.at_token(text, declared)
            assert (answer.status, answer.reason in {"malformed", OPAQUE, "bad_signature"}) == (400, True), name
            doors.refused(answer, answer.reason, text.strip("\ufeff\u200b "))
        if not set(text) & set("\r\n\0\t ") and text != f"{token} ":
            assert doors.at_forward(text).status == 401, name


def test_the_white_space_that_http_itself_strips_is_no_part_of_a_token(doors, idp):
    """RFC 9110 §5.5: at the end of a header's value there is none; in the middle it is refused."""
    token = idp.token()
    assert doors.at_forward(f"{token}  ").status == 200
    doors.refused(doors.at_forward(f"{token[:40]} {token[40:]}"), "malformed", token)


@pytest.mark.parametrize("name", ["alg", "kid", "typ", "unknown", "\\u0061lg"])
def test_a_member_twice_in_the_header_is_refused(doors, idp, sign, name):
    """JW-18, RFC 7515 §10.12."""
    for first, second in (('"RS256"', '"none"'), ('"none"', '"RS256"'), ('"RS256"', '"RS256"')):
        text = f'{{"alg":"RS256","kid":"rsa-1","typ":"JWT","unknown":1,"{name}":{first},"{name}":{second}}}'
        doors.refuse(sign(idp.rsa, text, idp.claims()), "malformed")


@pytest.mark.parametrize("name", ["sub", "exp", "iss", "aud", "scope", "unknown", "s\\u0075b"])
def test_a_claim_twice_is_refused(doors, idp, sign, name):
    """JW-18: also where one of the two names is escaped."""
    good = json.dumps(idp.claims(unknown=1))[:-1]
    for value in ('"root"', "1", "null"):
        doors.refuse(sign(idp.rsa, HEADER, f'{good},"{name}":{value}}}'), "malformed")


def test_a_member_twice_anywhere_inside_is_refused(doors, idp, sign):
    """JW-18, at any depth."""
    good = json.dumps(idp.claims())[:-1]
    for text in ('"a":{"b":1,"b":2}', '"a":[[{"b":{"c":1,"c":1}}]]', '"act":{"sub":"x","sub":"y"}'):
        doors.refuse(sign(idp.rsa, HEADER, f"{good},{text}}}"), "malformed")


ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig", "cp037")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_in_any_encoding_but_utf_8_is_refused(doors, idp, encoding):
    """JW-17: readers that guess the encoding would read another document."""
    claims = json.dumps(idp.claims(note="\u00e9+")).encode(encoding)
    doors.refuse(idp.rsa.sign_raw(b64(HEADER), b64(claims)), "malformed")
    header = json.dumps(HEADER).encode(encoding)
    token = idp.rsa.sign_raw(b64(header), b64(idp.claims()))
    doors.refuse(token, "malformed" if header.startswith(b"{") else OPAQUE, as_jwt="malformed")


BYTES = {
    "a raw lone surrogate": b'"\xed\xa0\x80"',
    "a raw surrogate pair": b'"\xed\xa0\xbd\xed\xb8\x80"',
    "an overlong slash": b'"\xc0\xaf"',
    "an overlong NUL": b'"\xc0\x80"',
    "an overlong letter": b'"\xe0\x81\xa1"',
    "a lone continuation": b'"\x80"',
    "a cut character": b'"\xe2\x82"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "Latin-1": b'"\xe9"',
    "an escaped lone surrogate": b'"\\ud800"',
    "an escaped low surrogate": b'"\\udc00x"',
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "an escaped NUL": b'"a\\u0000b"',
    "a raw NUL": b'"a\0b"',
    "a raw line break": b'"a\nb"',
    "a raw tab": b'"a\tb"',
    "a wrong escape": b'"\\x41"',
    "a cut escape": b'"\\u12"',
    "single quotes": b"'a'",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "beyond a double": b"1e400",
    "minus beyond a double": b"-1e999999",
    "a leading zero": b"01",
    "a plus": b"+1",
    "a bare dot": b"1.",
    "hexadecimal": b"0x10",
    "ten thousand digits": b"9" * 6000,
    "a comment": b"1/*x*/",
    "a trailing comma": b"[1,]",
    "a bare word": b"undefined",
    "nothing": b"",
    "a deep list": b"[" * 40 + b"]" * 40,
    "a very deep list": b"[" * 4000 + b"]" * 4000,
    "a deep object": b'{"a":' * 800 + b"1" + b"}" * 800,
    "an endless list": b"[" * 6000,
}


@pytest.mark.parametrize("value", BYTES.values(), ids=BYTES)
def test_json_that_readers_disagree_about_is_refused(doors, idp, value):
    """JW-17, JW-28, RFC 8259 §8, RFC 7493: as a claim, as a member's name, in the header."""
    good = json.dumps(idp.claims()).encode()[:-1]
    doors.refuse(idp.rsa.sign_raw(b64(HEADER), b64(good + b',"note":' + value + b"}")), "malformed")
    if value[:1] == b'"':
        doors.refuse(idp.rsa.sign_raw(b64(HEADER), b64(good + b',"n":{' + value + b":1}}")), "malformed")
    if len(value) < 2000:
        head = b'{"alg":"RS256","kid":"rsa-1","x":' + value + b"}"
        doors.refuse(idp.rsa.sign_raw(b64(head), b64(idp.claims())), "malformed")


@pytest.mark.parametrize(
    "text", ["[]", "null", '"x"', "1", "true", "", " ", "{", "{}x", "{}{}", "[{}]", '{"alg":"RS256"'], ids=repr
)
def test_header_and_claims_are_one_object_each(doors, idp, text):
    doors.refuse(idp.rsa.sign_raw(b64(HEADER), b64(text.encode())), "malformed")
    token = idp.rsa.sign_raw(b64(text.encode()), b64(idp.claims()))
    doors.refuse(token, "malformed" if text[:1] == "{" else OPAQUE, as_jwt="malformed")


def test_claims_that_were_deflated_are_not_inflated(doors, idp):
    """JW-16, RFC 8725 §3.6: a megabyte of nothing in a kilobyte."""
    bomb = zlib.compress(json.dumps(idp.claims(note="A" * 1_000_000)).encode(), 9)
    doors.refuse(idp.rsa.sign_raw(b64(HEADER), b64(bomb)), "malformed")
    doors.refuse(idp.rsa.sign_raw(b64({**HEADER, "zip": "DEF"}), b64(bomb[2:-4])), "bad_type")


def test_an_odd_text_that_can_be_read_in_one_way_passes_unchanged(world):
    """JW-17: what is refused above is refused for its ambiguity, not for being foreign."""
    subject = "J\u00fcrgen \U0001f600 \u4e2d"
    token = world.first.token(sub=subject)
    answer = world.doors.at_token(token)
    assert world.service.verified(answer.token)["sub"] == f"first|{subject}"
    assert json.loads(unb64(token.split(".")[1]))["sub"] == subject


NO_TIMES = {
    "a text": "4000000000",
    "a date": "2099-01-01T00:00:00Z",
    "yes": True,
    "no": False,
    "null": "null",
    "a list": [4_000_000_000],
    "an object": {"value": 4_000_000_000},
    "beyond 53 bits": 2**53 + 2,
    "beyond 64 bits": 2**64,
    "a huge float": 1e300,
    "minus beyond": -(2**60),
    "empty": "",
}


@pytest.mark.parametrize("value", NO_TIMES.values(), ids=NO_TIMES)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "auth_time"])
def test_a_time_that_is_no_number_of_seconds_is_refused(doors, idp, sign, claim, value):
    """JW-28."""
    value = None if value == "null" else value
    doors.refuse(sign(idp.rsa, HEADER, {**idp.claims(), claim: value}), "malformed")


@pytest.mark.parametrize("value", [0, -1, 1, -0.0, 1e-300, 1_700_000_000.999], ids=repr)
def test_an_end_that_is_over_is_over_however_it_is_written(doors, idp, sign, value):
    """JW-28, JW-29."""
    doors.refuse(sign(idp.rsa, HEADER, {**idp.claims(), "exp": value}), "expired")


def test_a_token_without_exp_iat_or_aud_is_not_let_off_the_check(doors, idp):
    """JW-21, JW-28, lesson 2.13 (GHSA-wxg7-w2v3-w38g ZITADEL: a missing `exp` skipped the check)."""
    doors.refuse(idp.token(exp=None), "malformed")
    doors.refuse(idp.token(aud=None), "audience_mismatch")
    doors.refuse(idp.token(iss=None), "unknown_issuer")


@pytest.mark.parametrize("ahead", [60, 3600, 10**9])
@pytest.mark.parametrize("claim", ["nbf", "iat", "auth_time"])
def test_a_token_of_the_future_is_refused(doors, idp, claim, ahead):
    """JW-29."""
    doors.refuse(idp.token(**{claim: idp.claims()["iat"] + ahead}), "not_yet_valid")


NO_AUDIENCE = {
    "a number": 1,
    "null": "null",
    "yes": True,
    "an object": {"api-gateway": True},
    "a list of numbers": [1],
    "a list in a list": [["api-gateway"]],
    "a list with null": ["api-gateway", None],
    "a list with an object": ["api-gateway", {}],
}
OTHER_AUDIENCE = {
    "empty": "",
    "an empty list": [],
    "another": "api",
    "longer": "api-gateway2",
    "a beginning": "api-gatewa",
    "other letters": "API-Gateway",
    "a slash": "api-gateway/",
    "two in one": "api-gateway other",
    "a pattern": "*",
    "a list of others": ["orders", "billing"],
    "our backend": "orders",
    "ourselves": "https://sts.example.internal",
}


@pytest.mark.parametrize("value", NO_AUDIENCE.values(), ids=NO_AUDIENCE)
def test_an_audience_is_a_text_or_a_list_of_texts(doors, idp, sign, value):
    """JW-21."""
    value = None if value == "null" else value
    doors.refuse(sign(idp.rsa, HEADER, {**idp.claims(), "aud": value}), "malformed")


@pytest.mark.parametrize("value", OTHER_AUDIENCE.values(), ids=OTHER_AUDIENCE)
def test_a_token_for_somebody_else_is_refused(doors, idp, value):
    """JW-21."""
    doors.refuse(idp.token(aud=value), "audience_mismatch")


NO_TEXTS = {"a number": 1, "null": None, "yes": True, "a list": ["alice"], "an object": {"a": 1}, "an empty list": []}


@pytest.mark.parametrize("value", NO_TEXTS.values(), ids=NO_TEXTS)
@pytest.mark.parametrize("claim", ["iss", "sub", "jti"])
def test_a_name_that_is_no_text_is_refused(doors, idp, sign, claim, value):
    doors.refuse(sign(idp.rsa, HEADER, {**idp.claims(), claim: value}), "malformed")


@pytest.mark.parametrize("claim", ["cnf", "act", "may_act"])
@pytest.mark.parametrize("value", ["x", 1, [], True], ids=repr)
def test_a_binding_or_an_actor_that_is_no_object_is_refused(doors, idp, claim, value):
    """Lesson 2.18: a binding that cannot be read is never dropped."""
    doors.refuse(idp.token(**{claim: value}), "malformed")


@pytest.mark.parametrize(
    "confirmation", [{}, {"jkt": "x"}, {"x5t#S256": "x"}, {"unknown": 1}, {"kid": "rsa-1"}], ids=repr
)
def test_a_bound_token_is_no_bearer_token(doors, idp, confirmation):
    """TE-32, lesson 2.18: the binding is never stripped without a word."""
    doors.refuse(idp.token(cnf=confirmation), "binding_failed")


@pytest.mark.parametrize("value", ["", None], ids=["empty", "absent"])
def test_a_token_without_a_subject_maps_to_nobody(doors, idp, value):
    doors.refuse(idp.token(sub=value), "no_mapping")


@pytest.mark.parametrize(
    "claims",
    [{"scope": 1}, {"scope": {"a": 1}}, {"scope": [1]}, {"scope": ["a", None]}, {"roles": {"a": 1}}, {"roles": [[1]]}],
    ids=repr,
)
def test_a_mapped_claim_of_another_type_maps_to_nobody(doors, idp, claims):
    """Lesson 3.8: data stays what it is; nothing is made of a text or an object that a mapping did not expect."""
    doors.refuse(idp.token(**claims), "no_mapping")
