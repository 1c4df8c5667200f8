"""A token's header is hostile input: it names no key, no address and no meaning (RFC 8725 §3.10, §3.11)."""

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from harness import b64

ADDRESSES = (
    "{trap}/jwks.json",
    "{trap}@idp.example.com/jwks.json",
    "https://idp.example.com@{host}/jwks.json",
    "http://169.254.169.254/latest/meta-data/",
    "file:///etc/passwd",
    "//{host}/jwks.json",
)


def own_chain(key):
    """A certificate that the holder of `key` made for itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp.example.com")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key.private, hashes.SHA256())
    )
    return [base64.b64encode(made.public_bytes(Encoding.DER)).decode()]


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
@pytest.mark.parametrize("kid", ["the provider's", "the thief's", "none"])
def test_a_key_inside_the_token_proves_nothing(doors, idp, thief, sign, alg, kid):
    """JW-22, lesson 3.3: `jwk` and `x5c`, with a right signature by that very key."""
    key = thief[alg]
    named = {"the provider's": {"kid": key.kid}, "the thief's": {"kid": "thief-1"}, "none": {}}[kid]
    reason = "unknown_key" if kid == "the thief's" else "bad_signature"
    jwk = {**key.jwk, **named}
    for header in ({"jwk": jwk}, {"x5c": own_chain(key)}, {"jwk": jwk, "x5c": own_chain(key)}):
        doors.refuse(sign(key, {"alg": alg, **named, **header}, idp.claims()), reason)


@pytest.mark.parametrize("parameter", ["jku", "x5u"])
def test_an_address_inside_the_token_is_never_visited(doors, idp, thief, sign, trap, parameter):
    """JW-22, JW-23, lesson 2.8."""
    for address in ADDRESSES:
        named = address.format(trap=trap.url, host=trap.url.removeprefix("http://"))
        for kid, reason in (("rsa-1", "bad_signature"), ("thief-1", "unknown_key")):
            doors.refuse(sign(thief["RS256"], {"alg": "RS256", "kid": kid, parameter: named}, idp.claims()), reason)
    assert trap.connections == 0


def test_what_a_good_token_says_of_keys_and_addresses_is_ignored(doors, idp, thief, trap):
    """JW-22, JW-31: the provider's own key proves it, whatever else stands in the header."""
    header = {"jku": f"{trap.url}/jwks.json", "x5u": f"{trap.url}/x", "jwk": thief["RS256"].jwk, "x5t": "AAAA"}
    doors.accept(idp.token(header={**header, "nonce": "abc", "x-unknown": {"a": [1]}}))
    assert trap.connections == 0


KIDS = {
    "a path": "../../../../../../dev/null",
    "an absolute path": "/dev/null",
    "a path to our own keys": "var/keyring.json",
    "a Windows path": "..\\..\\windows\\win.ini",
    "SQL": "x' UNION SELECT 'AAAA';--",
    "SQL that is always true": "rsa-1' OR '1'='1",
    "a command": "rsa-1;id|$(id)`id`",
    "a format": "%s%n{0}${jndi:ldap://x}{{7*7}}",
    "the metadata service": "http://169.254.169.254/latest/meta-data/",
    "other letters": "RSA-1",
    "a space before": " rsa-1",
    "a space after": "rsa-1 ",
    "a beginning": "rsa",
    "a pattern": "*",
    "an escape": "rsa%2D1",
    "a prototype": "__proto__",
    "a number as text": "0",
    "the longest": "k" * 256,
}
BROKEN_KIDS = {
    "NUL": "rsa-1\0",
    "NUL and a path": "\0../../x",
    "a line break": "rsa-1\nrsa-1",
    "an escape character": "\x1b[31mrsa-1",
    "an invisible space": "rsa-1\u200b",
    "a wide letter": "\uff52sa-1",
    "a letter with an accent": "rs\u00e1-1",
    "too long": "k" * 257,
    "empty": "",
    "null": None,
    "a number": 1,
    "a yes": True,
    "a list": ["rsa-1"],
    "an object": {"kid": "rsa-1"},
}


@pytest.mark.parametrize("kid", KIDS.values(), ids=KIDS)
def test_a_kid_is_only_ever_compared(doors, idp, sign, kid):
    """JW-22: even a good signature needs the right name."""
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": kid}, idp.claims()), "unknown_key")


@pytest.mark.parametrize("kid", BROKEN_KIDS.values(), ids=BROKEN_KIDS)
def test_a_kid_that_is_no_short_plain_text_is_refused(doors, idp, sign, kid):
    """JW-22."""
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": kid}, idp.claims()), "malformed")


def test_a_kid_of_ten_thousand_characters_is_refused(doors, idp, sign):
    """JW-22."""
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": "k" * 10_000}, idp.claims()), "too_large")


def test_a_kid_that_is_an_address_is_not_visited(doors, idp, sign, trap):
    """JW-22."""
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": trap.url}, idp.claims()), "unknown_key")
    assert trap.connections == 0


