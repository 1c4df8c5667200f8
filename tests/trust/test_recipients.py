import json

import pytest
from pydantic import ValidationError
from recipient import Pair, jwks

from sts.errors import SOURCE_UNREACHABLE, Refusal, StartError
from sts.options import KeptFile, Place
from sts.resilience.bulkhead import Bulkhead
from sts.trust.recipients import STALE, EncryptionSettings, Recipients


@pytest.fixture
def heard():
    return []


@pytest.fixture
def recipients(clock, heard):
    return Recipients(clock, 4, Bulkhead(4), lambda audience, why: heard.append((audience, why)))


@pytest.fixture
def settings(peer, tmp_path):
    """Settings as configured; by default with a `jwks_uri` at the test's own server."""

    def write(**changed):
        wanted = {"jwks_uri": f"{peer.url}/enc", "alg": "ECDH-ES+A256KW", **changed}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        return EncryptionSettings.model_validate(wanted, context=Place(tmp_path, {}))

    return write


@pytest.fixture
def kid(clock):
    """The kid of the key to encrypt to now, or the reason of the refusal."""

    def kid(recipient):
        try:
            return recipient.key(clock.now).kid
        except Refusal as refusal:
            return refusal.reason

    return kid


@pytest.fixture
def refresh(until, heard, clock):
    """Pass the set's life, ask, and wait until it was fetched again."""

    def refresh(recipient, seconds):
        before = len(heard)
        clock.now += seconds
        recipient.current("")
        until(lambda: len(heard) > before)

    return refresh


def test_a_file_gives_the_first_usable_key_in_its_order(recipients, settings, tmp_path, kid):
    first, second = Pair(), Pair("X25519")
    document = {"keys": [{**Pair().jwk, "use": "sig"}, first.jwk, second.jwk]}
    (tmp_path / "enc.json").write_text(json.dumps(document))
    assert kid(recipients.of("billing", settings(jwks_uri=None, jwks_file="enc.json"))) == first.kid


@pytest.mark.parametrize("content", ["", "{}", '{"keys": []}', json.dumps({"keys": [{**Pair().jwk, "use": "sig"}]})])
def test_a_file_without_a_usable_key_is_a_fault_before_anything_starts(recipients, settings, tmp_path, content):
    (tmp_path / "enc.json").write_text(content)
    with pytest.raises(StartError, match=r"enc\.json cannot be used"):
        recipients.of("billing", settings(jwks_uri=None, jwks_file="enc.json"))


def test_a_backends_keys_are_fetched_at_the_first_use_and_kept(recipients, settings, peer, kid):
    pair = Pair()
    peer.answers(jwks(pair))
    recipient = recipients.of("billing", settings())
    assert peer.requests == []
    assert [kid(recipient), kid(recipient)] == [pair.kid, pair.kid]
    assert peer.paths() == ["/enc"]


def test_rotation_the_new_key_comes_first_and_the_old_one_stays_current_while_it_is_published(
    recipients, settings, peer, kid, refresh
):
    """JK-06: the mirror order: published, then encrypted to, and the old private key is kept. Lesson R.4."""
    old, new = Pair(), Pair()
    peer.answers(jwks(old))
    recipient = recipients.of("billing", settings())
    before = recipient.key(0.0)
    peer.answers(jwks(new, old))
    refresh(recipient, 290)
    assert kid(recipient) == new.kid
    assert recipient.current(before.thumbprint)
    peer.answers(jwks(new))
    refresh(recipient, 290)
    assert not recipient.current(before.thumbprint)


def test_a_set_without_a_usable_key_replaces_none_that_is_good(recipients, settings, peer, kid, refresh, heard):
    pair = Pair()
    peer.answers(jwks(pair))
    recipient = recipients.of("billing", settings())
    assert kid(recipient) == pair.kid
    peer.answers(jwks(Pair("RSA")))
    refresh(recipient, 290)
    assert kid(recipient) == pair.kid
    assert heard[-1][0] == "billing"
    assert "does not fit" in recipient.trouble


def test_without_any_usable_key_it_is_503_and_never_a_plain_token(recipients, settings, peer, kid):
    peer.answers(jwks(Pair("RSA")))
    recipient = recipients.of("billing", settings())
    assert kid(recipient) is SOURCE_UNREACHABLE
    assert not recipient.current("")


def test_the_last_good_keys_serve_for_an_hour_and_not_for_ever(recipients, settings, peer, kid, refresh, clock):
    pair = Pair()
    peer.answers(jwks(pair))
    recipient = recipients.of("billing", settings())
    assert kid(recipient) == pair.kid
    peer.answers(b"", status=503)
    refresh(recipient, 301)
    assert kid(recipient) == pair.kid
    clock.now += STALE + 1
    assert kid(recipient) is SOURCE_UNREACHABLE


def test_a_reload_keeps_the_set_unless_its_settings_changed(recipients, settings, authority, tmp_path):
    first = recipients.of("billing", settings())
    (tmp_path / "ca.pem").write_text(authority().pem)
    assert recipients.of("billing", settings()) is first
    others = [recipients.of("billing", settings(alg="ECDH-ES")), recipients.of("ledger", settings())]
    others.append(recipients.of("billing", settings(ca_file="ca.pem")))
    assert first not in others


def test_a_private_ca_is_trusted_for_its_backend(recipients, settings, peers, authority, kid):
    ca = authority()
    peer, pair = peers(ca.serving("127.0.0.1")), Pair()
    peer.answers(jwks(pair))
    assert kid(recipients.of("billing", settings(jwks_uri=f"{peer.url}/enc"))) is SOURCE_UNREACHABLE
    known = settings(jwks_uri=f"{peer.url}/enc", ca_file=str(ca.file))
    assert kid(recipients.of("billing", known)) == pair.kid


@pytest.mark.parametrize(
    "changed",
    [
        {"jwks_uri": None},
        {"jwks_file": "enc.json"},
        {"jwks_uri": None, "jwks_file": "enc.json", "ca_file": "ca.pem"},
        {"jwks_uri": "http://example.com/enc"},
        {"alg": "dir"},
        {"alg": None},
        {"enc": "A128GCM"},
        {"kid": "x"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, changed):
    with pytest.raises(ValidationError):
        settings(**changed)


def test_a_file_that_was_not_there_is_told_as_such(recipients):
    missing = EncryptionSettings(jwks_file=KeptFile("gone.json", None, "No such file"), alg="ECDH-ES")
    with pytest.raises(StartError, match=r"gone\.json cannot be read"):
        recipients.of("billing", missing)
