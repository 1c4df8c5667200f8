import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from jwt.algorithms import OKPAlgorithm

from sts.jose import SUPPORTED, UnfitError, import_jwk, import_jwks, thumbprint
from sts.jose.jwk import MAX_DOCUMENT, MAX_KEYS

EVERYTHING = sorted(SUPPORTED)
# RFC 7638 §3.1
RFC_7638_KEY = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu"
        "6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8a"
        "wapJzKnqDKgw"
    ),
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC_7638_THUMBPRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_the_thumbprint_is_that_of_rfc_7638():
    """JW-33."""
    assert thumbprint(RFC_7638_KEY) == RFC_7638_THUMBPRINT
    assert import_jwk(RFC_7638_KEY, ["RS256"]).thumbprint == RFC_7638_THUMBPRINT


@pytest.mark.parametrize("jwk", [{}, {"kty": "oct", "k": "AA"}, {"kty": ["RSA"]}, {"kty": "RSA", "n": 5, "e": "AQAB"}])
def test_what_is_no_public_key_has_no_thumbprint(jwk):
    with pytest.raises(UnfitError):
        thumbprint(jwk)


def test_one_key_has_one_thumbprint_however_its_numbers_are_padded(jwk_of, private_keys, encode):
    written = jwk_of(private_keys["RSA"])
    padded = {**written, "e": encode(b"\0\x01\0\x01")}
    assert import_jwk(padded, ["RS256"]).thumbprint == import_jwk(written, ["RS256"]).thumbprint == thumbprint(written)


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        ("RSA", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("P-256", {"ES256"}),
        ("P-384", {"ES384"}),
        ("P-521", {"ES512"}),
        ("Ed25519", {"Ed25519", "EdDSA"}),
    ],
)
def test_a_key_may_verify_what_fits_its_type_and_curve(key, algorithms, jwk_of, private_keys):
    """JW-04, JW-34."""
    assert import_jwk(jwk_of(private_keys[key]), EVERYTHING).algorithms == algorithms


def test_the_configured_list_and_the_keys_own_alg_narrow_it(jwk_of, private_keys):
    """JW-04."""
    assert import_jwk(jwk_of(private_keys["RSA"]), ["RS256", "ES256"]).algorithms == {"RS256"}
    assert import_jwk(jwk_of(private_keys["RSA"], alg="PS256"), EVERYTHING).algorithms == {"PS256"}
    assert import_jwk(jwk_of(private_keys["Ed25519"], alg="EdDSA"), EVERYTHING).algorithms == {"EdDSA"}


def test_what_a_key_is_for_is_honoured(jwk_of, private_keys):
    """JW-04."""
    key = private_keys["RSA"]
    assert import_jwk(jwk_of(key, use="sig", key_ops=["verify"], kid="one", x5t="AAAA", unknown={}), ["RS256"])


def off_the_curve(jwk):
    return {**jwk, "y": jwk["x"]}


@pytest.mark.parametrize(
    "odd",
    [
        {"use": "enc"},
        {"use": "tls"},
        {"use": None},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"key_ops": []},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"alg": "none"},
        {"alg": ["RS256"]},
        {"alg": None},
        {"kid": 5},
        {"kid": ""},
        {"kid": "k" * 257},
        {"kid": "line\nbreak"},
        {"d": "AQAB"},
        {"k": "AQAB"},
        {"oth": []},
        {"kty": "oct", "k": "AQAB"},
        {"kty": "AKP"},
        {"kty": "EC"},
        {"kty": None},
        {"kty": ["RSA"]},
        {"n": None},
        {"n": 5},
        {"n": "===="},
        {"n": ""},
        {"e": "AQ"},
        {"e": "AA"},
        {"e": "Ag"},
        {"e": "_" * 10 + "8"},
    ],
    ids=str,
)
def test_a_key_that_cannot_or_must_not_be_used_is_left_out(odd, jwk_of, private_keys):
    """JW-04, JW-05."""
    with pytest.raises(UnfitError):
        import_jwk(jwk_of(private_keys["RSA"]) | odd, EVERYTHING)


@pytest.mark.parametrize("bits", [1024, 2040])
def test_a_short_rsa_key_is_left_out_without_a_warning(bits, jwk_of):
    """JW-14."""
    with pytest.raises(UnfitError, match=f"{bits} bits"):
        import_jwk(jwk_of(rsa.generate_private_key(65537, bits)), EVERYTHING)


def test_a_giant_rsa_key_is_left_out(encode):
    with pytest.raises(UnfitError, match="16384 bits"):
        import_jwk({"kty": "RSA", "n": encode(b"\xff" * 2048), "e": "AQAB"}, EVERYTHING)


def test_keys_on_other_curves_or_off_their_own_are_left_out(jwk_of, private_keys, encode):
    """JK-07."""
    off = jwk_of(private_keys["P-256"])
    others = [
        jwk_of(ec.generate_private_key(ec.SECP256K1())),
        json.loads(OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key())),
        {
            "kty": "OKP",
            "crv": "X25519",
            "x": encode(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()),
        },
        {**off, "crv": "P-384"},
        {**off, "crv": "brainpoolP256r1"},
        {**off, "y": off["x"]},
        {**off, "x": "", "y": ""},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
    ]
    for jwk in others:
        with pytest.raises(UnfitError):
            import_jwk(jwk, EVERYTHING)


def test_an_odd_key_does_not_take_the_others_away(jwk_of, private_keys):
    """JK-07."""
    good = jwk_of(private_keys["P-256"], kid="good")
    odd = [5, None, [], {}, {"kty": "EC", "crv": "P-9"}, off_the_curve(good), jwk_of(private_keys["RSA"], use="enc")]
    found = import_jwks(json.dumps({"keys": [*odd, good]}).encode(), EVERYTHING)
    assert [key.kid for key in found.keys] == ["good"]
    assert len(found.skipped) == len(odd)
    assert found.skipped[6] == "key 7: its use is not sig"


def test_two_keys_with_one_kid_are_both_kept_and_a_repeated_key_once(jwk_of, private_keys):
    one, two = jwk_of(private_keys["RSA"], kid="same"), jwk_of(private_keys["P-256"], kid="same")
    assert len(import_jwks({"keys": [one, two, one]}, EVERYTHING).keys) == 2


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'"keys"',
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        json.dumps({"keys": [RFC_7638_KEY]}).encode().ljust(MAX_DOCUMENT + 1),
        json.dumps({"keys": [RFC_7638_KEY] * (MAX_KEYS + 1)}).encode(),
    ],
    ids=lambda document: document[:40].decode(),
)
def test_a_document_that_is_no_set_of_usable_keys_is_unfit(document):
    with pytest.raises(UnfitError) as caught:
        import_jwks(document, EVERYTHING)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_key_does_not_show_itself():
    assert "AQAB" not in repr(import_jwk(RFC_7638_KEY, ["RS256"]))
