"""Clients that prove themselves by where they are: on our Unix socket, on this host, or on a protected network."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from sts.clients.client import UNIX, ClientSettings, Network, PeerNetwork, within
from sts.clients.proof import unproven
from sts.model import Caller, Evidence

_UID: Final = 2**32 - 2  # 2**32 - 1 means "none" to the kernel


class NetworkClient(ClientSettings):
    """A client without a secret: whoever reaches us from there is it."""

    auth: Literal["network"]
    """No secret: the socket's peer alone. Our Unix socket, by the user at its other end; at `/token` also this host."""
    networks: Annotated[tuple[PeerNetwork, ...], Field(min_length=1)]
    """From where it calls: `unix`, and for `/token` loopback addresses; others with `transport: ipsec`."""
    uids: Annotated[tuple[Annotated[int, Field(ge=0, le=_UID, strict=True)], ...], Field(min_length=1)] | None = None
    """As which users (numbers) its processes run; must be written where `networks` has `unix`."""
    transport: Literal["ipsec"] | None = None
    """Must be written for addresses beyond loopback: the network itself proves who sends (IPsec, WireGuard)."""

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        if (UNIX in self.networks) != (self.uids is not None):
            raise ValueError("`unix` among the networks and `uids` go together: which users are the client")
        if self.transport is None and not all(isinstance(one, str) or one.is_loopback for one in self.networks):
            raise ValueError(
                "addresses beyond loopback prove nobody unless the network does: write `transport: ipsec` if it does"
            )
        for one in self.networks:
            if not isinstance(one, str) and one.prefixlen == 0:
                raise ValueError(f"{one} is everybody: write the addresses that the client calls from")
        if self.profile is not None and UNIX not in self.networks:
            raise ValueError("forward-auth takes a client without a secret from our Unix socket alone")
        return self


class NetworkProof:
    """A client's place as its `Proof`."""

    evidence: Evidence = "connection"

    def __init__(self, settings: NetworkClient) -> None:
        self._networks: tuple[Network | str, ...] = settings.networks
        self._uids = frozenset(settings.uids or ())

    def prove(self, caller: Caller, now: float) -> None:  # noqa: ARG002 - Proof
        """As Proof says.

        A proxy on this host is a peer on this host for the whole world. Any header that proxies add gives it away;
        one that adds none is not seen, which the documentation must say.
        """
        peer = caller.peer
        if not within(peer, self._networks):
            raise unproven("peer outside the client's networks", peer=peer.address)
        if peer.unix:
            if peer.uid is None or peer.uid not in self._uids:
                raise unproven("another user of the Unix socket", uid=peer.uid)
        elif caller.door == "forward_auth":
            raise unproven("forward-auth takes it from our Unix socket alone", peer=peer.address)
        if caller.door == "token" and caller.forwarded:
            raise unproven("a forwarding header: somebody stands between", peer=peer.address)
