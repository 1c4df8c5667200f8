"""Who may hand a caller's certificate on to `/token`: each factor missing (CC-09)."""

import base64
import hashlib
from ipaddress import ip_network

import pytest
from pki import Authority
from pydantic import ValidationError

from sts.edge.certificate_headers import Proxies, ProxySettings
from sts.errors import MALFORMED
from sts.model import Incoming, Peer

LEAF, OWN = (Authority().issue(name) for name in ("caller", "proxy"))
SECRET = "proxy-secret-for-tests"
HEADER = {"client-cert": f":{base64.b64encode(LEAF.der).decode()}:"}
SETTINGS = ProxySettings(
    networks=(ip_network("10.0.0.0/8"),),
    secrets=("sha256:" + hashlib.sha256(SECRET.encode()).hexdigest(),),
    certificate_header="client_cert",
)


def peer(headers, address="10.0.0.1", proxies=(SETTINGS,), certificates=(), *, unix=False):
    sender = Peer(address, unix=unix, certificates=certificates)
    return Proxies(proxies).peer(Incoming("POST", "/token", headers, sender, "r1"))


def test_a_proxy_hands_its_callers_certificate_on():
    """CC-03."""
    found = peer({"x-gateway-secret": SECRET, **HEADER}, certificates=(OWN.der,))
    assert found.certificates == (LEAF.der,)
    assert found.address == "10.0.0.1"


def test_a_proxys_own_certificate_is_never_its_callers():
    assert peer({"x-gateway-secret": SECRET}, certificates=(OWN.der,)).certificates == ()


@pytest.mark.parametrize("secret", ["wrong", f"users-own,{SECRET}", f"{SECRET},{SECRET}"])
def test_a_secret_that_a_user_has_spoilt_makes_no_proxys_certificate_the_users(secret):
    """Envoy adds its header to one that is there already, unless it is told otherwise."""
    assert peer({"x-gateway-secret": secret}, certificates=(OWN.der,)).certificates == ()


@pytest.mark.parametrize(
    "sender",
    [
        {"headers": HEADER},
        {"headers": {"x-gateway-secret": "wrong", **HEADER}},
        {"headers": {"x-gateway-secret": "", **HEADER}},
        {"headers": {"x-gateway-secret": f"{SECRET},{SECRET}", **HEADER}},
        {"headers": {"x-gateway-secret": SECRET, **HEADER}, "address": "11.0.0.1"},
        {"headers": {"x-gateway-secret": SECRET, **HEADER}, "address": "", "unix": True},
        {"headers": {"x-gateway-secret": SECRET, **HEADER}, "proxies": ()},
        {"headers": {"x-gateway-secret": SECRET, "x-forwarded-client-cert": "By=x"}},
        {"headers": {"x-forwarded-client-cert": "By=x"}, "proxies": ()},
    ],
    ids=["no secret", "wrong", "empty", "doubled", "network", "unix", "none configured", "another form", "anybody"],
)
def test_from_anybody_else_a_certificate_header_is_refused(sender, refused):
    """CC-03, CC-09, CC-10."""
    with refused(MALFORMED):
        peer(**sender)


def test_who_is_no_proxy_has_its_own_certificate():
    assert peer({}, certificates=(OWN.der,)).certificates == (OWN.der,)
    elsewhere = peer({"x-gateway-secret": "wrong"}, "11.0.0.1", certificates=(OWN.der,))
    assert elsewhere.certificates == (OWN.der,)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_everybody_is_no_proxy(network):
    """Lesson 3.4: headers are taken from networks that are written, and all addresses are none."""
    given = SETTINGS.model_dump()
    with pytest.raises(ValidationError, match="contains all addresses"):
        ProxySettings(**given | {"networks": [network]})
    assert ProxySettings(**given | {"networks": ["0.0.0.0/1", "unix"]})
