"""Who is at the other end of the socket."""

import os
import socket
from ipaddress import ip_network

import pytest

from sts.edge.form import PEER, correlation_id, is_operator, peer_of
from sts.model import Peer

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"), "unix")


@pytest.fixture
def connections(tmp_path):
    """The server's ends of a TCP connection, and of a Unix one whose client named its own end like an address."""
    opened = []

    def connect(family, address, own=None):
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen(1)
            client = socket.socket(family)
            if own is not None:
                client.bind(own)
            client.connect(listener.getsockname())
            server, name = listener.accept()
        opened.extend([client, server])
        return server, name

    yield {
        "tcp": connect(socket.AF_INET, ("127.0.0.1", 0)),
        "unix": connect(socket.AF_UNIX, str(tmp_path / "sts.sock"), own=str(tmp_path / "10.0.0.1")),
    }
    for one in opened:
        one.close()


def test_the_peer_is_the_sockets(connections):
    server, (address, _) = connections["tcp"]
    assert peer_of(server, (address, 1)) == Peer("127.0.0.1")


def test_a_unix_peer_cannot_choose_an_address_for_itself(connections):
    server, name = connections["unix"]
    assert name.endswith("10.0.0.1")
    assert peer_of(server, name) == Peer("", unix=True, uid=os.getuid())


def test_operators_are_told_by_their_network(connections):
    assert is_operator({PEER: Peer("127.0.0.1")}, LOOPBACK)
    assert is_operator({PEER: Peer("::1")}, LOOPBACK)
    assert is_operator({PEER: peer_of(*connections["unix"])}, LOOPBACK)
    assert not is_operator({PEER: peer_of(*connections["unix"])}, LOOPBACK[:2])
    assert not is_operator({PEER: Peer("192.0.2.7")}, LOOPBACK)
    assert not is_operator({PEER: Peer("")}, LOOPBACK)
    assert not is_operator({}, LOOPBACK)
    assert not is_operator({PEER: Peer("127.0.0.1")}, ())


@pytest.mark.parametrize(
    "header",
    [
        "FORWARDED",
        "VIA",
        "X_REAL_IP",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_ORIGINAL_ADDR",
        "X_ENVOY_EXTERNAL_ADDRESS",
        "X_GATEWAY_SECRET",
        "CLIENT_CERT",
        "X_SSL_CLIENT_VERIFY",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_nobody_is_an_operator_through_a_forwarding_header(header, value):
    assert not is_operator({PEER: Peer("127.0.0.1"), f"HTTP_{header}": value}, LOOPBACK)
    assert not is_operator({PEER: Peer("192.0.2.7"), f"HTTP_{header}": value}, LOOPBACK)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a-B_9.x", "a-B_9.x"),
        ("x" * 128, "x" * 128),
        ("x" * 129, ""),
        ("a b", ""),
        ("a,b", ""),
        ("", ""),
        ("é", ""),
        ("a\n", ""),
    ],
)
def test_a_correlation_id_is_a_label_of_plain_characters(value, label):
    assert correlation_id({"x-request-id": value}) == label
    assert correlation_id({}) == ""
