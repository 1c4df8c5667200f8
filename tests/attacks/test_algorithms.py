"""Which algorithm proves a token is for configuration and key to say, never for the token (RFC 8725 §3.1, §3.2)."""

import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import SECRET, Key, b64

HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def with_mac(idp, key, alg="HS256", **header):
    """A token whose "signature" is a MAC under bytes that everybody knows."""
    text = f"{b64({'alg': alg, **header})}.{b64(idp.claims())}"
    return f"{text}.{b64(hmac.digest(key, text.encode(), HASHES[alg]))}"


def test_the_same_tokens_pass_with_their_own_algorithm(doors, idp):
    """What the tests of this module would refuse for any other reason would prove nothing."""
    doors.accept(idp.token())
    doors.accept(idp.token(idp.ec))


NONE = ("none", "None", "NONE", "nOnE", "noNE", "NoNe", "none ", " none", "none\n", "\uff4eone", "", "null")


@pytest.mark.parametrize("signature", ["", "x", "its own"])
@pytest.mark.parametrize("spelling", NONE, ids=repr)
def test_an_unsecured_token_is_refused_however_none_is_spelled(doors, idp, spelling, signature):
    """JW-02, JW-03, lesson 2.20 (rfc8725bis: `noNE`), lesson 3.3 (WSO2 offers NONE)."""
    _head, claims, signed = idp.token().split(".")
    signature = {"": "", "x": "AAAA"}.get(signature, signed)
    doors.refuse(f"{b64({'alg': spelling})}.{claims}.{signature}", "bad_algorithm")
    doors.refuse(f"{b64({'alg': spelling, 'kid': 'rsa-1', 'typ': 'JWT'})}.{claims}.{signature}", "bad_algorithm")


def test_a_signed_token_without_its_signature_is_refused(doors, idp):
    """JW-03, lesson 2.14 (CVE-2026-27840: a truncated token was still valid)."""
    head, claims, _ = idp.token().split(".")
    doors.refuse(f"{head}.{claims}.", "bad_signature")
    doors.refuse(f"{head}.{claims}", "unknown_issuer", as_jwt="malformed")


@pytest.mark.parametrize("alg", ["none\0", "RS256\0", None, 256, True, ["RS256"], {"RS256": 1}, 1.5], ids=repr)
def test_an_alg_that_is_no_plain_text_is_refused(doors, idp, sign, alg):
    doors.refuse(sign(idp.rsa, {"alg": alg, "kid": "rsa-1"}, idp.claims()), "malformed")


def test_a_header_without_alg_is_refused(doors, idp, sign):
    doors.refuse(sign(idp.rsa, {"kid": "rsa-1"}, idp.claims()), "malformed")


@pytest.mark.parametrize(
    "alg", ["rs256", "Rs256", "RS256 ", " RS256", "RS256\n", "RS-256", "RSA256", "SHA256withRSA", "RS256,ES256"]
)
def test_an_algorithm_is_compared_letter_by_letter(doors, idp, sign, alg):
    """JW-02, lesson 2.12 (rfc8725bis §3.1)."""
    doors.refuse(sign(idp.rsa, {"alg": alg, "kid": "rsa-1"}, idp.claims()), "bad_algorithm")


def public_texts(key):
    """All the forms in which a careless verifier may hand a public key to HMAC."""
    public = key.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield from {
        "PEM": pem,
        "PEM without its last line break": pem.rstrip(b"\n"),
        "PEM after white space": b" \n" + pem,  # CVE-2026-34950
        "PEM in one line": pem.replace(b"\n", b""),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": json.dumps(key.jwk).encode(),
        "JWK, compact": json.dumps(key.jwk, separators=(",", ":")).encode(),
        "JWK set": json.dumps({"keys": [key.jwk]}).encode(),
        "kid": key.kid.encode(),
        "modulus or x": key.jwk.get("n", key.jwk.get("x")).encode(),
    }.items()
    if "n" in key.jwk:
        yield "PKCS1", public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)


@pytest.mark.parametrize("alg", HASHES)
@pytest.mark.parametrize("name", ["rsa", "ec"])
def test_a_mac_under_the_providers_public_key_is_refused(doors, idp, name, alg):
    """JW-05, lesson 3.3 (CVE-2026-39999), lesson 2.12 (CVE-2026-34950, CVE-2026-22817)."""
    key = getattr(idp, name)
    for _, text in public_texts(key):
        doors.refuse(with_mac(idp, text, alg, kid=key.kid), "bad_algorithm")


