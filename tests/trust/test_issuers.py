import json
from pathlib import Path

import pytest

from sts.errors import SOURCE_UNREACHABLE, UNKNOWN_KEY, Refusal, StartError
from sts.options import KeptFile
from sts.trust.issuers import WELL_KNOWN, Issuer, Issuers


@pytest.fixture
def heard():
    return []


@pytest.fixture
def issuers(clock, heard):
    return Issuers(clock, 4, lambda source, why: heard.append((source, why)))


@pytest.fixture
def issuer(peer):
    """An issuer as configured; by default with a `jwks_uri` at the test's own server."""

    def write(**changed):
        settings = {"source": "idp", "issuer": peer.url, "algorithms": ("ES256",), "jwks_uri": f"{peer.url}/jwks"}
        settings |= {"jwks_file": None, "discovery": False, "ca_file": None, "stale_jwks": 600.0, **changed}
        return Issuer(**settings)

    return write


@pytest.fixture
def discovered(issuer):
    return lambda **changed: issuer(jwks_uri=None, discovery=True, **changed)


@pytest.fixture
def ask(clock):
    def find(keys, kid="one"):
        try:
            return keys.keys_for(kid, "ES256", clock.now)[0].kid
        except Refusal as refusal:
            return refusal.reason, refusal.facts.get("why")

    return find


@pytest.fixture
def site(peer):
    """Serve documents by path at the test's own server; what is not there is a 404."""

    def serve(documents, **headers):
        def behave(connection):
            path = peer.paths()[-1]
            body = documents.get(path)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines = [f"HTTP/1.1 {200 if path in documents else 404} Whatever", f"Content-Length: {len(body)}"]
            lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

        peer.behave = behave

    return serve


def test_keys_come_from_the_configured_url_and_nothing_is_fetched_before(issuers, issuer, ask, site, jwks_of, peer):
    """JW-23."""
    site({"/jwks": jwks_of("one")})
    keys = issuers.keys(issuer())
    assert peer.requests == []
    assert ask(keys) == "one"
    assert peer.paths() == ["/jwks"]


def test_every_fetch_is_noticed_by_the_sources_name(issuers, issuer, ask, site, heard, until):
    site({})
    ask(issuers.keys(issuer()))
    until(lambda: heard == [("idp", "it answered 404")])


def test_keys_come_from_a_file(issuers, issuer, ask, tmp_path, jwks_of, peer):
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks_of("one")))
    settings = issuer(jwks_uri=None, jwks_file=KeptFile.of(path))
    assert ask(issuers.keys(settings)) == "one"
    path.write_text(json.dumps(jwks_of("two")))
    assert ask(issuers.keys(settings)) == "one"  # what was accepted stays
    reloaded = issuer(jwks_uri=None, jwks_file=KeptFile.of(path))
    assert ask(issuers.keys(reloaded), "two") == "two"
    assert peer.requests == []


def test_a_reload_keeps_the_keys_of_an_unchanged_issuer(issuers, issuer, ask, site, jwks_of, peer):
    site({"/jwks": jwks_of("one")})
    ask(issuers.keys(issuer()))
    assert ask(issuers.keys(issuer())) == "one"
    assert len(peer.requests) == 1
    ask(issuers.keys(issuer(algorithms=("ES256", "RS256"))))
    assert len(peer.requests) == 2


def test_two_sources_share_no_keys(issuers, issuer, peer):
    """Lessons part 2, no. 11: a cache of keys belongs to one issuer's configuration."""
    assert issuers.keys(issuer()) is not issuers.keys(issuer(source="other"))
    assert issuers.keys(issuer()) is not issuers.keys(issuer(issuer="https://other.example.com"))
    assert peer.requests == []


def test_the_configured_ca_is_used_and_read_anew(issuers, issuer, ask, authority, peers, jwks_of, tmp_path):
    ours, other = authority(), authority()
    idp = peers(ours.serving("127.0.0.1"))
    idp.answers(jwks_of("one"))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(other.pem)
    settings = issuer(jwks_uri=f"{idp.url}/jwks", ca_file=KeptFile.of(ca_file))
    reason, why = ask(issuers.keys(settings))
    assert reason is SOURCE_UNREACHABLE
    assert "CERTIFICATE_VERIFY_FAILED" in why
    ca_file.write_text(ours.pem)
    settings = issuer(jwks_uri=f"{idp.url}/jwks", ca_file=KeptFile.of(ca_file))
    assert ask(issuers.keys(settings)) == "one"
    with pytest.raises(StartError):
        issuers.keys(issuer(ca_file=KeptFile.of(Path("none.pem"))))


@pytest.mark.parametrize("path", ["", "/realms/main", "/realms/main/"])
def test_discovery_finds_the_keys(path, issuers, discovered, ask, site, jwks_of, peer):
    name = peer.url + path
    where = path.rstrip("/") + WELL_KNOWN
    site({where: {"issuer": name, "jwks_uri": f"{peer.url}/certs"}, "/certs": jwks_of("one")})
    assert ask(issuers.keys(discovered(issuer=name))) == "one"
    assert peer.paths() == [where, "/certs"]