CRITICAL = {
    "empty": [],
    "a claim": ["exp"],
    "a parameter of the base": ["alg"],
    "b64": ["b64"],
    "twice": ["exp", "exp"],
    "unknown": ["urn:example:x"],
    "not there": ["missing"],
    "a text": "exp",
    "a number": 5,
    "null": None,
    "a list of numbers": [1],
    "a list in a list": [["exp"]],
    "an object": {"exp": True},
}


@pytest.mark.parametrize("critical", CRITICAL.values(), ids=CRITICAL)
def test_crit_is_always_fatal(doors, idp, sign, critical):
    """JW-26, lesson 3.3: no extension is understood here, so none may be critical."""
    header = {"alg": "RS256", "kid": "rsa-1", "crit": critical, "exp": 4_000_000_000, "urn:example:x": 1}
    doors.refuse(sign(idp.rsa, header, idp.claims()), "malformed")


@pytest.mark.parametrize("value", [False, True, None, "false", 0], ids=repr)
@pytest.mark.parametrize("crit", [True, False], ids=["critical", "not critical"])
def test_b64_is_refused_with_any_value(doors, idp, sign, value, crit):
    """JW-27: an unencoded payload would be signed as another text than is read."""
    header = {"alg": "RS256", "kid": "rsa-1", "b64": value, **({"crit": ["b64"]} if crit else {})}
    doors.refuse(sign(idp.rsa, header, idp.claims()), "malformed")


@pytest.mark.parametrize("cty", ["JWT", "jwt", "Jwt", "application/jwt", "APPLICATION/JWT"])
def test_a_token_that_says_it_holds_a_token_is_refused(doors, idp, cty):
    """JW-10: with claims inside, and with a whole token inside."""
    doors.refuse(idp.token(header={"cty": cty}), "bad_type")
    inner = idp.token()
    header = b64({"alg": "RS256", "kid": "rsa-1", "cty": cty})
    doors.refuse(idp.rsa.sign_raw(header, b64(inner.encode())), "bad_type")


def test_a_token_inside_a_token_is_refused_though_it_does_not_say_so(doors, idp):
    """JW-10."""
    doors.refuse(idp.rsa.sign_raw(b64({"alg": "RS256", "kid": "rsa-1"}), b64(idp.token().encode())), "malformed")


FOREIGN_TYPES = (
    *("logout+jwt", "secevent+jwt", "txntoken+jwt", "dpop+jwt", "token-introspection+jwt", "vc+jwt", "kb+jwt"),
    *("oauth-authz-req+jwt", "entity-statement+jwt", "application/secevent+jwt", "JOSE", "JWE", "JOSE+JSON"),
    *("", " JWT", "JWT ", "application/application/jwt", "text/jwt", "at+jwt, JWT", "\uff41t+jwt", "at+jwt;x=1"),
)


@pytest.mark.parametrize("typ", FOREIGN_TYPES, ids=repr)
def test_a_token_of_another_explicit_type_is_refused(doors, idp, typ):
    """IN-14, JW-24, AT-08, DP-02: what was made for something else is no credential here."""
    doors.refuse(idp.token(header={"typ": typ}), "bad_type")


@pytest.mark.parametrize("typ", [["JWT"], 1, True, {"typ": "JWT"}], ids=repr)
@pytest.mark.parametrize("parameter", ["typ", "cty"])
def test_a_typ_or_cty_that_is_no_text_is_refused(doors, idp, parameter, typ):
    doors.refuse(idp.token(header={parameter: typ}), "malformed")


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"])
def test_the_types_of_access_tokens_pass_in_every_spelling(doors, idp, typ):
    """JW-25, AT-08."""
    doors.accept(idp.token(header={"typ": typ}))


@pytest.mark.parametrize("claims", [{"nonce": "n"}, {"at_hash": "h"}, {"c_hash": "h"}, {"typ": "ID"}], ids=repr)
def test_an_id_token_is_none_of_the_declared_types(doors, idp, claims):
    """TE-11, RFC 8725 §3.12: by its content, whatever it is declared as."""
    token = idp.token(**claims)
    doors.refuse(token, "bad_type")
    doors.refused(doors.at_token(token, "urn:ietf:params:oauth:token-type:id_token"), "bad_type", token)


@pytest.mark.parametrize(
    "event", ["http://schemas.openid.net/event/backchannel-logout", "https://schemas.openid.net/secevent/x"]
)
def test_a_logout_token_or_security_event_is_no_credential(doors, idp, event):
    """RFC 8725 §2.8, RFC 8417 §2.2: typed as a plain JWT, known by its `events`."""
    doors.refuse(idp.token(events={event: {}}, sid="s"), "bad_type")


@pytest.mark.parametrize(("parameter", "value"), [("zip", "DEF"), ("zip", ""), ("enc", "A256GCM"), ("enc", None)])
def test_what_belongs_to_encryption_is_refused_in_a_signed_token(doors, idp, sign, parameter, value):
    """JW-16, JW-07, lesson 2.20: `zip` above all."""
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": "rsa-1", parameter: value}, idp.claims()), "bad_type")
