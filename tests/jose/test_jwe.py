import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from recipient import ALGORITHMS, Pair, jwks

from sts.jose import UnfitError, encrypt, import_encryption_jwk, import_encryption_jwks
from sts.jose.jwe import _REGISTRIES
from sts.jose.jwk import MAX_KEYS

FITTING = [
    ("ECDH-ES", "P-256"),
    ("ECDH-ES", "X25519"),
    ("ECDH-ES+A256KW", "P-256"),
    ("ECDH-ES+A256KW", "X25519"),
    ("RSA-OAEP-256", "RSA"),
]
INNER = "aGVhZA.cGF5bG9hZA.c2lnbmF0dXJl"


@pytest.fixture(scope="module")
def pairs():
    return {kind: Pair(kind) for kind in ("P-256", "X25519", "RSA")}


@pytest.mark.parametrize(("algorithm", "kind"), FITTING)
def test_what_is_encrypted_an_independent_library_decrypts(algorithm, kind, pairs):
    """JW-13, JK-06."""
    key = import_encryption_jwk(pairs[kind].jwk, algorithm)
    header, inner = pairs[kind].decrypt(encrypt(INNER, key), [algorithm])
    assert inner == INNER
    assert header.pop("epk", None) is not None or algorithm == "RSA-OAEP-256"
    assert header == {"alg": algorithm, "enc": "A256GCM", "kid": pairs[kind].kid, "cty": "JWT"}


def test_each_token_has_a_content_key_an_iv_and_an_ephemeral_key_of_its_own(pairs):
    key = import_encryption_jwk(pairs["P-256"].jwk, "ECDH-ES+A256KW")
    first, second = encrypt(INNER, key).split("."), encrypt(INNER, key).split(".")
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_nobody_else_can_decrypt_it(pairs):
    token = encrypt(INNER, import_encryption_jwk(pairs["P-256"].jwk, "ECDH-ES"))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever authlib raises
        Pair("P-256").decrypt(token)


def test_it_has_five_parts_and_is_never_compressed(pairs):
    """JW-16, JW-39."""
    key = import_encryption_jwk(pairs["X25519"].jwk, "ECDH-ES")
    token = encrypt("x" * 3000, key)
    head, _, _, ciphertext, _ = token.split(".")
    assert len(ciphertext) == 4000
    assert "zip" not in json.loads(base64.urlsafe_b64decode(head + "=="))


@pytest.mark.parametrize(
    "weak", ["RSA1_5", "RSA-OAEP", "dir", "A256KW", "PBES2-HS256+A128KW", "ECDH-ES+A128KW", "none"]
)
def test_no_other_algorithm_can_be_named(weak, pairs):
    """JW-13, JW-15."""
    assert weak not in _REGISTRIES
    for kind in pairs:
        with pytest.raises((UnfitError, KeyError)):
            import_encryption_jwk(pairs[kind].jwk, weak)


@pytest.mark.parametrize(("algorithm", "kind"), [(a, k) for a in ALGORITHMS for k in ("P-256", "X25519", "RSA")])
def test_the_algorithm_fits_the_key_or_the_key_is_refused(algorithm, kind, pairs):
    """JW-04."""
    if (algorithm, kind) in FITTING:
        assert import_encryption_jwk(pairs[kind].jwk, algorithm).kid == pairs[kind].kid
    else:
        with pytest.raises(UnfitError, match="does not fit"):
            import_encryption_jwk(pairs[kind].jwk, algorithm)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"use": "sig"}, "use is not enc"),
        ({"use": None}, "use is not enc"),
        ({"use": ["enc"]}, "use is not enc"),
        ({"key_ops": ["verify"]}, "key_ops"),
        ({"key_ops": "deriveKey"}, "key_ops"),
        ({"key_ops": [["deriveKey"]]}, "key_ops"),
        ({"alg": "ECDH-ES"}, "alg is not"),
        ({"alg": "ES256"}, "alg is not"),
        ({"kid": ""}, "kid"),
        ({"kid": 7}, "kid"),
        ({"kid": "a\nb"}, "kid"),
        ({"d": "AA"}, "private"),
        ({"x": "AA"}, "cannot be read"),
        ({"crv": "P-384"}, "cannot be read"),
        ({"crv": "secp256k1"}, "cannot be read|does not fit"),
        ({"kty": "oct", "k": "AA"}, "kty"),
    ],
)
def test_a_key_that_is_not_for_this_is_refused(members, why, pairs):
    """JK-06, LIB-J06, LIB-J07."""
    with pytest.raises(UnfitError, match=why):
        import_encryption_jwk({**pairs["P-256"].jwk, **members}, "ECDH-ES+A256KW")