@pytest.mark.parametrize("key", [b"", b"\0", b"secret", SECRET.encode(), b"\0" * 32], ids=repr)
def test_a_mac_under_an_empty_or_known_key_is_refused(doors, idp, key):
    """JW-05, JW-14. No source has a symmetric key at all."""
    for header in ({}, {"kid": "rsa-1"}, {"kid": "../../../../../../dev/null"}):
        doors.refuse(with_mac(idp, key, **header), "bad_algorithm")


def test_the_algorithm_must_fit_the_named_key(doors, idp, sign):
    """JW-04: ES256 under the RSA key's id and the other way round."""
    doors.refuse(sign(idp.ec, {"alg": "ES256", "kid": "rsa-1"}, idp.claims()), "bad_algorithm")
    doors.refuse(sign(idp.rsa, {"alg": "RS256", "kid": "ec-1"}, idp.claims()), "bad_algorithm")
    doors.refuse(sign(idp.rsa, {"alg": "ES256", "kid": "ec-1"}, idp.claims()), "bad_signature")
    doors.refuse(sign(idp.ec, {"alg": "RS256", "kid": "rsa-1"}, idp.claims()), "bad_signature")
    doors.refuse(sign(idp.ec, {"alg": "RS256"}, idp.claims()), "bad_signature")


def test_a_key_signs_with_its_own_padding_only(world, sign):
    """JW-04: the source allows PS256, the key's own `alg` is RS256; and the other way round."""
    rsa, pss = world.first.rsa, Key("rsa-1", "PS256")
    pss.private = rsa.private  # the provider's own key and a right signature: only the algorithm is another
    world.doors.accept(world.first.token(world.more["PS256"]))
    world.doors.refuse(sign(pss, {"alg": "PS256", "kid": "rsa-1"}, world.first.claims()), "bad_algorithm")
    rsa = Key("ps256", "RS256")
    rsa.private = world.more["PS256"].private
    world.doors.refuse(sign(rsa, {"alg": "RS256", "kid": "ps256"}, world.first.claims()), "bad_algorithm")


def test_an_algorithm_that_the_source_does_not_name_is_refused_for_any_key(doors, idp, sign):
    """JW-01: a right PS256 signature of the provider's own key, at a source of RS256 and ES256."""
    pss = Key("rsa-1", "PS256")
    pss.private = idp.rsa.private
    doors.refuse(sign(pss, {"alg": "PS256", "kid": "rsa-1"}, idp.claims()), "bad_algorithm")
    doors.refuse(sign(pss, {"alg": "PS256"}, idp.claims()), "bad_algorithm")


def test_a_key_without_alg_is_bound_by_its_source(own_world, sign):
    """JW-01, lesson 2.12 (CVE-2026-22817: a JWK without `alg`)."""
    for jwk in own_world.second.keys:
        del jwk["alg"]
    world = own_world.start()
    idp, pss = world.second, Key("rsa-1", "PS256")
    pss.private = idp.rsa.private
    world.doors.accept(idp.token())
    world.doors.refuse(sign(pss, {"alg": "PS256", "kid": "rsa-1"}, idp.claims()), "bad_algorithm")
    for _, text in public_texts(idp.rsa):
        world.doors.refuse(with_mac(idp, text, kid="rsa-1"), "bad_algorithm")


OTHERS = (
    *("ES256K", "ES384", "ES512", "RS384", "RS512", "PS384", "Ed25519", "EdDSA", "Ed448", "ML-DSA-65", "RS1", "SHA256"),
    *("RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "dir", "A256KW", "ECDH-ES", "PBES2-HS256+A128KW", "A256GCM"),
)


@pytest.mark.parametrize("alg", OTHERS)
def test_any_other_algorithm_is_refused_at_once(doors, idp, sign, alg):
    """JW-01, JW-13 (RSA1_5), JW-15 (PBES2 with a huge `p2c`, CVE-2026-27932), lesson 3.3."""
    header = {"alg": alg, "kid": "rsa-1", "p2c": 10**9, "p2s": "AAAA"}
    doors.refuse(sign(idp.rsa, header, idp.claims()), "bad_algorithm")
