"""Clients with a certificate (RFC 8705 §2)."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from sts.clients.failures import Failures
from sts.clients.registry import Clients, World
from sts.clients.secret import SecretClient, digest
from sts.clients.tls import TlsClient, TlsProof
from sts.errors import Refusal
from sts.model import Caller, Client, Peer
from sts.options import KeptFile

NOW = 1_800_000_000.0
ID = "spiffe://example.internal/gateway"


def kept(pem):
    return KeptFile(Path("ca.pem"), pem)


def client(**settings):
    return TlsClient.model_validate({"auth": "tls", "audiences": ["orders"], "profile": "nginx", **settings})


def caller(chain, *, door="token", client_id="gateway", **more):
    return Caller(door, client_id, more.pop("secret", None), Peer("127.0.0.1", certificates=chain), **more)


@pytest.fixture
def by_uri(ca):
    return client(ca_file=kept(ca.pem), san_uri=ID)


def pin(chain):
    return "sha256:" + hashlib.sha256(chain[0]).hexdigest()


@pytest.mark.parametrize("door", ["token", "forward_auth"])
def test_the_right_certificate_proves_the_client_at_both_doors(ca, by_uri, proven, door):
    """MT-01."""
    found = proven(by_uri, caller(ca.issue(uris=[ID]), door=door))
    assert isinstance(found, Client)
    assert found.id == "gateway"


def test_a_chain_with_an_intermediate_leads_to_the_ca(ca, make_ca, by_uri, proven):
    below = make_ca("below", above=ca)
    chain = below.issue(uris=[ID])
    assert isinstance(proven(by_uri, caller(chain)), Client)
    assert proven(by_uri, caller(chain[:1]))["fault"] == "bad_signature"


@pytest.mark.parametrize(
    ("written", "issued"),
    [
        ({"san_dns": "Gateway.example.com"}, {"hosts": ["other.example.com", "gateway.EXAMPLE.com"]}),
        ({"subject_dn": "CN=gateway,O=Example\\, Inc."}, {"subject": "CN=gateway,O=Example\\, Inc."}),
    ],
    ids=["a host name", "a subject"],
)
def test_a_client_is_known_by_its_one_configured_name(ca, proven, written, issued):
    """MT-01, MT-02."""
    assert isinstance(proven(client(ca_file=kept(ca.pem), **written), caller(ca.issue(**issued))), Client)


@pytest.mark.parametrize(
    ("written", "issued"),
    [
        ({"san_uri": ID}, {"uris": [ID + "2"]}),
        ({"san_uri": "urn:gateway"}, {"uris": ["urn:Gateway"]}),
        ({"san_uri": "urn:gateway"}, {"uris": ["urn:gateway", "urn:other"]}),
        ({"san_uri": ID}, {"hosts": ["gateway"], "subject": f"CN={ID}"}),
        ({"san_uri": ID}, {"subject": "CN=gateway"}),
        ({"san_dns": "gateway.example.com"}, {"hosts": ["*.example.com"]}),
        ({"san_dns": "gateway.example.com"}, {"subject": "CN=gateway.example.com"}),
        ({"san_dns": "gateway.example.com"}, {"uris": ["https://gateway.example.com"]}),
        ({"subject_dn": "CN=gateway,O=Example"}, {"subject": "O=Example,CN=gateway"}),
        ({"subject_dn": "CN=gateway,O=Example"}, {"subject": "CN=gateway,O=Example,C=DE"}),
        ({"subject_dn": "CN=gateway,O=Example"}, {"subject": "CN=gateway"}),
        ({"subject_dn": "CN=gateway"}, {"subject": "CN=gateway,CN=gateway"}),
        ({"subject_dn": "CN=a+O=b"}, {"subject": "CN=a,O=b"}),
        ({"subject_dn": "CN=gateway,O=Example"}, {"subject": "CN=gateway\\,O\\=Example"}),
    ],
)
def test_every_other_name_of_the_same_ca_is_refused(ca, proven, written, issued):
    """MT-01, MT-02, XC-05."""
    facts = proven(client(ca_file=kept(ca.pem), **written), caller(ca.issue(**issued)))
    assert facts["why"] == "the certificate's name is not the client's"


def test_a_subject_may_be_written_as_openssl_prints_it(ca, proven):
    oids = ("1.2.840.113549.1.9.1=a@b.example", *(f"2.5.4.{number}=x" for number in (4, 5, 9, 12, 42, 46)))
    # what certificates of companies (extended validation, eIDAS) hold
    oids += tuple(f"2.5.4.{number}=x" for number in (15, 17, 43, 44, 65, 97))
    oids += tuple(f"1.3.6.1.4.1.311.60.2.1.{number}=DE" for number in (1, 2, 3))
    chain = ca.issue(subject=",".join([*oids, "CN=Köln", "O=Example\\, Inc.", "C=DE"]))
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253"]
    printed = subprocess.run(command, input=chain[0], capture_output=True, check=True).stdout.decode()
    written = printed.strip().removeprefix("subject=")
    assert "emailAddress=a@b.example,SN=x,serialNumber=x,street=x" in written
    assert isinstance(proven(client(ca_file=kept(ca.pem), subject_dn=written), caller(chain)), Client)


HOSTILE = (
    *("another CA", "another CA of the same name", "over", "not valid yet", "for servers", "for anything"),
    *("for nothing that is said", "with a weak key", "with two SPIFFE ids", "no certificate at all", "nothing"),
    *("itself twice", "a swapped chain"),
)


def hostile(ca, make_ca):
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    return {
        "another CA": make_ca().issue(uris=[ID]),
        "another CA of the same name": make_ca("ca").issue(uris=[ID]),
        "over": ca.issue(uris=[ID], begins=-30, ends=-1),
        "not valid yet": ca.issue(uris=[ID], begins=1),
        "for servers": ca.issue(uris=[ID], purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
        "for nothing that is said": ca.issue(uris=[ID], purposes=[]),
        "for anything": ca.issue(
            uris=[ID], purposes=[ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
        ),
        "with a weak key": ca.issue(uris=[ID], key=weak),
        "with two SPIFFE ids": ca.issue(uris=[ID, "spiffe://example.internal/other"]),
        "no certificate at all": (b"garbage",),
        "nothing": (),
        "itself twice": ca.issue(uris=[ID]) * 2,
        "a swapped chain": (ca.issue(uris=[ID])[0], make_ca().issue(uris=[ID])[0]),
    }


@pytest.mark.parametrize("how", HOSTILE)
def test_a_certificate_that_proves_nothing_is_refused(ca, make_ca, by_uri, proven, how):
    """XC-01, XC-02, XC-04, XC-06."""
    facts = proven(by_uri, caller(hostile(ca, make_ca)[how]))
    assert isinstance(facts, dict), how
    assert ID not in str(facts)


def test_the_ca_s_own_certificate_is_no_client_s(ca, by_uri, proven):
    """XC-03."""
    der = ca.certificate.public_bytes(Encoding.DER)
    assert proven(by_uri, caller((der,)))["fault"] == "bad_type"


def test_a_pinned_certificate_needs_no_ca_and_no_other_one_will_do(ca, make_ca, proven):
    """MT-03."""
    mine, renewed, other = (make_ca(name).issue(subject="CN=g") for name in "abc")
    settings = client(certificates=[pin(mine), pin(renewed)])
    for good in (mine, renewed, (*mine, *renewed)):
        assert isinstance(proven(settings, caller(good)), Client)
    for bad in (other, (other[0], mine[0]), ()):
        assert "certificate" in proven(settings, caller(bad))["why"]
    past = ca.issue(begins=-30, ends=-1)
    assert proven(client(certificates=[pin(past)]), caller(past))["why"].startswith("the certificate has expired")


def test_a_secret_is_not_this_clients_way(ca, by_uri, proven):
    """EP-05: nor does a good certificate help a request that says it authenticates otherwise."""
    for more in ({"secret": "x"}, {"assertion": "x"}, {"bearer": "x"}):
        facts = proven(by_uri, caller(ca.issue(uris=[ID]), **more))
        assert facts["why"] == "not the client's way of authentication"


def test_nobody_else_s_name_is_proven_by_it(ca, by_uri, proven):
    """EP-07: a certificate proves one client, and says nothing of who else is there."""
    assert proven(by_uri, caller(ca.issue(uris=[ID]), client_id="another"))["why"] == "unknown client"


def test_a_disabled_client_and_one_elsewhere_are_refused_with_a_good_certificate(ca, proven):
    for settings in ({"enabled": False}, {"networks": ["10.0.0.0/8"]}):
        facts = proven(client(ca_file=kept(ca.pem), san_uri=ID, **settings), caller(ca.issue(uris=[ID])))
        assert facts["why"] in ("client is disabled", "peer outside the client's networks")


def test_what_was_judged_once_is_judged_again_when_its_time_is_over(ca, by_uri):
    """XC-13."""
    proof, chain = TlsProof(by_uri), ca.issue(uris=[ID], ends=1)
    proof.prove(caller(chain), NOW)
    proof.prove(caller(chain), NOW + 86_000)
    for later in (NOW + 86_401, NOW - 2 * 86_400):
        with pytest.raises(Refusal):
            proof.prove(caller(chain), later)


def test_what_is_kept_of_judgements_is_bounded(ca, by_uri):
    proof = TlsProof(by_uri)
    chain = ca.issue(uris=[ID])
    proof._good.update(dict.fromkeys([(bytes([one, two]),) for one in range(16) for two in range(16)], (0.0, 1.0)))
    proof.prove(caller(chain), NOW)
    assert len(proof._good) == 1


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"san_uri": ID},
        {"ca_file": "ca"},
        {"ca_file": "ca", "san_uri": ID, "san_dns": "a"},
        {"ca_file": "ca", "certificates": ["sha256:" + "0" * 64]},
        {"certificates": ["sha256:" + "0" * 64], "san_uri": ID},
        {"certificates": []},
        {"certificates": ["0" * 64]},
        {"ca_file": "ca", "san_dns": "*.example.com"},
        {"ca_file": "ca", "san_uri": "gateway"},
        {"ca_file": "ca", "subject_dn": "gateway"},
        {"ca_file": "ca", "subject_dn": ""},
    ],
)
def test_exactly_one_way_to_know_the_client_must_be_written(ca, written):
    """MT-01."""
    if "ca_file" in written:
        written = written | {"ca_file": kept(ca.pem)}
    with pytest.raises(ValidationError):
        client(**written)


def test_a_good_certificate_is_no_proof_of_a_client_that_proves_itself_otherwise(ca, by_uri):
    """A stranger costs what the first client with a certificate costs, and what comes of that is not listened to."""
    secret = SecretClient.model_validate({"auth": "secret", "secrets": [digest("x")], "audiences": ["orders"]})
    clients = Clients({"gateway": by_uri, "edge": secret}, Failures(lambda: 0.0), World(clock=lambda: NOW))
    assert clients.prove(caller(ca.issue(uris=[ID]))).id == "gateway"
    for client_id in ("edge", "nobody"):
        with pytest.raises(Refusal) as caught:
            clients.prove(caller(ca.issue(uris=[ID]), client_id=client_id))
        assert caught.value.reason.name == "client_refused"
