"""OCSP answers: what the library does not verify (XC-10, LIB-C07)."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from pki import DAY, Authority, at

from sts.x509.ocsp import LIFE, MAX_LIFE, UnfitAnswerError, judge, question, responder
from sts.x509.revocation import REVOKED, Good

NOW = 1_000_000.0
SIGNING = [ExtendedKeyUsageOID.OCSP_SIGNING]
NOCHECK = [(x509.OCSPNoCheck(), False)]


@pytest.fixture(scope="module")
def leaf(partner_ca):
    return partner_ca.issue()


def says(answer, leaf, issuer, now=NOW):
    return judge(answer, leaf.certificate, issuer.certificate, now)


def delegate(ca, purposes=SIGNING, extra=NOCHECK, **more):
    return ca.issue("Responder", uris=(), purposes=purposes, extra=extra, **more)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_issuers_own_answer_is_believed(partner_ca, leaf, by_name):
    assert says(partner_ca.ocsp(leaf, by_name=by_name), leaf, partner_ca) == Good(NOW + 3600)
    assert says(partner_ca.ocsp(leaf, "revoked", by_name=by_name), leaf, partner_ca) is REVOKED


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), None], ids=["RSA", "P-256"])
def test_a_ca_of_either_kind_of_key_is_understood(key):
    ca = Authority(key=key)
    leaf = ca.issue()
    assert isinstance(says(ca.ocsp(leaf), leaf, ca), Good)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_delegate_of_the_issuer_is_believed(partner_ca, leaf, by_name):
    signer = delegate(partner_ca)
    assert isinstance(
        says(partner_ca.ocsp(leaf, signer=signer, send=[signer], by_name=by_name), leaf, partner_ca), Good
    )


def test_a_delegate_with_an_ed25519_key_is_understood(partner_ca, leaf):
    signer = delegate(partner_ca, key=ed25519.Ed25519PrivateKey.generate())
    answer = ocsp.OCSPResponseBuilder().add_response(
        leaf.certificate, partner_ca.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD,  # noqa: S303
        at(NOW - 5), at(NOW + 5), None, None,
    )  # fmt: skip
    answer = answer.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate).certificates([signer.certificate])
    assert isinstance(says(answer.sign(signer.key, None).public_bytes(Encoding.DER), leaf, partner_ca), Good)


def hostile(partner_ca, leaf):
    """Name, answer."""
    other = Authority()
    no_signer = delegate(partner_ca, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    foreign = delegate(other)
    expired = delegate(partner_ca, life=(-DAY, -5))
    checked = delegate(partner_ca, extra=())
    absent = delegate(partner_ca)
    same_name = Authority()  # named like the partner's CA
    good = partner_ca.ocsp(leaf)
    return {
        "unknown": partner_ca.ocsp(leaf, "unknown"),
        "of another certificate": partner_ca.ocsp(partner_ca.issue()),
        "of another issuer": partner_ca.ocsp(leaf, issuer=other),
        "signed by another CA": partner_ca.ocsp(leaf, signer=same_name, by_name=True),
        "signed by another CA that came along": partner_ca.ocsp(leaf, signer=same_name, by_name=True, send=[same_name]),
        "signed by a leaf": partner_ca.ocsp(leaf, signer=leaf, send=[leaf]),
        "signed by a delegate without OCSPSigning": partner_ca.ocsp(leaf, signer=no_signer, send=[no_signer]),
        "signed by another CA's delegate": partner_ca.ocsp(leaf, signer=foreign, send=[foreign]),
        "signed by an expired delegate": partner_ca.ocsp(leaf, signer=expired, send=[expired]),
        "signed by a delegate that may be revoked": partner_ca.ocsp(leaf, signer=checked, send=[checked]),
        "signed by a delegate that did not come along": partner_ca.ocsp(leaf, signer=absent),
        "stale": partner_ca.ocsp(leaf, life=(-3600, -1)),
        "from the future": partner_ca.ocsp(leaf, life=(120, 3600)),
        "tampered": good[:-1] + bytes([good[-1] ^ 1]),
        "unsuccessful": b"\x30\x03\x0a\x01\x03",
        "empty": b"",
        "cut off": good[:-2],
    }


NAMES = [
    *("unknown", "of another certificate", "of another issuer", "signed by another CA"),
    *("signed by another CA that came along", "signed by a leaf", "signed by a delegate without OCSPSigning"),
    *("signed by another CA's delegate", "signed by an expired delegate", "signed by a delegate that may be revoked"),
    *("signed by a delegate that did not come along", "stale", "from the future", "tampered", "unsuccessful"),
    *("empty", "cut off"),
]


@pytest.fixture(scope="module")
def hostile_answers(partner_ca, leaf):
    return hostile(partner_ca, leaf)


@pytest.mark.parametrize("shape", NAMES)
def test_an_answer_that_proves_nothing_is_refused(partner_ca, leaf, hostile_answers, shape):
    """XC-10: each negative."""
    assert set(NAMES) == set(hostile_answers)
    with pytest.raises(UnfitAnswerError):
        says(hostile_answers[shape], leaf, partner_ca)


def test_an_answer_with_a_critical_extension_is_refused(partner_ca, leaf):
    answer = partner_ca.ocsp(leaf, extensions=[(x509.OCSPNonce(b"0" * 16), True)])
    with pytest.raises(UnfitAnswerError):
        says(answer, leaf, partner_ca)


def test_a_revocation_is_believed_however_old(partner_ca, leaf):
    assert says(partner_ca.ocsp(leaf, "revoked", life=(-DAY, -3600)), leaf, partner_ca) is REVOKED


def test_no_answer_serves_longer_than_its_word_or_an_hour(partner_ca, leaf):
    assert says(partner_ca.ocsp(leaf, life=(-60, DAY)), leaf, partner_ca) == Good(NOW + MAX_LIFE)
    assert says(partner_ca.ocsp(leaf, life=(-60, 10)), leaf, partner_ca) == Good(NOW + 10)
    assert says(partner_ca.ocsp(leaf, life=(-60, None)), leaf, partner_ca) == Good(NOW - 60 + LIFE)


def test_the_question_names_the_certificate_and_its_issuer(partner_ca, leaf):
    asked = ocsp.load_der_ocsp_request(question(leaf.certificate, partner_ca.certificate))
    assert asked.serial_number == leaf.certificate.serial_number


def test_the_responder_is_the_one_that_the_certificate_names(partner_ca, leaf):
    assert responder(leaf.certificate) is None
    named = partner_ca.issue(responder="http://127.0.0.1:9/ocsp")
    assert responder(named.certificate) == "http://127.0.0.1:9/ocsp"


CA = Authority()
LEAF = CA.issue()
ANSWER = CA.ocsp(LEAF)
TBS = ocsp.load_der_ocsp_response(ANSWER).tbs_response_bytes


@given(st.integers(0, len(ANSWER) - 1), st.integers(0, 255))
def test_a_damaged_answer_proves_nothing(position, byte):
    damaged = ANSWER[:position] + bytes([byte]) + ANSWER[position + 1 :]
    try:
        says(damaged, LEAF, CA)
    except UnfitAnswerError:
        return
    # Beside the bytes of the answer itself only what the signature does not cover may differ.
    assert ocsp.load_der_ocsp_response(damaged).tbs_response_bytes == TBS
