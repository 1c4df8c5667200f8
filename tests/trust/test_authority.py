"""A CA as a source believes it: what `require`, `soft` and `off` make of what is known of revocation."""

import gc
import itertools

import pytest
from pki import Authority as Ca

from sts.errors import REQUIREMENT_FAILED, REVOKED, SOURCE_UNREACHABLE
from sts.options import KeptFile
from sts.x509.authority import Authorities, AuthoritySettings
from sts.x509.chain import read_chain
from sts.x509.revocation import SOFT_LIFE
from sts.x509.watch import Watch

NOW = 1_000_000.0
_files = itertools.count()


@pytest.fixture
def authorities(clock):
    return Authorities(clock)


@pytest.fixture
def settings_of(tmp_path, partner_ca):
    def make(*lists, revocation="require", ocsp="off", san_prefix="spiffe://partners.example/", crl=True):
        ca = tmp_path / "ca.pem"
        ca.write_text(partner_ca.pem)
        file = tmp_path / f"{next(_files)}.crl.pem"
        file.write_bytes(b"".join(lists))
        return AuthoritySettings("partner", KeptFile.of(ca), san_prefix, file if crl else None, revocation, ocsp)

    return make


@pytest.fixture
def proves(authorities, settings_of):
    def prove(*holders, lists=(), now=NOW, **more):
        authority = authorities.authority(settings_of(*lists, **more))
        return authority.prove(read_chain([holder.der for holder in holders]), now)

    return prove


def test_a_certificate_that_nobody_took_back_is_proven_until_the_next_list(proves, partner_ca):
    assert proves(partner_ca.issue(), lists=[partner_ca.crl()]).fresh_until == NOW + 3600


def test_lists_that_can_vouch_for_nothing_are_trouble(authorities, settings_of, partner_ca, clock):
    """The answer is 503, and who looks after the service asks /readyz why."""
    authority = authorities.authority(settings_of(partner_ca.crl()))
    assert authority.trouble == ""
    clock.now += 3600
    assert authority.trouble == "a CRL is past its nextUpdate"
    foreign = authorities.authority(settings_of(Ca("Other CA").crl(life=(-60, 7200))))
    assert foreign.trouble == "no CRL of a CA in ca_file"


def test_a_revoked_certificate_is_refused(proves, partner_ca, refused):
    leaf = partner_ca.issue()
    for revocation in ("require", "soft"):
        with refused(REVOKED):
            proves(leaf, lists=[partner_ca.crl(leaf)], revocation=revocation)
    assert proves(leaf, lists=[partner_ca.crl(leaf)], revocation="off")


def test_a_revoked_intermediate_takes_its_leaves_along(proves, partner_ca, refused):
    below = Ca("Issuing CA", parent=partner_ca)
    leaf = below.issue()
    assert proves(leaf, below, lists=[partner_ca.crl(), below.crl()])
    with refused(REVOKED):
        proves(leaf, below, lists=[partner_ca.crl(below), below.crl()])


def test_under_require_every_certificate_below_the_anchor_needs_a_word(proves, partner_ca, refused):
    """XC-11."""
    below = Ca("Issuing CA", parent=partner_ca)
    with refused(SOURCE_UNREACHABLE):
        proves(below.issue(), below, lists=[partner_ca.crl()])
    with refused(SOURCE_UNREACHABLE):
        proves(partner_ca.issue(), lists=[])
    with refused(SOURCE_UNREACHABLE):
        proves(partner_ca.issue(), lists=[partner_ca.crl()], now=NOW + 3601)


def test_under_soft_silence_is_taken_for_consent_but_asked_again_soon(proves, partner_ca):
    assert proves(partner_ca.issue(), lists=[], revocation="soft").fresh_until == NOW + SOFT_LIFE


def test_a_proof_lasts_no_longer_than_the_path(proves, partner_ca):
    assert proves(partner_ca.issue(life=(-5, 60)), lists=[partner_ca.crl()]).fresh_until == NOW + 60


def test_a_name_beyond_the_prefix_is_refused(proves, partner_ca, refused):
    with refused(REQUIREMENT_FAILED):
        proves(partner_ca.issue(uris=["spiffe://partners.example.evil/x"]), lists=[partner_ca.crl()])


def test_ocsp_vouches_where_no_list_does(authorities, settings_of, peer, partner_ca, until, refused):
    leaf = partner_ca.issue(responder=peer.url)
    peer.answers(partner_ca.ocsp(leaf), Connection="close")
    authority = authorities.authority(settings_of(ocsp="fetch", crl=False))
    chain = read_chain([leaf.der])
    with peer.silent(), refused(SOURCE_UNREACHABLE):
        authority.prove(chain, NOW)
    until(lambda: not authority._responders._kept or any(one.word for one in authority._responders._kept.values()))
    assert authority.prove(chain, NOW).fresh_until == NOW + 3600
    revoked = partner_ca.issue(responder=peer.url)
    peer.answers(partner_ca.ocsp(revoked, "revoked"), Connection="close")
    before = authority.generation
    with peer.silent(), refused(SOURCE_UNREACHABLE):
        authority.prove(read_chain([revoked.der]), NOW)
    until(lambda: authority.generation != before)
    with refused(REVOKED):
        until(lambda: authority.prove(read_chain([revoked.der]), NOW) is None)


def test_what_is_known_outlives_a_reload_that_does_not_touch_it(authorities, settings_of, partner_ca):
    settings = settings_of(partner_ca.crl())
    assert authorities.authority(settings) is authorities.authority(settings)


def test_an_authority_that_no_configuration_names_is_forgotten(authorities, settings_of, partner_ca):
    authority = authorities.authority(settings_of(partner_ca.crl()))
    assert len(authorities.watch._watched) == 1
    del authority
    gc.collect()
    assert not authorities.watch._watched


def test_a_list_that_changes_is_in_force_without_a_reload(clock, settings_of, partner_ca, until, refused):
    watch = Watch(interval=0.01)
    authorities = Authorities(clock, watch=watch)
    settings, leaf = settings_of(partner_ca.crl()), partner_ca.issue()
    authority = authorities.authority(settings)
    chain, before = read_chain([leaf.der]), authority.generation
    watch.start()
    try:
        assert authority.prove(chain, NOW)
        settings.crl_file.write_bytes(partner_ca.crl(leaf))
        until(lambda: authority.generation != before)
        with refused(REVOKED):
            authority.prove(chain, NOW)
        settings.crl_file.write_bytes(b"half a li")
        until(lambda: authority.trouble)
        with refused(REVOKED):
            authority.prove(chain, NOW)
    finally:
        watch.stop()
