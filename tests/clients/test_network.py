"""Clients that are known by where they are."""

import pytest
from pydantic import ValidationError

from sts.clients.network import NetworkClient
from sts.model import Caller, Client, Peer


def client(**settings):
    written = {"auth": "network", "audiences": ["orders"], "networks": ["unix"], "uids": [998]}
    return NetworkClient.model_validate({name: one for name, one in {**written, **settings}.items() if one is not None})


LOCAL = {"networks": ["127.0.0.0/8", "::1/128"], "uids": None}


def caller(peer, door="token", **more):
    return Caller(door, "gateway", None, peer, **more)


@pytest.mark.parametrize("door", ["token", "forward_auth"])
def test_the_user_at_the_other_end_of_our_socket_is_the_client(proven, door):
    settings = client(uids=[998, 999], profile="nginx")
    for uid in (998, 999):
        assert isinstance(proven(settings, caller(Peer("", unix=True, uid=uid), door)), Client)
    for uid in (0, 997, None):
        assert proven(settings, caller(Peer("", unix=True, uid=uid), door))["why"] == "another user of the Unix socket"
    assert "networks" in proven(settings, caller(Peer("127.0.0.1"), door))["why"]


def test_this_host_is_enough_at_the_token_door_only(proven):
    settings = client(**LOCAL)
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert isinstance(proven(settings, caller(Peer(address))), Client)
        facts = proven(settings, caller(Peer(address), "forward_auth"))
        assert facts["why"] == "forward-auth accepts this client only from our Unix socket"
    for peer in (Peer("10.0.0.1"), Peer(""), Peer("", unix=True, uid=998)):
        assert "networks" in proven(settings, caller(peer))["why"]


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0"])
def test_the_network_of_all_addresses_is_no_place(everybody):
    with pytest.raises(ValidationError, match="contains every address"):
        client(networks=["10.0.0.0/8", everybody], uids=None, transport="ipsec")


@pytest.mark.parametrize("settings", [LOCAL, {}, {"networks": ["10.0.0.0/8"], "uids": None, "transport": "ipsec"}])
def test_any_forwarding_header_gives_a_proxy_away(proven, settings):
    peer = Peer("", unix=True, uid=998) if not settings else Peer("127.0.0.1" if settings is LOCAL else "10.1.1.1")
    assert isinstance(proven(client(**settings), caller(peer)), Client)
    assert "forwarding header" in proven(client(**settings), caller(peer, forwarded=True))["why"]


def test_the_users_of_a_unix_gateway_may_send_what_they_like_to_forward_auth(proven):
    """The end user's own headers come along there; what says who the gateway is, is its user id."""
    there = caller(Peer("", unix=True, uid=998), "forward_auth", forwarded=True)
    assert isinstance(proven(client(profile="nginx"), there), Client)


def test_a_secret_or_a_token_beside_the_place_is_another_way(proven):
    for more in ({"assertion": "x"}, {"bearer": "x"}):
        assert "way of authentication" in proven(client(), caller(Peer("", unix=True, uid=998), **more))["why"]
    secret = Caller("token", "gateway", "x", Peer("", unix=True, uid=998))
    assert "way of authentication" in proven(client(), secret)["why"]


@pytest.mark.parametrize(
    "written",
    [
        {"uids": None},
        {"networks": ["127.0.0.0/8"]},
        {"networks": None},
        {"networks": []},
        {"networks": ["unix", "10.0.0.0/8"]},
        {"networks": ["0.0.0.0/0"], "uids": None},
        {"networks": ["127.0.0.0/7"], "uids": None},
        {"networks": ["::/0"], "uids": None},
        {"uids": []},
        {"uids": [-1]},
        {"uids": [2**32 - 1]},
        {"uids": ["998"]},
        {"uids": [True]},
        {"transport": "mesh"},
        {"networks": ["127.0.0.0/8"], "uids": None, "profile": "nginx"},
    ],
)
def test_a_place_that_proves_nobody_is_a_fault(written):
    with pytest.raises(ValidationError):
        client(**written)
