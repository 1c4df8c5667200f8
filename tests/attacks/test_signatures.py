"""What is not exactly the signature of these bytes proves nothing, however close it comes (RFC 7518 §3, RFC 8032)."""

import hashlib

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from harness import b64, unb64

ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
    ),
    "ES512": int(
        "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
        "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
        16,
    ),
}
SIZES = {"ES256": 32, "ES384": 48, "ES512": 66}
EDWARDS_ORDER = 2**252 + 27742317777372353535851937790883648493


def key_of(world, alg):
    return {"RS256": world.first.rsa, "ES256": world.first.ec}.get(alg) or world.more[alg]


def parts(world, alg):
    """What a good token of the first issuer signs, and its signature."""
    signed, _, signature = world.token(alg).rpartition(".")
    return signed, unb64(signature)


def refused(world, signed, signature, name=""):
    try:
        world.doors.refuse(f"{signed}.{b64(signature)}", "bad_signature")
    except AssertionError as error:
        raise AssertionError(name) from error


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "ES512", "Ed25519"])
def test_a_right_signature_passes_and_a_changed_bit_anywhere_does_not(world, alg):
    signed, signature = parts(world, alg)
    world.doors.accept(f"{signed}.{b64(signature)}")
    for place in (0, len(signature) // 2, len(signature) - 1):
        flipped = bytearray(signature)
        flipped[place] ^= 1
        refused(world, signed, bytes(flipped), place)


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "ES512", "Ed25519"])
def test_a_signature_of_another_length_is_refused(world, alg):
    """Lesson 2.14 (CVE-2026-27840: truncated and still valid)."""
    signed, signature = parts(world, alg)
    for name, changed in {
        "truncated": signature[:-1],
        "half": signature[: len(signature) // 2],
        "one byte": signature[:1],
        "a zero before": b"\0" + signature,
        "a zero after": signature + b"\0",
        "twice": signature * 2,
        "all zero": bytes(len(signature)),
        "all ones": b"\xff" * len(signature),
    }.items():
        refused(world, signed, changed, name)


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES384", "ES512", "Ed25519"])
def test_a_signature_of_something_else_is_refused(world, alg):
    """Of another token by the same key, of the claims alone, of the text without its dot, of the other half."""
    signed, signature = parts(world, alg)
    other, _ = world.token(alg, sub="mallory").rsplit(".", 1)
    refused(world, other, signature, "the claims were exchanged")
    key, (header, claims) = key_of(world, alg), signed.split(".")
    for text in (claims, header, header + claims, f"{claims}.{header}", signed + ".", signed.upper(), ""):
        refused(world, signed, _sign(key, text.encode()), text[:9])


def _sign(key, data):
    return jwt.get_algorithm_by_name(key.alg).sign(data, key.private)


def ecdsa(alg, r, s):
    size = SIZES[alg]
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@pytest.mark.parametrize("alg", SIZES)
def test_an_ecdsa_signature_outside_its_range_is_refused(world, alg):
    """JW-35; CVE-2022-21449 ("psychic signatures": r = s = 0) and its neighbours."""
    signed, signature = parts(world, alg)
    size, n = SIZES[alg], ORDERS[alg]
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    most = 2 ** (8 * size) - 1
    for one, other in (
        *((0, 0), (0, s), (r, 0), (n, n), (n, s), (r, n), (0, n), (n, 0), (1, 1), (1, 0), (n - 1, n - 1), (1, n - 1)),
        *(
            (most, most),
            (r, most),
            (s, r),
            (r, r),
            (n - r, s),
            (r ^ 1, s),
            (min(r + n, most), s),
            (r, min(s + n, most)),
        ),
    ):
        refused(world, signed, ecdsa(alg, one, other), (one, other))


@pytest.mark.parametrize("alg", SIZES)
def test_an_ecdsa_signature_in_another_form_is_refused(world, alg):
    """JW-35: DER in all its variants, shortened and lengthened halves."""
    signed, signature = parts(world, alg)
    size = SIZES[alg]
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    der = encode_dss_signature(r, s)
    for name, changed in {
        "DER": der,
        "DER and a byte": der + b"\0",
        "DER cut to the length": der[: 2 * size],
        "DER of zeros": encode_dss_signature(0, 0),
        "DER, negative": b"\x30\x06\x02\x01\xff\x02\x01\xff",
        "r without its first byte": signature[1:],
        "each half one byte longer": b"\0" + signature[:size] + b"\0" + signature[size:],
        "each half padded to P-521": signature[:size].rjust(70, b"\0") + signature[size:].rjust(70, b"\0"),
        "in hexadecimal": signature.hex().encode(),
    }.items():
        refused(world, signed, changed, name)


@pytest.mark.parametrize("alg", SIZES)
def test_the_twin_of_an_ecdsa_signature_says_the_same_and_no_more(world, alg):
    """Whoever has (r, s) can write (r, n - s): another text for the same claims, never for others.

    ECDSA allows it. So nothing here may ever take a token's text for the token: a mark of what was used once goes by
    issuer and `jti`.
    """
    signed, signature = parts(world, alg)
    size = SIZES[alg]
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    twin = world.doors.accept(f"{signed}.{b64(ecdsa(alg, r, ORDERS[alg] - s))}")
    own = world.doors.accept(f"{signed}.{b64(signature)}")
    names = ("sub", "aud", "scope", "client_id", "tenant")
    assert [[one[name] for name in names] for one in twin] == [[one[name] for name in names] for one in own]


def test_an_ecdsa_signature_over_another_hash_is_refused(world):
    """JW-04: the algorithm fixes the hash as well."""
    for alg, wrong in (("ES256", hashes.SHA384()), ("ES384", hashes.SHA256()), ("ES512", hashes.SHA256())):
        signed, _ = parts(world, alg)
        der = key_of(world, alg).private.sign(signed.encode(), ec.ECDSA(wrong))
        refused(world, signed, ecdsa(alg, *decode_dss_signature(der)), alg)


def test_a_key_on_another_curve_cannot_stand_in(world, sign):
    """JW-04: P-256, P-384 and P-521 keys under each other's algorithms."""
    keys = {"ES256": world.first.ec, "ES384": world.more["ES384"], "ES512": world.more["ES512"]}
    for alg, key in keys.items():
        for claimed in keys.keys() - {alg}:
            token = sign(key, {"alg": claimed, "kid": key.kid}, world.first.claims())
            world.doors.refuse(token, "bad_algorithm")
            token = sign(key, {"alg": claimed, "kid": keys[claimed].kid}, world.first.claims())
            world.doors.refuse(token, "bad_signature")


SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
SHA512_PREFIX = bytes.fromhex("3051300d060960864801650304020305000440")
SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")


def raw_rsa(key, encoded):
    """The bare RSA operation on an encoded message, as only the key's owner can do it."""
    private = key.private.private_numbers()
    n = private.public_numbers.n
    return pow(int.from_bytes(encoded, "big"), private.d, n).to_bytes(256, "big")


def pkcs1(info, *, block=b"\1", fill=b"\xff", after=b""):
    length = 256 - 3 - len(info) - len(after)
    return b"\0" + block + (fill * length)[:length] + b"\0" + info + after


def test_an_rsa_signature_with_another_padding_is_refused(world):
    """RFC 8017 §8.2.2: the whole encoded message is compared (Bleichenbacher 2006, CVE-2006-4339 and their kin)."""
    key = world.first.rsa
    signed, _ = parts(world, "RS256")
    info = SHA256_PREFIX + hashlib.sha256(signed.encode()).digest()
    world.doors.accept(f"{signed}.{b64(raw_rsa(key, pkcs1(info)))}")  # the way of making them is right
    without_null = bytes.fromhex("302f300b0609608648016503040201" + "0420") + info[-32:]
    for name, encoded in {
        "block type 2": pkcs1(info, block=b"\2"),
        "block type 0": pkcs1(info, block=b"\0"),
        "filled with zeros": pkcs1(info, fill=b"\0"),
        "filled with anything": pkcs1(info, fill=b"\xaa"),
        "a short padding and something after": pkcs1(info, after=b"\0" * 190),
        "something inside": pkcs1(info[:-32] + b"\0" + info[-32:]),
        "the bare hash": pkcs1(info[-32:]),
        "no NULL": pkcs1(without_null),
        "SHA-512": pkcs1(SHA512_PREFIX + hashlib.sha512(signed.encode()).digest()),
        "SHA-1": pkcs1(SHA1_PREFIX + hashlib.sha1(signed.encode()).digest()),  # noqa: S324 - what must not pass
        "nothing": pkcs1(b""),
        "of SHA-256, but its OID is SHA-512's": pkcs1(SHA512_PREFIX + info[-32:]),
    }.items():
        refused(world, signed, raw_rsa(key, encoded), name)


def test_an_rsa_signature_that_is_a_trivial_number_is_refused(world):
    signed, signature = parts(world, "RS256")
    n = world.first.rsa.private.public_key().public_numbers().n
    value = int.from_bytes(signature, "big")
    for number in (0, 1, 2, n - 1, n, n + 1, n - value, 2**2048 - 1):
        refused(world, signed, number.to_bytes(256, "big"), number)
    refused(world, signed, (value + n).to_bytes(257, "big"), "the same, modulo n")


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 222])
def test_a_pss_signature_has_a_salt_as_long_as_its_hash(world, salt):
    """RFC 7518 §3.5."""
    signed, _ = parts(world, "PS256")
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    refused(world, signed, key_of(world, "PS256").private.sign(signed.encode(), pss, hashes.SHA256()))


