import dataclasses
import json

import joserfc.jwt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import import_key
from joserfc.jws import JWSRegistry
from jwt.algorithms import OKPAlgorithm

from keys.algorithms import ALGORITHMS
from keys.errors import KeyUnfit, SelfTestFailed
from keys.jwks import public_jwk
from keys.record import KeyRecord
from keys.signer import generate, pair_of, self_test, signer_of

SLOW = {"RS256", "PS256"}
PAIRS = {name: generate(name) for name in SLOW}
kinds = {"ES256": "EC", "ES384": "EC", "RS256": "RSA", "PS256": "RSA", "Ed25519": "OKP"}


def record_of(pair):
    return KeyRecord(
        kid=pair.kid,
        algorithm=pair.algorithm,
        public=pair.public,
        private=pair.private,
        published_at=0.0,
        ready_at=0.0,
        active_at=0.0,
    )


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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_verified_by_two_other_libraries(algorithm):
    """AT-02, JW-34, JW-35. PyJWT knows Ed25519 as EdDSA only (RFC 8037), and has to be told its own name (RFC 9864)."""
    key = record_of(generate(algorithm))
    token = token_by(signer_of(key), json.dumps({"alg": algorithm}).encode())
    public = public_jwk(key)
    jws = jwt.PyJWS()
    if algorithm == "Ed25519":
        jws.register_algorithm(algorithm, OKPAlgorithm())
    other = jwt.PyJWK(public, "EdDSA" if algorithm == "Ed25519" else algorithm).key
    assert json.loads(jws.decode(token, other, algorithms=[algorithm])) == {"sub": "somebody"}
    found = joserfc.jwt.decode(token, import_key(public), registry=JWSRegistry(algorithms=[algorithm]))
    assert found.claims == {"sub": "somebody"}
    changed = token[:-8] + ("AAAAAAAA" if not token.endswith("AAAAAAAA") else "BBBBBBBB")
    with pytest.raises(jwt.InvalidTokenError):
        jws.decode(changed, other, algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_public_half_has_the_members_and_the_name_that_another_library_computes(algorithm):
    """JK-02, JW-33."""
    pair = generate(algorithm)
    other = import_key(dict(pair.public))
    assert other.thumbprint() == pair.kid
    assert set(public_jwk(record_of(pair))) == {*pair.public, "kid", "use", "alg"}
    assert set(pair.public) <= {"kty", "crv", "x", "y", "n", "e"}
    assert pair.kid[0].isalnum()  # so that no command takes it for an option


def test_an_rsa_key_has_2048_bits_or_more():
    assert import_key(dict(generate("RS256").public)).public_key.key_size == 2048
    with pytest.raises(KeyUnfit, match="2048 bits"):
        pair_of(rsa.generate_private_key(65537, 1024), "RS256")  # noqa: S505 - that is the point


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_another_kind_does_not_sign(algorithm):
    for other in ALGORITHMS:
        pair = generate(other) if other not in SLOW else PAIRS[other]
        if import_key(dict(pair.public)).key_type != kinds[algorithm] or {other, algorithm} == {"ES256", "ES384"}:
            with pytest.raises(SelfTestFailed, match="does not fit"):
                signer_of(dataclasses.replace(record_of(pair), algorithm=algorithm))


def test_a_signer_does_not_show_its_key(ring):
    assert "EllipticCurve" not in repr(signer_of(ring.keys[0]))
    assert "private" not in repr(generate("ES256"))


def test_an_algorithm_that_is_not_built_has_no_keys():
    for algorithm in ("HS256", "none", "es256", "EdDSA", "ES512", ""):
        with pytest.raises(ValueError, match="no keys"):
            generate(algorithm)


def test_a_private_half_of_another_key_fails(ring):
    """RO-07."""
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
    with pytest.raises(SelfTestFailed, match="does not fit"):
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
    monkeypatch.setattr("keys.signer.LocalSigner.sign", lambda _self, _signing_input: bytes(64))
    with pytest.raises(SelfTestFailed, match="does not sign"):
        signer_of(ring.keys[0])
    with pytest.raises(SelfTestFailed, match="does not sign"):
        generate("ES256")


def test_the_self_test_verifies_with_the_published_half(ring):
    """RO-07."""
    first, second = ring.keys
    with pytest.raises(SelfTestFailed, match="does not sign"):
        self_test(signer_of(first), second.public)