def test_a_key_without_kid_is_refused_since_the_backend_could_not_find_its_private_half(pairs):
    jwk = {name: value for name, value in pairs["P-256"].jwk.items() if name != "kid"}
    with pytest.raises(UnfitError, match="no kid"):
        import_encryption_jwk(jwk, "ECDH-ES")


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("P-256", {"use": "enc", "alg": "ECDH-ES"}),
        ("P-256", {"key_ops": []}),
        ("X25519", {"key_ops": ["deriveBits", "deriveKey"]}),
        ("RSA", {"key_ops": ["wrapKey"]}),
        ("RSA", {"key_ops": ["encrypt"], "alg": "RSA-OAEP-256", "unknown": 1}),
    ],
)
def test_a_key_that_says_so_itself_is_taken(kind, members, pairs):
    algorithm = "RSA-OAEP-256" if kind == "RSA" else "ECDH-ES"
    assert import_encryption_jwk({**pairs[kind].jwk, **members}, algorithm).algorithm == algorithm


def test_an_absent_use_is_as_good_as_enc(pairs):
    jwk = {name: value for name, value in pairs["P-256"].jwk.items() if name != "use"}
    assert import_encryption_jwk(jwk, "ECDH-ES").kid == pairs["P-256"].kid


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_low_order_is_refused_at_import_and_not_at_the_first_token(point):
    """JW-12."""
    x = base64.urlsafe_b64encode(point).rstrip(b"=").decode()
    jwk = {"kty": "OKP", "crv": "X25519", "x": x, "kid": "low", "use": "enc"}
    with pytest.raises(UnfitError, match="it cannot be used for encryption"):
        import_encryption_jwk(jwk, "ECDH-ES")


def test_a_short_rsa_key_is_refused(jwk_of):
    """LIB-J07."""
    jwk = jwk_of(rsa.generate_private_key(65537, 1024), kid="short", use="enc")  # noqa: S505 - that is the point
    with pytest.raises(UnfitError, match="1024 bits"):
        import_encryption_jwk(jwk, "RSA-OAEP-256")


def test_the_usable_keys_of_a_set_keep_its_order_and_an_odd_one_takes_none_away(pairs):
    new, old = Pair("P-256"), pairs["P-256"]
    signing = {**Pair("P-256").jwk, "use": "sig"}
    keys = import_encryption_jwks({"keys": [{"kty": "AKP"}, signing, new.jwk, 5, old.jwk]}, "ECDH-ES")
    assert [key.kid for key in keys.keys] == [new.kid, old.kid]
    assert len(keys.skipped) == 3
    assert keys.holds(keys.keys[1].thumbprint)
    assert not keys.holds(import_encryption_jwk(Pair("P-256").jwk, "ECDH-ES").thumbprint)


def test_of_two_keys_with_one_kid_the_first_counts():
    first, second = Pair("P-256", kid="same"), Pair("P-256", kid="same")
    keys = import_encryption_jwks(jwks(first, second, first), "ECDH-ES")
    assert [key.thumbprint for key in keys.keys] == [import_encryption_jwk(first.jwk, "ECDH-ES").thumbprint]
    assert keys.skipped == ("key 2: its kid is also an earlier key's",)


@pytest.mark.parametrize("document", [b"", b"[]", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [{"kty": "RSA"}]}'])
def test_a_document_without_a_usable_key_is_refused(document):
    with pytest.raises(UnfitError):
        import_encryption_jwks(document, "ECDH-ES")


def test_a_set_of_too_many_keys_is_refused(pairs):
    with pytest.raises(UnfitError, match="too many"):
        import_encryption_jwks({"keys": [pairs["P-256"].jwk] * (MAX_KEYS + 1)}, "ECDH-ES")
