"""Who may call, and how alike all refusals are."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from sts.clients.client import within
from sts.clients.failures import Failures
from sts.clients.registry import Clients
from sts.clients.secret import SecretClient, digest
from sts.errors import Refusal
from sts.model import Caller, Peer

LOCAL = Peer("127.0.0.1")


def client(**settings):
    written = {"auth": "secret", "secrets": [digest("first")], "audiences": ["orders"], "profile": "nginx"}
    return SecretClient.model_validate({**written, **settings})


def prove(settings, secret="first", client_id="gateway", peer=LOCAL, door="token"):
    return Clients({"gateway": settings}, Failures(lambda: 0.0)).prove(Caller(door, client_id, secret, peer))


def refused(settings, **call):
    with pytest.raises(Refusal) as caught:
        prove(settings, **call)
    return caught.value


def test_the_right_secret_proves_the_client():
    proven = prove(client())
    assert (proven.id, proven.audiences, proven.profile) == ("gateway", frozenset({"orders"}), "nginx")


def test_a_client_that_lists_no_sources_has_all_of_them():
    assert prove(client()).sources == {"*"}
    assert prove(client(sources=["idp"])).sources == {"idp"}


@pytest.mark.parametrize("secret", ["first", "second"])
def test_two_secrets_are_live_at_once(secret):
    prove(client(secrets=[digest("first"), digest("second")]), secret=secret)


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({}, {"secret": "wrong"}),
        ({}, {"secret": ""}),
        ({}, {"secret": None}),
        ({}, {"secret": digest("first")}),
        ({}, {"secret": "\udcff"}),
        ({}, {"client_id": "unknown"}),
        ({}, {"client_id": ""}),
        ({"enabled": False}, {}),
        ({"networks": ["10.0.0.0/8"]}, {}),
        ({"networks": ["unix"]}, {}),
        ({"profile": None}, {"door": "forward_auth"}),
    ],
)
def test_every_refusal_of_a_client_is_the_same_to_the_caller(settings, call):
    """EP-07: which check failed stands in the audit alone."""
    refusal = refused(client(**settings), **call)
    assert refusal.reason.name == "client_refused"
    assert "first" not in str(refusal.facts)


def test_an_all_zero_digest_is_no_open_door():
    """An unknown client is compared with zeros so that it costs the same; zeros must never match."""
    zeros = client(secrets=["sha256:" + "0" * 64])
    for secret in ("", "\0" * 32, "0" * 64):
        assert refused(zeros, secret=secret).reason.name == "client_refused"


def test_no_secret_is_no_secret_even_where_the_configuration_has_the_digest_of_an_empty_one():
    for secret in (None, ""):
        assert refused(client(secrets=[digest("")]), secret=secret).reason.name == "client_refused"


@pytest.mark.parametrize("written", ["plain-text", "sha256:XYZ", "sha1:" + "0" * 64, "sha256:" + "A" * 64])
def test_a_secret_that_is_not_written_as_its_digest_is_refused_at_load(written):
    with pytest.raises(ValidationError):
        client(secrets=[written])


def test_three_secrets_or_none_are_refused_at_load():
    for written in ([], [digest("a"), digest("b"), digest("c")]):
        with pytest.raises(ValidationError):
            client(secrets=written)


@pytest.mark.parametrize(
    ("peer", "networks", "inside"),
    [
        (Peer("10.1.2.3"), (ip_network("10.0.0.0/8"),), True),
        (Peer("11.1.2.3"), (ip_network("10.0.0.0/8"),), False),
        (Peer("::ffff:10.1.2.3"), (ip_network("10.0.0.0/8"),), True),
        (Peer("::1"), (ip_network("::1/128"),), True),
        (Peer("", unix=True), ("unix",), True),
        (Peer("", unix=True), (ip_network("0.0.0.0/0"),), False),
        (Peer("127.0.0.1"), ("unix",), False),
        (Peer("unix"), ("unix",), False),
        (Peer("nonsense"), (ip_network("0.0.0.0/0"),), False),
    ],
)
def test_networks_mean_the_sockets_peer(peer, networks, inside):
    """FA-09."""
    assert within(peer, networks) is inside
