"""Path validation and what the library leaves to us, each hostile shape as its own certificate."""

import ssl
import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki import DAY, Authority, key_usage

from sts.errors import BAD_ALGORITHM, BAD_SIGNATURE, BAD_TYPE, EXPIRED, MALFORMED, NOT_YET_VALID, TOO_LARGE, StartError
from sts.options import KeptFile
from sts.x509.chain import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, read_chain
from sts.x509.roots import Roots

NOW = 1_000_000.0
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
CA_USAGE = (key_usage("key_cert_sign", "crl_sign"), True)
CA = (x509.BasicConstraints(True, None), True)


@pytest.fixture
def roots_of(tmp_path):
    def make(*authorities):
        file = tmp_path / "ca.pem"
        file.write_text("".join(one.pem for one in authorities))
        return Roots(KeptFile.of(file))

    return make


@pytest.fixture
def roots(roots_of, partner_ca):
    return roots_of(partner_ca)


def chain(*holders):
    return read_chain([holder.der for holder in holders])


def test_a_client_certificate_of_a_configured_ca_is_proven(roots, partner_ca):
    leaf = partner_ca.issue()
    path = roots.validate(chain(leaf), NOW)
    assert path.leaf == leaf.certificate
    assert [one.subject for one in path.certificates] == [leaf.subject, partner_ca.subject]
    assert path.not_after == leaf.certificate.not_valid_after_utc.timestamp()


def test_a_chain_over_an_intermediate_is_proven_and_ends_with_its_first_end(roots, partner_ca):
    below = Authority("Issuing CA", parent=partner_ca, life=(-DAY, DAY / 2))
    path = roots.validate(chain(below.issue(), below), NOW)
    assert len(path.certificates) == 3
    assert path.not_after == NOW + DAY / 2


def test_a_root_that_came_along_is_no_harm(roots, partner_ca):
    assert roots.validate(chain(partner_ca.issue(), partner_ca), NOW)


def test_an_intermediate_may_itself_be_the_anchor(roots_of, partner_ca):
    below = Authority("Issuing CA", parent=partner_ca)
    assert roots_of(below).validate(chain(below.issue()), NOW)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA-2048", "P-384", "P-521", "Ed25519"],
)
def test_a_strong_key_is_taken(roots, partner_ca, key):
    assert roots.validate(chain(partner_ca.issue(key=key)), NOW)


@pytest.mark.parametrize(
    "key",
    [WEAK, ec.generate_private_key(ec.SECP256K1())],
    ids=["RSA-1024", "secp256k1"],
)
def test_a_weak_or_unusual_leaf_key_is_refused(roots, partner_ca, key, refused):
    """XC-04, LIB-C01."""
    with refused(BAD_ALGORITHM):
        roots.validate(chain(partner_ca.issue(key=key)), NOW)


