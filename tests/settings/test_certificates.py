"""What is said at start of certificates: who may hand them on, and what each CA may speak for."""

import copy

import pytest
from pki import Authority

from sts.settings import examine

PROXY = {"networks": ["127.0.0.0/8"], "secrets": ["sha256:" + "b" * 64], "certificate_header": "xfcc"}


@pytest.fixture
def certificates(base, partner_ca, tmp_path):
    """A right configuration with a source of certificates."""
    (tmp_path / "ca.pem").write_text(partner_ca.pem)
    (tmp_path / "ca.crl").write_bytes(partner_ca.crl())
    base["sources"]["idp"].update(audiences=["*"], namespace="")
    base["sources"]["partner"] = {
        "type": "client_certificate",
        "ca_file": "ca.pem",
        "san_prefix": "spiffe://partners.example/",
        "crl_file": "ca.crl",
        "audiences": ["orders"],
        "namespace": "partner",
        "identity": {"subject": "certificate.uri", "scopes": "['orders:read']"},
    }
    base["clients"]["edge"].update(sources=["*"], may_present=["partner"], certificate_header="nginx")
    base["proxies"] = [PROXY]
    return base


def test_a_configuration_with_certificates_loads(certificates, loaded):
    settings = loaded(certificates)
    assert settings.sources["partner"].mode == "require"
    assert settings.proxies[0].certificate_header == "xfcc"


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "require"),
        ({"crl_file": None}, "off"),
        ({"crl_file": None, "ocsp": "fetch"}, "require"),
        ({"revocation": "soft"}, "soft"),
    ],
)
def test_what_is_known_of_revocation_is_required_unless_it_is_said_otherwise(certificates, loaded, changes, mode):
    source = certificates["sources"]["partner"]
    source.update(changes)
    certificates["sources"]["partner"] = {key: value for key, value in source.items() if value is not None}
    assert loaded(certificates).sources["partner"].mode == mode


def test_to_require_what_nobody_says_is_a_fault(certificates, only_fault):
    del certificates["sources"]["partner"]["crl_file"]
    certificates["sources"]["partner"]["revocation"] = "require"
    assert "needs a crl_file" in only_fault(certificates).problem


def test_stapled_answers_are_not_supported(certificates, only_fault):
    certificates["sources"]["partner"]["ocsp"] = "stapled"
    assert "not supported yet" in only_fault(certificates).problem


@pytest.mark.parametrize(
    "rule",
    ["certificate.uri", "certificate.san.uris[0]", "has(certificate.uri) ? certificate.uri : 'x'"],
)
def test_a_ca_whose_uri_names_are_read_has_its_bounds(certificates, only_fault, rule):
    """XC-07."""
    del certificates["sources"]["partner"]["san_prefix"]
    certificates["sources"]["partner"]["identity"]["subject"] = rule
    assert only_fault(certificates).path == "sources.partner.san_prefix"


def test_a_ca_whose_uri_names_are_not_read_needs_no_bounds(certificates, loaded):
    del certificates["sources"]["partner"]["san_prefix"]
    certificates["sources"]["partner"]["identity"]["subject"] = "certificate.subject"
    assert loaded(certificates)


def test_a_rule_reads_what_a_certificate_has(certificates, only_fault):
    certificates["sources"]["partner"]["identity"]["subject"] = "certificate.comon_name"
    assert only_fault(certificates).path == "sources.partner.identity.subject"


@pytest.mark.parametrize("prefix", ["spiffe:", "partners.example", "https://a/../b"])
def test_a_prefix_that_is_none_is_a_fault(certificates, faults, prefix):
    certificates["sources"]["partner"]["san_prefix"] = prefix
    assert "sources.partner.san_prefix" in {fault.path for fault in faults(certificates)}


@pytest.mark.parametrize(
    ("mine", "theirs", "rivals"),
    [
        ("spiffe://partners.example/a", "spiffe://partners.example/b", False),
        ("spiffe://partners.example/a", "spiffe://partners.example/ab", False),
        ("spiffe://partners.example/a", "spiffe://partners.example/", True),
        ("spiffe://partners.example/a", "spiffe://partners.example/a/", True),
        ("spiffe://partners.example/a/b", "spiffe://partners.example/a", True),
    ],
)
def test_two_sources_with_one_ca_divide_its_names(certificates, loaded, only_fault, mine, theirs, rivals):
    first = certificates["sources"]["partner"]
    certificates["sources"]["other"] = {**copy.deepcopy(first), "san_prefix": theirs, "namespace": "other"}
    first["san_prefix"] = mine
    if rivals:
        assert "the same CA" in only_fault(certificates).problem
    else:
        assert loaded(certificates)


def test_two_sources_with_their_own_cas_are_no_rivals(certificates, loaded, tmp_path):
    (tmp_path / "other.pem").write_text(Authority("Other CA").pem)
    other = {**copy.deepcopy(certificates["sources"]["partner"]), "ca_file": "other.pem", "namespace": "other"}
    certificates["sources"]["other"] = {key: value for key, value in other.items() if key != "crl_file"}
    assert loaded(certificates)


@pytest.mark.parametrize("key", ["ca_file", "crl_file"])
def test_a_file_that_cannot_be_used_is_told_with_its_key(certificates, only_fault, key):
    certificates["sources"]["partner"][key] = "absent.pem"
    fault = only_fault(certificates)
    assert fault.path == f"sources.partner.{key}"
    assert "absent.pem" in fault.problem


@pytest.mark.parametrize("name", ["absent", "idp"])
def test_only_sources_of_certificates_are_presented(certificates, only_fault, name):
    certificates["clients"]["edge"]["may_present"] = [name]
    assert only_fault(certificates).path == "clients.edge.may_present[0]"


def test_a_gateway_that_hands_certificates_on_says_in_which_form(certificates, only_fault):
    del certificates["clients"]["edge"]["certificate_header"]
    assert only_fault(certificates).path == "clients.edge.certificate_header"


def test_a_form_that_no_door_reads_is_warned_of(certificates, write):
    """At /token the same client hands certificates on as a `subject_token`."""
    assert examine(write(certificates), {})[1] == ()
    del certificates["clients"]["edge"]["profile"]
    (warning,) = examine(write(certificates), {})[1]
    assert warning.path == "clients.edge.certificate_header"


@pytest.mark.parametrize("key", PROXY)
def test_a_proxy_has_all_three_keys(certificates, faults, key):
    certificates["proxies"] = [{name: value for name, value in PROXY.items() if name != key}]
    assert any(fault.path.startswith("proxies") for fault in faults(certificates))


def test_what_a_client_may_present_and_not_hand_in_is_told(certificates, write):
    certificates["clients"]["edge"]["sources"] = ["idp"]
    told = [one for one in examine(write(certificates), {})[1] if one.path == "clients.edge.may_present[0]"]
    assert [one.problem for one in told] == [
        "is not one of the client's `sources`: what it presents is refused (no_consent)"
    ]
    certificates["clients"]["edge"]["sources"] = ["idp", "partner"]
    assert not [one for one in examine(write(certificates), {})[1] if "may_present" in one.path]
