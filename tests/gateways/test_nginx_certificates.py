"""nginx that asks its clients for certificates, with the shipped configuration, in front of the real service."""

import ssl
import time
from urllib.parse import quote

import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness import CLIENT, Service, minimal
from pki import PARTNERS, URI, Authority, hostile

from scripts.nginx import Nginx

SECRET = "edge-gateway-secret-for-tests-only"
NAME = "api.example.com"


@pytest.fixture(scope="module")
def ca():
    return Authority("Partner CA", now=time.time())


@pytest.fixture(scope="module")
def guarded(ca, idp, tmp_path_factory):
    """The service with a source of certificates that its gateway may hand on; `revoked` is one that is."""
    directory = tmp_path_factory.mktemp("guarded")
    config = yaml.safe_load(minimal(idp))
    config["sources"]["corporate-idp"].update(audiences=["*"], namespace="")
    config["sources"]["partners"] = PARTNERS
    config["clients"][CLIENT].update(sources=["*"], may_present=["partners"], certificate_header="nginx")
    revoked = ca.issue("revoked")
    (directory / "partner-ca.pem").write_text(ca.pem)
    (directory / "partner.crl.pem").write_bytes(ca.crl(revoked))
    running = Service(directory, yaml.safe_dump(config))
    running.revoked = revoked
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def server_ca():
    return Authority("Server CA", now=time.time())


@pytest.fixture
def port(nginx_program, guarded, dead_port, backend, ca, server_ca, tmp_path):
    server = server_ca.issue(NAME, uris=(), dns=[NAME], purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
    (tmp_path / "api.pem").write_text(server.pem)
    (tmp_path / "api.key").write_text(server.key_pem)
    (tmp_path / "partner-ca.pem").write_text(ca.pem)
    services, behind = [dead_port, guarded.port], backend.port
    with Nginx(nginx_program, tmp_path, services=services, backend=behind, secret=SECRET, tls=tmp_path) as running:
        yield running.port


@pytest.fixture
def ask(port, server_ca, send, tmp_path):
    """Send a request through nginx with somebody's certificate."""

    def ask(holder=None, headers="", target="/orders/1"):
        tls = ssl.create_default_context(cadata=server_ca.pem)
        if holder is not None:
            file = tmp_path / "client.pem"
            file.write_text(holder.pem + holder.key_pem)
            tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # a hostile client has no scruples about its key
            tls.load_cert_chain(file)
        head = f"GET {target} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n{headers}\r\n"
        return send(port, head.encode("latin-1"), tls=(tls, NAME))

    return ask


def internal(service, seen):
    return service.verified(seen["headers"]["authorization"].removeprefix("Bearer "))


def test_a_partners_certificate_becomes_an_internal_token(ask, guarded, ca):
    """CC-07."""
    seen = ask(ca.issue()).seen
    assert internal(guarded, seen)["sub"] == f"partner|{URI}"
    assert not [name for name in seen["headers"] if "cert" in name or "ssl" in name]


def test_who_has_no_certificate_brings_a_token(ask, guarded, idp):
    assert internal(guarded, ask(headers=f"Authorization: Bearer {idp.token()}\r\n").seen)["sub"] == "alice"
    assert ask().header("x-auth-reason") == "missing_credential"


def test_beside_a_token_the_certificate_is_no_credential(ask, guarded, idp, ca):
    seen = ask(ca.issue(), headers=f"Authorization: Bearer {idp.token()}\r\n").seen
    assert internal(guarded, seen)["sub"] == "alice"


@pytest.mark.parametrize("own", [True, False])
def test_a_forged_header_does_not_reach_the_service(ask, guarded, ca, own):
    """CC-03: whoever connects cannot say whose certificate it was."""
    victim = ca.issue("victim", uris=["spiffe://partners.example/victim"])
    forged = f"X-SSL-Client-Cert: {quote(victim.pem, safe='')}\r\nX-SSL-Client-Verify: SUCCESS\r\n"
    forged += "X-Forwarded-Client-Cert: By=x\r\nClient-Cert: ::\r\n"
    answer = ask(ca.issue() if own else None, headers=forged)
    if own:
        assert internal(guarded, answer.seen)["sub"] == f"partner|{URI}"
        assert not [name for name in answer.seen["headers"] if "cert" in name or "ssl" in name]
    else:
        assert answer.header("x-auth-reason") == "missing_credential"


def test_a_revoked_certificate_is_refused(ask, guarded):
    answer = ask(guarded.revoked)
    assert (answer.status, answer.header("x-auth-reason")) == (401, "invalid_credential")
    assert guarded.events()[-1]["reason"] == "revoked"


def test_what_nginx_takes_and_we_do_not_is_refused(ask, guarded, ca):
    """CC-11: nginx looks at the chain, and at nothing else."""
    shapes = hostile(ca)
    for shape in ("a CA's", "with two SANs", "beyond the prefix"):
        holder, reason = shapes[shape]
        assert ask(holder).status == 401
        assert guarded.events()[-1]["reason"] == reason


@pytest.mark.parametrize("shape", ["of another CA", "expired", "for servers only", "with a weak key", "self-signed"])
def test_what_nginx_does_not_take_never_reaches_us(ask, guarded, ca, shape):
    before = len(guarded.events())
    holder, _ = hostile(ca)[shape]
    assert ask(holder).status == 400
    assert len(guarded.events()) == before
