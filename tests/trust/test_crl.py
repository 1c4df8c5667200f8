"""CRLs: the checks that the library leaves out (XC-09, LIB-C06), and a file that changes while we run."""

import contextlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from pki import Authority, at, key_usage

from sts.x509.crl import CrlFile, UnfitCrlError, read_crls
from sts.x509.revocation import REVOKED, Good, Unknown

NOW = 1_000_000.0


@pytest.fixture
def listed(tmp_path):
    def make(*lists):
        file = tmp_path / "ca.crl.pem"
        file.write_bytes(b"".join(lists))
        return CrlFile(file)

    return make


def status(lists, holder, issuer, now=NOW):
    return lists.status(holder.certificate, issuer.certificate, now)


def test_a_certificate_that_is_listed_is_revoked_and_others_are_good(listed, partner_ca):
    one, other = partner_ca.issue(), partner_ca.issue()
    lists = listed(partner_ca.crl(one))
    assert status(lists, one, partner_ca) is REVOKED
    assert status(lists, other, partner_ca) == Good(NOW + 3600)


def test_a_list_past_its_time_vouches_for_nobody_and_still_revokes(listed, partner_ca):
    """XC-09: stale."""
    one, other = partner_ca.issue(), partner_ca.issue()
    lists = listed(partner_ca.crl(one))
    assert isinstance(status(lists, other, partner_ca, NOW + 3600), Unknown)
    assert status(lists, one, partner_ca, NOW + 3600) is REVOKED


def test_a_list_from_the_future_says_nothing(listed, partner_ca):
    assert isinstance(status(listed(partner_ca.crl(life=(120, 3600))), partner_ca.issue(), partner_ca), Unknown)
    assert isinstance(status(listed(partner_ca.crl(life=(30, 3600))), partner_ca.issue(), partner_ca), Good)


def test_a_list_that_somebody_else_signed_says_nothing(listed, partner_ca):
    """XC-09: forged."""
    leaf, forger = partner_ca.issue(), Authority()
    assert isinstance(status(listed(partner_ca.crl(key=forger.key)), leaf, partner_ca), Unknown)
    assert isinstance(status(listed(partner_ca.crl(issuer=forger.issue("Other").subject)), leaf, partner_ca), Unknown)


def test_an_issuer_that_may_not_sign_lists_has_none(listed):
    """XC-09: cRLSign."""
    ca = Authority(extensions=[(x509.BasicConstraints(True, None), True), (key_usage("key_cert_sign"), True)])
    assert isinstance(status(listed(ca.crl()), ca.issue(), ca), Unknown)
    plain = Authority(extensions=[(x509.BasicConstraints(True, None), True)])
    assert isinstance(status(listed(plain.crl()), plain.issue(), plain), Good)


def test_the_newest_list_of_a_ca_counts(listed, partner_ca):
    leaf = partner_ca.issue()
    old, new = partner_ca.crl(life=(-600, 3600)), partner_ca.crl(leaf)
    for lists in (listed(old, new), listed(new, old)):
        assert status(lists, leaf, partner_ca) is REVOKED


def test_each_ca_has_its_own_list(listed, partner_ca):
    below = Authority("Issuing CA", parent=partner_ca)
    lists = listed(partner_ca.crl(), below.crl(below.issue()))
    assert isinstance(status(lists, below, partner_ca), Good)
    assert isinstance(status(listed(partner_ca.crl()), below.issue(), below), Unknown)


