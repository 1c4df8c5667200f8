"""What every client's settings hold, however it proves itself."""

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
"""An address range of the socket's peer, or `unix` for our own Unix socket."""


def within(peer: Peer, networks: tuple[Network | str, ...]) -> bool:
    """Whether the socket's peer is in one of `networks`.

    For a gateway on the same host this says "from this host" and no more; a forwarded address is never looked at.
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
    """One gateway that may ask for tokens."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"gateway_cache", "may_vouch"})
    has_forward_auth: ClassVar[bool] = True
    """Whether a client that proves itself so can do it at forward-auth at all."""

    auth: str

    enabled: bool = True
    """`false` refuses the client from the next reload on and voids the tokens it has in the cache."""
    networks: Annotated[tuple[PeerNetwork, ...], Field(min_length=1)] | None = None
    """Addresses of the socket's peer from which the client may call, in addition to its proof; `unix` is our socket."""
    audiences: Names
    """Which audiences it may ask for; `["*"]` for all."""
    sources: Names | None = None
    """Which sources' credentials it may hand in; `["*"]` for all. Must be written once there are several sources."""
    backend_of: Names = ()
    """Audiences whose backend this client is: it may introspect and exchange tokens that were minted for them."""
    actors: Names = ()
    """Sources whose credentials it may bring as `actor_token` where the subject's own does not say who may act for it
    (`may_act`); `["*"]` for all. Default: none, such a request is refused (docs/delegation.md)."""
    default_audience: Name | None = None
    """The audience of a request that names none."""
    may_present: Names = ()
    """Sources whose certificates it may hand on, having done the TLS handshake with their holder itself."""
    certificate_header: Literal["client_cert", "xfcc", "nginx"] | None = None
    """In which one form its forward-auth requests hand a certificate on: `client_cert` (RFC 9440 `Client-Cert`), `xfcc`
    (Envoy's `X-Forwarded-Client-Cert`) or `nginx` (`X-SSL-Client-Cert` and `X-SSL-Client-Verify`)."""
    profile: str | None = None
    """Which header names its forward-auth requests use: `nginx`. Without it the client has no forward-auth door."""

    @property
    def handshake_ca(self) -> KeptFile | None:
        """The CA whose certificates it presents in a TLS handshake with us, None if it presents none."""
        return None

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the files that it names: the key of each, and a sentence."""
        yield from ()