def test_a_pss_signature_has_one_hash_throughout(world):
    """RFC 7518 §3.5: SHA-256 for the message and for MGF1."""
    key, (signed, _) = key_of(world, "PS256"), parts(world, "PS256")
    for inner, outer in ((hashes.SHA1(), hashes.SHA256()), (hashes.SHA256(), hashes.SHA512())):  # noqa: S303
        refused(world, signed, key.private.sign(signed.encode(), padding.PSS(padding.MGF1(inner), 32), outer))
    refused(world, signed, key.private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()), "PKCS #1 v1.5")


def test_an_ed25519_signature_has_one_form(world):
    """JW-34, RFC 8032 §5.1.7 and §8.4: S below the order, no small points."""
    signed, signature = parts(world, "Ed25519")
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    identity, order_two = b"\1" + bytes(31), (2**255 - 20).to_bytes(32, "little")
    for name, changed in {
        "S + L": r + (s + EDWARDS_ORDER).to_bytes(32, "little"),
        "S = 0": r + bytes(32),
        "S = L": r + EDWARDS_ORDER.to_bytes(32, "little"),
        "R the identity, S = 0": identity + bytes(32),
        "R of order two": order_two + bytes(32),
        "R with its sign changed": r[:31] + bytes([r[31] ^ 0x80]) + signature[32:],
        "halves exchanged": signature[32:] + r,
    }.items():
        refused(world, signed, changed, name)
