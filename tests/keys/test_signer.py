import dataclasses

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keys.errors import SelfTestFailed
from keys.jwks import public_jwk
from keys.signer import generate, self_test, signer_of


def token_by(signer, header=b'{"alg":"ES256"}'):
    encode = jwt.utils.base64url_encode
    signing_input = encode(header) + b"." + encode(b'{"sub":"somebody"}')
    return (signing_input + b"." + encode(signer.sign(signing_input))).decode()


def test_what_a_signer_signs_is_verified_by_another_library(ring):
    key = ring.keys[0]
    public = jwt.PyJWK(public_jwk(key)).key
    for _ in range(20):  # R and S have leading zeros now and then
        assert jwt.decode(token_by(signer_of(key)), public, algorithms=["ES256"]) == {"sub": "somebody"}


def test_a_signature_is_r_and_s_of_fixed_length(ring):
    """JW-35."""
    signer = signer_of(ring.keys[0])
    assert {len(signer.sign(bytes([number]))) for number in range(200)} == {64}
    assert (signer.kid, signer.algorithm) == (ring.keys[0].kid, "ES256")


def test_a_signer_does_not_show_its_key(ring):
    assert "EllipticCurve" not in repr(signer_of(ring.keys[0]))
    assert "private" not in repr(generate("ES256"))


def test_an_algorithm_that_is_not_built_has_no_keys():
    for algorithm in ("HS256", "none", "es256", "ES384"):
        with pytest.raises(ValueError, match="no keys"):
            generate(algorithm)


def test_a_private_half_of_another_key_fails(ring):
    first, second = ring.keys
    with pytest.raises(SelfTestFailed, match="do not belong together"):
        signer_of(dataclasses.replace(first, private=second.private))


def test_a_name_of_another_key_fails(ring):
    first, second = ring.keys
    with pytest.raises(SelfTestFailed, match="do not belong together"):
        signer_of(dataclasses.replace(first, kid=second.kid))


@pytest.mark.parametrize("private", [b"", b"\x30\x00", b"-----BEGIN"])
def test_a_private_half_that_is_none_fails(ring, private):
    with pytest.raises(SelfTestFailed, match="cannot be read"):
        signer_of(dataclasses.replace(ring.keys[0], private=private))


def test_a_key_on_another_curve_fails(ring):
    key = ec.generate_private_key(ec.SECP384R1())
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SelfTestFailed, match="P-256"):
        signer_of(dataclasses.replace(ring.keys[0], private=der))


def test_another_algorithm_than_the_key_has_fails(ring):
    with pytest.raises(SelfTestFailed, match="another kind"):
        signer_of(dataclasses.replace(ring.keys[0], algorithm="ES384"))


@pytest.mark.parametrize("broken", [bytes(64), b"\x01" * 64, b""], ids=["zero", "constant", "empty"])
def test_a_signer_that_signs_wrongly_fails_its_self_test(ring, broken):
    class Broken:
        kid, algorithm = ring.keys[0].kid, "ES256"

        def sign(self, _signing_input):
            return broken

    with pytest.raises(SelfTestFailed, match="does not sign"):
        self_test(Broken(), ring.keys[0].public)


def test_no_signer_is_handed_out_before_it_has_passed_its_self_test(ring, monkeypatch):
    monkeypatch.setattr("keys.signer.Es256Signer.sign", lambda _self, _signing_input: bytes(64))
    with pytest.raises(SelfTestFailed, match="does not sign"):
        signer_of(ring.keys[0])
    with pytest.raises(SelfTestFailed, match="does not sign"):
        generate("ES256")


def test_the_self_test_verifies_with_the_published_half(ring):
    first, second = ring.keys
    with pytest.raises(SelfTestFailed, match="does not sign"):
        self_test(signer_of(first), second.public)