@pytest.mark.parametrize(
    "extension",
    [
        (x509.DeltaCRLIndicator(1), True),
        (x509.DeltaCRLIndicator(1), False),
        (x509.IssuingDistributionPoint(None, None, True, False, None, False, False), True),
        (x509.IssuingDistributionPoint(None, None, False, False, None, True, False), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
    ],
    ids=["delta", "delta not critical", "user certificates only", "indirect", "unknown critical"],
)
def test_a_list_of_a_form_that_is_not_read_is_refused(partner_ca, extension):
    """XC-09: scope and delta."""
    with pytest.raises(UnfitCrlError, match="not supported"):
        read_crls(partner_ca.crl(extensions=[extension]))


def test_an_entry_with_a_critical_extension_is_refused(partner_ca):
    issuer = x509.CertificateIssuer([x509.DirectoryName(partner_ca.subject)])
    with pytest.raises(UnfitCrlError, match="entry"):
        read_crls(partner_ca.crl(partner_ca.issue(), entry=[(issuer, True)]))
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    assert read_crls(partner_ca.crl(partner_ca.issue(), entry=[(reason, False), (x509.InvalidityDate(at(NOW)), False)]))


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_what_is_no_list_is_refused(content):
    with pytest.raises(UnfitCrlError):
        read_crls(content)


def test_a_list_in_der_is_read(partner_ca):
    der = x509.load_pem_x509_crl(partner_ca.crl()).public_bytes(Encoding.DER)
    assert len(read_crls(der)) == 1
    with pytest.raises(UnfitCrlError):
        read_crls(der + b"\0")


def test_one_bad_list_spoils_the_file(partner_ca):
    """Leaving it out would let its CA's revoked certificates pass under `soft`."""
    with pytest.raises(UnfitCrlError):
        read_crls(partner_ca.crl() + partner_ca.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]))


def test_a_changed_file_is_taken_at_the_next_look(listed, partner_ca):
    leaf = partner_ca.issue()
    lists = listed(partner_ca.crl())
    before = lists.generation
    lists.path.write_bytes(partner_ca.crl(leaf))
    assert isinstance(status(lists, leaf, partner_ca), Good)  # a request does not look
    lists.look()
    assert status(lists, leaf, partner_ca) is REVOKED
    assert lists.generation > before


def test_a_file_that_did_not_change_is_not_read_again(listed, partner_ca):
    lists = listed(partner_ca.crl())
    before = lists.generation
    lists.look()
    assert lists.generation == before


def test_a_file_that_cannot_be_used_leaves_the_lists_that_were_there(listed, partner_ca):
    leaf = partner_ca.issue()
    good = partner_ca.crl(leaf)
    lists = listed(good)
    lists.path.write_bytes(good[: len(good) // 2])
    lists.look()
    assert lists.trouble
    assert status(lists, leaf, partner_ca) is REVOKED
    lists.path.unlink()
    lists.look()
    assert lists.trouble == "No such file or directory"
    lists.path.write_bytes(partner_ca.crl())
    lists.look()
    assert not lists.trouble
    assert isinstance(status(lists, leaf, partner_ca), Good)


def test_a_file_that_becomes_unfit_is_told_to_the_log_once(listed, partner_ca, capsys):
    lists = listed(partner_ca.crl())
    lists.path.write_text("no list")
    for _ in range(2):
        lists.look()
    (line,) = [json.loads(one) for one in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["file"], line["why"]) == ("crl", str(lists.path), lists.trouble)


def test_a_file_that_is_not_there_vouches_for_nobody(tmp_path, partner_ca):
    assert isinstance(status(CrlFile(tmp_path / "absent"), partner_ca.issue(), partner_ca), Unknown)


def test_a_list_signed_over_sha1_is_refused(partner_ca, monkeypatch):
    crl = x509.load_pem_x509_crl(partner_ca.crl())

    class Weak:
        def __getattr__(self, name):
            return hashes.SHA1() if name == "signature_hash_algorithm" else getattr(crl, name)  # noqa: S303

        def __iter__(self):
            return iter(crl)

    monkeypatch.setattr(x509, "load_pem_x509_crl", lambda _: Weak())
    with pytest.raises(UnfitCrlError, match="algorithm"):
        read_crls(partner_ca.crl())


CA = Authority()
DER = x509.load_pem_x509_crl(CA.crl(CA.issue())).public_bytes(Encoding.DER)


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_damaged_list_is_read_or_refused_and_nothing_else(position, byte):
    damaged = DER[:position] + bytes([byte]) + DER[position + 1 :]
    with contextlib.suppress(UnfitCrlError):
        for crl in read_crls(damaged):
            assert crl.speaks_for(CA.certificate) is (damaged == DER)


def test_a_list_of_another_version_is_refused(partner_ca):
    """What the library raises for it is no ValueError."""
    der = x509.load_pem_x509_crl(partner_ca.crl()).public_bytes(Encoding.DER)
    version = der.index(b"\x02\x01\x01")
    with pytest.raises(UnfitCrlError, match="InvalidVersion"):
        read_crls(der[: version + 2] + b"\x38" + der[version + 3 :])
