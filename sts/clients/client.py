"""The common settings of all clients, for every method of authentication."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from sts.model import Peer
from sts.options import KeptFile, Name, Names, Section

UNIX: Final = "unix"
Network = IPv4Network | IPv6Network


def _parse_network(value: object) -> object:
    if value == UNIX or isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if isinstance(value, str):
            return ip_network(value)
        raise ValueError  # noqa: TRY301 - a number would be read as an address
    except ValueError:
        raise ValueError('a network is an address range such as "10.0.0.0/8" (no host bits), or "unix"') from None


PeerNetwork = Annotated[
    IPv4Network | IPv6Network | str,
    BeforeValidator(_parse_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.0/8", UNIX]}),
]
"""An address range of the socket's peer, or `unix` for the service's Unix socket."""


def within(peer: Peer, networks: tuple[Network | str, ...]) -> bool:
    """Return whether the socket's peer is in one of `networks`.

    For a gateway on the same host this proves only "from this host". A forwarded address is never used.
    """
    if peer.unix:
        return UNIX in networks
    try:
        address = ip_address(peer.address)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(not isinstance(network, str) and mapped in network for network in networks)


class ClientSettings(Section):
    """One gateway that may request tokens."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"gateway_cache", "may_vouch"})
    has_forward_auth: ClassVar[bool] = True
    """Whether this method of authentication is possible at forward-auth."""

    auth: str

    enabled: bool = True
    """`false` refuses the client from the next reload on, and invalidates its tokens in the cache."""
    networks: Annotated[tuple[PeerNetwork, ...], Field(min_length=1)] | None = None
    """Addresses of the socket's peer from which the client may call, in addition to its proof; `unix`: our socket."""
    audiences: Names
    """Which audiences it may request; `["*"]` for all."""
    sources: Names | None = None
    """The sources whose credentials it may present; `["*"]` for all. Required if there are several sources."""
    backend_of: Names = ()
    """The audiences of which this client is the backend: it may introspect and exchange tokens minted for them."""
    actors: Names = ()
    """Sources whose credentials it may present as `actor_token` if the subject's credential does not name an actor
    (`may_act`); `["*"]` for all. Default: none, such a request is refused (docs/delegation.md)."""
    default_audience: Name | None = None
    """The audience of a request that names none."""
    may_present: Names = ()
    """Sources whose certificates it may forward, after it did the TLS handshake with the holder."""
    certificate_header: Literal["client_cert", "xfcc", "nginx"] | None = None
    """The one header in which its forward-auth requests forward a certificate: `client_cert` (RFC 9440 `Client-Cert`),
    `xfcc` (Envoy's `X-Forwarded-Client-Cert`) or `nginx` (`X-SSL-Client-Cert` and `X-SSL-Client-Verify`)."""
    profile: str | None = None
    """The header names of its forward-auth requests, for example `nginx`. Without it the client has no forward-auth."""

    @property
    def handshake_ca(self) -> KeptFile | None:
        """The CA of the certificate that it presents in a TLS handshake with us, None if it presents none."""
        return None

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from ()
