"""Clients that are identified by their network address: our Unix socket, this host, or a protected network."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from sts.clients.client import UNIX, ClientSettings, Network, PeerNetwork, within
from sts.clients.proof import unproven
from sts.model import Caller, Evidence

_UID: Final = 2**32 - 2  # 2**32 - 1 means "none" to the kernel


class NetworkClient(ClientSettings):
    """A client without a secret, identified by its network address only."""

    auth: Literal["network"]
    """No secret: the socket's peer only. Our Unix socket, by the user of the peer; at `/token` also this host."""
    networks: Annotated[tuple[PeerNetwork, ...], Field(min_length=1)]
    """The addresses of the client: `unix`, and for `/token` loopback addresses; others with `transport: ipsec`."""
    uids: Annotated[tuple[Annotated[int, Field(ge=0, le=_UID, strict=True)], ...], Field(min_length=1)] | None = None
    """The user ids (numbers) of its processes; required if `networks` contains `unix`."""
    transport: Literal["ipsec"] | None = None
    """Required for addresses beyond loopback: it confirms that the network authenticates senders (IPsec, WireGuard)."""

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        if (UNIX in self.networks) != (self.uids is not None):
            raise ValueError("`unix` among the networks and `uids` go together: which users are the client")
        if self.transport is None and not all(isinstance(one, str) or one.is_loopback for one in self.networks):
            raise ValueError(
                "addresses beyond loopback prove no identity: write `transport: ipsec` if the network proves the sender"
            )
        for one in self.networks:
            if not isinstance(one, str) and one.prefixlen == 0:
                raise ValueError(f"{one} contains every address: write the addresses that the client calls from")
        if self.profile is not None and UNIX not in self.networks:
            raise ValueError("forward-auth accepts a client without a secret only from our Unix socket")
        return self


class NetworkProof:
    """The `Proof` of a client by network address."""

    evidence: Evidence = "connection"

    def __init__(self, settings: NetworkClient) -> None:
        self._networks: tuple[Network | str, ...] = settings.networks
        self._uids = frozenset(settings.uids or ())

    def prove(self, caller: Caller, now: float) -> None:  # noqa: ARG002 - Proof
        """Verify the address of the peer (see `Proof`).

        A proxy on this host makes every remote caller a peer on this host. A forwarding header reveals the proxy; a
        proxy that adds no such header is not detected, which the documentation must state.
        """
        peer = caller.peer
        if not within(peer, self._networks):
            raise unproven("peer outside the client's networks", peer=peer.address)
        if peer.unix:
            if peer.uid is None or peer.uid not in self._uids:
                raise unproven("another user of the Unix socket", uid=peer.uid)
        elif caller.door == "forward_auth":
            raise unproven("forward-auth accepts this client only from our Unix socket", peer=peer.address)
        if caller.door == "token" and caller.forwarded:
            raise unproven("the request has a forwarding header of a proxy", peer=peer.address)
