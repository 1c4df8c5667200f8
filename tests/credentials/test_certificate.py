"""A certificate as a credential: whose source it is, who may present it, which facts it gives."""

import pytest
from pki import DAY, URI, Authority

from sts.credentials.certificate import (
    CertificateKind,
    CertificateSource,
    CertificateSourceSettings,
    decode_chain,
    encode_chain,
)
from sts.errors import BINDING_FAILED, MALFORMED, REVOKED, TOO_LARGE, UNKNOWN_ISSUER
from sts.model import NOT_APPLICABLE, TYPE_CLIENT_CERTIFICATE, Credential
from sts.options import Place
from sts.x509.authority import Authorities

NOW = 1_000_000.0
OTHER = Authority("Other CA")


@pytest.fixture
def source_of(tmp_path, partner_ca):
    authorities = Authorities(lambda: NOW)

    def make(name="partner", ca=partner_ca, **changes):
        (tmp_path / f"{name}.pem").write_text(ca.pem)
        (tmp_path / f"{name}.crl").write_bytes(ca.crl())
        written = {
            "type": "client_certificate",
            "ca_file": f"{name}.pem",
            "san_prefix": "spiffe://partners.example/",
            "crl_file": f"{name}.crl",
            "identity": {"subject": "certificate.uri"},
            **changes,
        }
        settings = CertificateSourceSettings.model_validate(written, context=Place(tmp_path, {}))
        return CertificateSource(name, settings, authorities.authority(settings.authority(name)))

    return make


def presented(*holders, held=True, handed_on=()):
    text = encode_chain(holder.der for holder in holders)
    return Credential(TYPE_CLIENT_CERTIFICATE, text, held=held, handed_on=frozenset(handed_on))


def test_a_certificate_is_its_cas(source_of, partner_ca):
    kind = CertificateKind([source_of(), source_of("other", OTHER)])
    assert kind.recognise(presented(partner_ca.issue())).source == "partner"
    assert kind.recognise(presented(OTHER.issue())).source == "other"
    below = Authority("Issuing CA", parent=OTHER)
    assert kind.recognise(presented(below.issue(), below)).source == "other"


def test_one_ca_that_serves_two_sources_is_divided_by_its_names(source_of, partner_ca, refused):
    one, two = (source_of(name, san_prefix=f"spiffe://partners.example/{name}") for name in ("a", "b"))
    kind = CertificateKind([one, two])
    for name in ("a", "b"):
        leaf = partner_ca.issue(uris=[f"spiffe://partners.example/{name}/x"])
        assert kind.recognise(presented(leaf)).source == name
    with refused(UNKNOWN_ISSUER):
        kind.recognise(presented(partner_ca.issue(uris=["spiffe://partners.example/c/x"])))


def test_a_ca_that_is_not_configured_is_unknown(source_of, refused):
    with refused(UNKNOWN_ISSUER):
        CertificateKind([source_of()]).recognise(presented(OTHER.issue()))


def test_whoever_has_not_its_key_and_may_not_hand_it_on_is_refused(source_of, partner_ca, refused):
    """CC-03: certificates are public."""
    kind = CertificateKind([source_of()])
    leaf = partner_ca.issue()
    assert kind.recognise(presented(leaf, held=True))
    assert kind.recognise(presented(leaf, held=False, handed_on=["partner"]))
    for handed_on in ((), ["other"], ["*"]):
        with refused(BINDING_FAILED):
            kind.recognise(presented(leaf, held=False, handed_on=handed_on))


def test_its_facts_are_those_of_the_proven_path(source_of, partner_ca):
    source = source_of()
    kind = CertificateKind([source])
    principal = source.prove(kind.recognise(presented(partner_ca.issue(life=(-DAY, DAY / 4)))), NOW)
    assert (principal.kind, principal.source, principal.subject) == ("client_certificate", "partner", URI)
    assert principal.expires_at == NOW + DAY / 4
    assert principal.not_before == NOW - DAY
    assert principal.fresh_until == NOW + 3600
    assert principal.audience is NOT_APPLICABLE
    assert principal.confirmation is NOT_APPLICABLE
    assert principal.attributes["uri"] == URI


def test_a_certificate_counts_from_its_own_first_day_and_not_from_a_younger_ca_certificates(source_of):
    """Else who renews an intermediate certificate would lift the revocation of all that stand below it."""
    source = source_of("other", OTHER, revocation="off")
    renewed = Authority("Issuing CA", parent=OTHER, life=(-60.0, DAY))
    leaf = renewed.issue(life=(-DAY / 2, DAY / 2))
    principal = source.prove(CertificateKind([source]).recognise(presented(leaf, renewed)), NOW)
    assert principal.not_before == NOW - 60
    assert principal.since == NOW - DAY / 2


def test_what_is_learned_of_revocation_voids_what_was_decided(source_of, partner_ca, refused):
    source = source_of()
    kind = CertificateKind([source])
    leaf = partner_ca.issue()
    principal = source.prove(kind.recognise(presented(leaf)), NOW)
    assert source.key_current(principal.proof_key)
    crl = source.authority._crl
    crl.path.write_bytes(partner_ca.crl(leaf))
    crl.look()
    assert not source.key_current(principal.proof_key)
    with refused(REVOKED):
        source.prove(kind.recognise(presented(leaf)), NOW)


def test_the_text_of_a_chain_reads_back(partner_ca):
    ders = (partner_ca.issue().der, partner_ca.der)
    assert decode_chain(encode_chain(ders)) == ders


@pytest.mark.parametrize("text", ["", ".", "MIIB.", ".MIIB", "MII+", "MIIB=", "MIIB\n", "MIIB..MIIB", "é", "A"])
def test_a_text_that_is_no_chain_is_malformed(text, refused):
    with refused(MALFORMED):
        decode_chain(text)


def test_a_text_beyond_bounds_is_refused(refused):
    with refused(TOO_LARGE):
        decode_chain("A" * 100_000)