@pytest.mark.parametrize(
    "purposes",
    [
        None,
        [ExtendedKeyUsageOID.SERVER_AUTH],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
    ids=["none", "serverAuth", "any", "clientAuth and any"],
)
def test_a_leaf_that_is_not_for_clients_is_refused(roots, partner_ca, purposes, refused):
    """XC-02, LIB-C02. Lesson 3.10."""
    with refused(BAD_TYPE):
        roots.validate(chain(partner_ca.issue(purposes=purposes)), NOW)


def test_a_leaf_whose_key_may_not_sign_is_refused(roots, partner_ca, refused):
    """XC-03."""
    with refused(BAD_TYPE):
        roots.validate(chain(partner_ca.issue(usage=["key_encipherment"])), NOW)
    assert roots.validate(chain(partner_ca.issue(usage=None)), NOW)


def test_a_ca_as_leaf_is_refused(roots, partner_ca, refused):
    """XC-03."""
    with refused(BAD_TYPE):
        roots.validate(chain(partner_ca.issue(extra=[(x509.BasicConstraints(True, None), True)])), NOW)


def test_another_ca_of_the_same_name_is_refused(roots, partner_ca, refused):
    """XC-01, XC-08."""
    with refused(BAD_SIGNATURE) as caught:
        roots.validate(chain(Authority().issue()), NOW)
    assert "billing" not in str(caught.value.facts)
    assert roots.validate(chain(partner_ca.issue()), NOW)


def test_a_leaf_may_not_issue(roots, partner_ca, refused):
    """XC-01: the basicConstraints hole of 2002."""
    middle = partner_ca.issue("billing", usage=["digital_signature", "key_cert_sign"])
    forger = Authority(middle.subject, parent=partner_ca, key=middle.key)
    with refused(BAD_SIGNATURE):
        roots.validate(chain(forger.issue("admin"), middle), NOW)


def test_an_intermediate_without_key_cert_sign_is_refused(roots, partner_ca, refused):
    """XC-01."""
    below = Authority("Issuing CA", parent=partner_ca, extensions=[CA, (key_usage("crl_sign"), True)])
    with refused(BAD_SIGNATURE):
        roots.validate(chain(below.issue(), below), NOW)


def test_a_path_length_is_kept(roots_of, refused):
    """XC-01."""
    top = Authority("Top", extensions=[(x509.BasicConstraints(True, 0), True), CA_USAGE])
    below = Authority("Below", parent=top)
    with refused(BAD_SIGNATURE):
        roots_of(top).validate(chain(below.issue(), below), NOW)


def test_an_unknown_critical_extension_is_refused(roots, partner_ca, refused):
    """XC-01."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    with refused(BAD_SIGNATURE):
        roots.validate(chain(partner_ca.issue(extra=[(unknown, True)])), NOW)
    assert roots.validate(chain(partner_ca.issue(extra=[(unknown, False)])), NOW)


def test_the_time_is_that_of_the_request(roots, partner_ca, refused):
    """XC-13, LIB-C05."""
    leaf = chain(partner_ca.issue(life=(0, 600)))
    assert roots.validate(leaf, NOW + 1)
    with refused(EXPIRED):
        roots.validate(leaf, NOW + 601)
    with refused(NOT_YET_VALID):
        roots.validate(leaf, NOW - 2)


def test_an_expired_certificate_of_a_stranger_is_not_called_expired(roots, refused):
    with refused(BAD_SIGNATURE):
        roots.validate(chain(Authority().issue(life=(-DAY / 2, -60))), NOW)


def test_an_expired_anchor_proves_nothing(roots_of, refused):
    old = Authority("Old", life=(-DAY, -60))
    with refused(BAD_SIGNATURE):
        roots_of(old).validate(chain(old.issue()), NOW)


def test_a_leaf_of_a_private_ca_needs_no_alternative_name_and_its_ca_no_key_usage(roots_of):
    plain = Authority("Plain", extensions=[CA])
    assert roots_of(plain).validate(chain(plain.issue(uris=())), NOW)


@pytest.mark.parametrize("hostile", ["swapped", "foreign", "twice"])
def test_a_chain_in_another_order_is_malformed(partner_ca, hostile, refused):
    """CC-02."""
    below = Authority("Issuing CA", parent=partner_ca)
    leaf = below.issue()
    ders = {"swapped": [below, leaf], "foreign": [leaf, Authority("Other")], "twice": [leaf, leaf]}[hostile]
    with refused(MALFORMED):
        chain(*ders)


def test_too_many_and_too_large_certificates_are_refused_unparsed(partner_ca, refused):
    """XC-12."""
    with refused(TOO_LARGE):
        read_chain([partner_ca.issue().der] * (MAX_CERTIFICATES + 1))
    with refused(TOO_LARGE):
        read_chain([b"0" * (MAX_CERTIFICATE_BYTES + 1)])


@pytest.mark.parametrize(
    "change", [lambda der: der[:-1], lambda der: der + b"\0", lambda _: b"", lambda _: b"\x30\x80"]
)
def test_what_is_no_certificate_is_malformed(partner_ca, change, refused):
    with refused(MALFORMED):
        read_chain([change(partner_ca.issue().der)])


def test_no_certificate_at_all_is_malformed(refused):
    with refused(MALFORMED):
        read_chain([])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Authority(key=ed25519.Ed25519PrivateKey.generate()), "RSA or EC"),
        (lambda: Authority(key=WEAK), "2048"),
        (lambda: Authority(extensions=[]), "not a CA's"),
        (lambda: Authority(extensions=[(x509.BasicConstraints(True, None), False)]), "critical"),
        (lambda: Authority(extensions=[CA, (key_usage("crl_sign"), True)]), "keyCertSign"),
        (
            lambda: Authority(
                extensions=[CA, (x509.NameConstraints([x509.UniformResourceIdentifier("a.example")], None), True)]
            ),
            "san_prefix",
        ),
    ],
    ids=["Ed25519", "RSA-1024", "no CA", "not critical", "no keyCertSign", "URI constraints"],
)
def test_what_can_be_no_anchor_is_said_at_start(roots_of, make, says):
    """LIB-C01, LIB-C03, LIB-C04: else every path to it would fail, for a reason that no caller is told."""
    with pytest.raises(StartError, match=says):
        roots_of(make())


def test_a_file_without_certificates_is_said_at_start(roots_of, tmp_path):
    with pytest.raises(StartError, match=r"cannot be used: it is not a PEM file of certificates$"):
        roots_of()
    (tmp_path / "commented.pem").write_text("# Főtanúsítvány\n" + Authority().pem)
    with pytest.raises(StartError, match="ASCII"):
        Roots(KeptFile.of(tmp_path / "commented.pem"))
    with pytest.raises(StartError, match="cannot be read"):
        Roots(KeptFile.of(tmp_path / "absent.pem"))


def test_a_critical_extended_key_usage_is_as_good(tmp_path, refused):
    """RFC 5280 §4.2.1.12: trustme's leaves have one, and one CA's choice is not ours to make."""
    ca = trustme.CA()
    (tmp_path / "trustme.pem").write_bytes(ca.cert_pem.bytes())
    roots = Roots(KeptFile.of(tmp_path / "trustme.pem"))
    leaf, other = (one.issue_cert("gateway.example.com").cert_chain_pems[0].bytes() for one in (ca, trustme.CA()))
    good = read_chain((ssl.PEM_cert_to_DER_cert(leaf.decode()),))
    assert roots.validate(good, time.time()).leaf == good.leaf
    with refused(BAD_SIGNATURE):
        roots.validate(read_chain((ssl.PEM_cert_to_DER_cert(other.decode()),)), time.time())
