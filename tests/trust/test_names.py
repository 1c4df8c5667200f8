"""Who a certificate says its holder is, and whom its CA may speak for."""

import hashlib
import ipaddress
import json

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pki import URI, name

from sts.errors import BAD_TYPE, MALFORMED, REQUIREMENT_FAILED
from sts.x509.names import ATTRIBUTES, MAX_NAMES, attributes, check_names, check_prefix, within


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("spiffe://a.example/x", "spiffe://a.example/"),
        ("spiffe://a.example/x", "spiffe://a.example"),
        ("https://a.example/partners/7", "https://a.example/partners"),
        ("urn:partner:7", "urn:partner:"),
    ],
)
def test_a_name_below_the_prefix_is_within_it(uri, prefix):
    assert within(uri, prefix)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("spiffe://a.example.evil/x", "spiffe://a.example"),
        ("spiffe://a.example.evil/x", "spiffe://a.example/"),
        ("spiffe://a.examples", "spiffe://a.example"),
        ("spiffe://a.example:1/x", "spiffe://a.example"),
        ("spiffe://a.example@evil/x", "spiffe://a.example"),
        ("spiffe://a.example", "spiffe://a.example/"),
        ("spiffe://a.example/", "spiffe://a.example/"),
        ("spiffe://A.example/x", "spiffe://a.example/"),
        ("https://a.example/partners/../admin", "https://a.example/partners/"),
        ("https://a.example/partners/./x", "https://a.example/partners/"),
        ("https://a.example/partners//x", "https://a.example/partners/"),
        ("https://a.example/partners/%2e%2e/x", "https://a.example/partners/"),
        ("https://a.example/partners/x?y", "https://a.example/partners/"),
        ("https://a.example/partners/x#y", "https://a.example/partners/"),
        ("https://a.example/partners\\x", "https://a.example/partners"),
        ("https://a.example/partnersx", "https://a.example/partners"),
        ("urn:partners:7", "urn:partner:"),
    ],
)
def test_a_name_that_only_looks_like_it_is_not_within_the_prefix(uri, prefix):
    """XC-07."""
    assert not within(uri, prefix)


@given(st.text(alphabet="aA/.:@%?#\\ e\0", max_size=12))
def test_whatever_follows_a_prefix_keeps_its_authority_and_path(rest):
    if within("https://a.example/p" + rest, "https://a.example/p"):
        assert rest.startswith("/")
        assert not {"", ".", ".."} & set(rest[1:].split("/"))
        assert not set("%?#\\ \0") & set(rest)


@pytest.mark.parametrize("prefix", ["spiffe://partners.example/", "https://a.example:8443/x", "urn:partner:"])
def test_a_prefix_is_a_scheme_an_authority_and_perhaps_a_path(prefix):
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix",
    ["", "spiffe:", "spiffe://", "partners.example", "https://a.example/../x", "urn:", "https://a.example/%41"],
)
def test_a_prefix_that_holds_everybody_is_none(prefix):
    with pytest.raises(ValueError, match="a URI prefix"):
        check_prefix(prefix)


def test_a_spiffe_certificate_has_one_name(partner_ca, refused):
    """XC-05, XC-06."""
    check_names(partner_ca.issue().certificate, "spiffe://partners.example/")
    with refused(MALFORMED):
        check_names(partner_ca.issue(uris=[URI, "spiffe://partners.example/admin"]).certificate, None)
    with refused(MALFORMED):
        check_names(partner_ca.issue(uris=["https://partners.example/x", URI]).certificate, None)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://partners.example",
        "spiffe://partners.example/",
        "spiffe://Partners.example/x",
        "SPIFFE://partners.example/x",
        "spiffe:///x",
        "spiffe://partners.example/x/",
        "spiffe://partners.example//x",
        "spiffe://partners.example/../x",
        "spiffe://partners.example/x?y=1",
        "spiffe://partners.example/x#y",
        "spiffe://partners.example:443/x",
        "spiffe://user@partners.example/x",
        "spiffe://partners.example/%78",
        "spiffe://partners.example/" + "x" * 2048,
    ],
)
def test_a_spiffe_id_that_is_none_is_refused(partner_ca, uri, refused):
    """XC-06."""
    with refused(MALFORMED):
        check_names(partner_ca.issue(uris=[uri]).certificate, None)


@pytest.mark.parametrize("usage", [None, ["digital_signature", "key_cert_sign"], ["digital_signature", "crl_sign"]])
def test_a_spiffe_certificate_signs_data_only(partner_ca, usage, refused):
    """XC-06."""
    with refused(BAD_TYPE):
        check_names(partner_ca.issue(usage=usage).certificate, None)


@pytest.mark.parametrize("uris", [[], ["spiffe://other.example/x"], ["https://a.example/x", "https://b.example/x"]])
def test_a_ca_speaks_below_its_prefix_only(partner_ca, uris, refused):
    """XC-07."""
    with refused(REQUIREMENT_FAILED):
        check_names(partner_ca.issue(uris=uris).certificate, "https://a.example/")


def test_attributes_are_json_and_what_is_documented(partner_ca):
    subject = name("billing, Inc.", ORGANIZATION_NAME="Partner", ORGANIZATIONAL_UNIT_NAME="Accounts")
    leaf = partner_ca.issue(
        subject=subject, dns=["a.example"], emails=["x@a.example"], ips=[ipaddress.ip_address("10.0.0.1")]
    )
    found = attributes(leaf.certificate)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == ATTRIBUTES
    assert found["subject"] == r"OU=Accounts,O=Partner,CN=billing\, Inc."
    assert (found["cn"], found["o"], found["ou"]) == (["billing, Inc."], ["Partner"], ["Accounts"])
    assert found["issuer"] == "CN=Partner CA"
    assert found["san"] == {"uris": [URI], "dns": ["a.example"], "emails": ["x@a.example"], "ips": ["10.0.0.1"]}
    assert (found["uri"], found["dns"], found["email"]) == (URI, "a.example", "x@a.example")
    assert int(found["serial"], 16) == leaf.certificate.serial_number
    assert found["fingerprint"] == hashlib.sha256(leaf.der).hexdigest()
    assert found["not_after"] == 1_086_400


def test_a_name_of_which_there_are_two_is_not_there(partner_ca):
    """XC-05: the first of several is nobody's identity."""
    leaf = partner_ca.issue(uris=["https://a/1", "https://a/2"], dns=["a.example", "b.example"])
    found = attributes(leaf.certificate)
    assert not {"uri", "dns", "email"} & set(found)
    assert found["san"]["uris"] == ["https://a/1", "https://a/2"]


def test_the_subject_is_written_as_openssl_writes_it(partner_ca):
    """MT-02."""
    parts = [
        x509.NameAttribute(x509.NameOID.COMMON_NAME, 'a+b="c",<d>;#\\'),
        x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, " x "),
    ]
    found = attributes(partner_ca.issue(subject=x509.Name(parts)).certificate)
    assert found["subject"] == r"O=\ x\ ,CN=a\+b=\"c\"\,\<d\>\;#\\"


def test_a_certificate_for_half_the_world_is_refused(partner_ca, refused):
    with refused(MALFORMED):
        attributes(partner_ca.issue(dns=[f"h{number}.example" for number in range(MAX_NAMES + 1)]).certificate)