@pytest.mark.parametrize("said", ["{}/", "{}.evil.example", "https://other.example.com", "", 5, None, ["{}"]])
def test_metadata_of_another_issuer_are_not_used(said, issuers, discovered, ask, site, jwks_of, peer):
    """MD-07."""
    said = said.format(peer.url) if isinstance(said, str) else said
    site({WELL_KNOWN: {"issuer": said, "jwks_uri": f"{peer.url}/certs"}, "/certs": jwks_of("one")})
    assert ask(issuers.keys(discovered())) == (SOURCE_UNREACHABLE, "the metadata are not of this issuer")
    assert peer.paths() == [WELL_KNOWN]


def test_a_jwks_uri_elsewhere_is_not_fetched(issuers, discovered, ask, site, jwks_of, peer, peers):
    """JW-23."""
    elsewhere = peers()
    elsewhere.answers(jwks_of("one"))
    for uri in (f"{elsewhere.url}/certs", "http://169.254.169.254/", "file:///etc/passwd", "/certs", 5, None):
        site({WELL_KNOWN: {"issuer": peer.url, "jwks_uri": uri}, "/certs": jwks_of("one")})
        reason, why = ask(Issuers(issuers.clock, 4).keys(discovered()))
        assert reason is SOURCE_UNREACHABLE
        assert "origin" in why
    assert elsewhere.requests == []
    assert set(peer.paths()) == {WELL_KNOWN}


@pytest.mark.parametrize(
    "metadata", [b"", b"<html>", b"[]", b'{"issuer": "a", "issuer": "b"}', b"[" * 100_000, b"x" * 300_000]
)
def test_garbage_for_metadata_is_a_failure(metadata, issuers, discovered, ask, site):
    site({WELL_KNOWN: metadata})
    assert ask(issuers.keys(discovered()))[0] is SOURCE_UNREACHABLE


def test_metadata_are_kept_like_keys(issuers, discovered, ask, site, jwks_of, peer):
    site({WELL_KNOWN: {"issuer": peer.url, "jwks_uri": f"{peer.url}/certs"}, "/certs": jwks_of("one")}, Age="9")
    keys = issuers.keys(discovered())
    ask(keys)
    issuers.clock.now += 250
    ask(keys, "unknown")
    issuers.clock.now += 60
    ask(keys, "unknown")
    assert peer.paths() == [WELL_KNOWN, "/certs", "/certs", WELL_KNOWN, "/certs"]


def test_metadata_are_read_again_when_the_keys_have_moved(issuers, discovered, ask, site, jwks_of, peer):
    metadata = {"issuer": peer.url, "jwks_uri": f"{peer.url}/certs"}
    site({WELL_KNOWN: metadata, "/certs": jwks_of("one")})
    keys = issuers.keys(discovered())
    ask(keys)
    site({WELL_KNOWN: {**metadata, "jwks_uri": f"{peer.url}/new-certs"}, "/new-certs": jwks_of("new")})
    issuers.clock.now += 50
    assert ask(keys, "new")[0] is SOURCE_UNREACHABLE
    assert ask(keys) == "one"
    issuers.clock.now += 2
    assert ask(keys, "new") == "new"
    assert peer.paths() == [WELL_KNOWN, "/certs", "/certs", WELL_KNOWN, "/new-certs"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [5]}', b"x" * 300_000]
)
def test_garbage_for_keys_is_a_failure_that_leaves_the_good_ones(body, issuers, issuer, ask, site, jwks_of, until):
    """JK-07."""
    site({"/jwks": jwks_of("one")})
    keys = issuers.keys(issuer())
    ask(keys)
    site({"/jwks": body})
    issuers.clock.now += 290
    assert ask(keys) == "one"
    until(lambda: keys._flight is None)
    assert keys.trouble
    assert ask(keys) == "one"


def test_keys_that_come_and_go_are_followed(issuers, issuer, ask, site, jwks_of):
    both = jwks_of("old", "new")
    old, new = ({"keys": [key]} for key in both["keys"])
    keys = issuers.keys(issuer())
    for document, known, unknown in ((old, ["old"], ["new"]), (both, ["old", "new"], []), (new, ["new"], ["old"])):
        site({"/jwks": document})
        issuers.clock.now += 301
        assert [ask(keys, kid) for kid in known] == known
        assert [ask(keys, kid)[0] for kid in unknown] == [UNKNOWN_KEY] * len(unknown)


def test_a_content_type_decides_nothing(issuers, issuer, ask, site, jwks_of):
    site({"/jwks": jwks_of("one")}, Content_Type="text/plain")
    assert ask(issuers.keys(issuer())) == "one"
