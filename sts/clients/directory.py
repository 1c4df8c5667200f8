"""Everybody who may call, and the one place where a `Client` comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sts.clients.client import within
from sts.clients.secret import SecretClient, matches
from sts.errors import CLIENT_REFUSED, Refusal
from sts.model import Caller, Client

EVERY: Final = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class Clients:
    """The configured clients by id, disabled ones included."""

    settings: Mapping[str, SecretClient]

    def prove(self, caller: Caller) -> Client:
        """Identify the caller, prove it and admit it.

        Raises CLIENT_REFUSED, one and the same for an unknown client, a wrong secret, a disabled client, a peer
        outside its networks and, at forward-auth, a client without a profile: which one it was stands in the audit.
        """
        settings = self.settings.get(caller.unverified_client_id)
        proven = caller.secret is not None and matches(caller.secret, settings)
        if settings is None:
            raise Refusal(CLIENT_REFUSED, why="unknown client")
        if not proven:
            raise Refusal(CLIENT_REFUSED, why="no secret" if caller.secret is None else "wrong secret")
        if not settings.enabled:
            raise Refusal(CLIENT_REFUSED, why="client is disabled")
        if settings.networks is not None and not within(caller.peer, settings.networks):
            raise Refusal(CLIENT_REFUSED, why="peer outside the client's networks", peer=caller.peer.address)
        if caller.door == "forward_auth" and settings.profile is None:
            raise Refusal(CLIENT_REFUSED, why="client has no profile")
        return Client(
            id=caller.unverified_client_id,
            audiences=frozenset(settings.audiences),
            sources=EVERY if settings.sources is None else frozenset(settings.sources),
            default_audience=settings.default_audience,
            profile=settings.profile,
        )
