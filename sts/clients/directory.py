"""Everybody who may call, and the one place where a `Client` comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sts.clients.client import within
from sts.clients.failures import Failures
from sts.clients.secret import NOBODY, SecretClient, live, matches
from sts.errors import Refusal
from sts.model import Caller, Client

EVERY: Final = frozenset({"*"})


class Clients:
    """The configured clients by id, disabled ones included. `failures` outlives a reload."""

    def __init__(self, settings: Mapping[str, SecretClient], failures: Failures) -> None:
        self._settings = settings
        self._live = {client_id: live(one) for client_id, one in settings.items()}
        self._failures = failures

    def knows(self, caller: Caller) -> bool:
        """Whether the caller names a configured client; proves nothing."""
        return caller.unverified_client_id in self._settings

    def prove(self, caller: Caller) -> Client:
        """Identify the caller, prove it and admit it.

        Raises CLIENT_REFUSED, one and the same for an unknown client, a wrong secret, a disabled client, a peer
        outside its networks and, at forward-auth, a client without a profile: which one it was stands in the audit.
        After too many of them, whichever they were, it is CLIENT_LIMITED; who passes is never counted or limited.
        """
        client_id = caller.unverified_client_id
        # An unknown client costs the same comparisons: the time of the answer must not tell it (RFC 6749 §2.3.1).
        proven = matches(caller.secret or "", self._live.get(client_id, NOBODY)) and bool(caller.secret)
        settings = self._settings.get(client_id)
        if not proven or settings is None:
            raise self._unproven(caller)
        if not settings.enabled:
            raise self._failures.refusal(caller, "client is disabled")
        if settings.networks is not None and not within(caller.peer, settings.networks):
            raise self._failures.refusal(caller, "peer outside the client's networks", peer=caller.peer.address)
        if caller.door == "forward_auth" and settings.profile is None:
            raise self._failures.refusal(caller, "client has no profile")
        return Client(
            id=client_id,
            audiences=frozenset(settings.audiences),
            sources=EVERY if settings.sources is None else frozenset(settings.sources),
            default_audience=settings.default_audience,
            profile=settings.profile,
            backend_of=frozenset(settings.backend_of),
            may_present=frozenset(settings.may_present),
            certificate_header=settings.certificate_header,
        )

    def _unproven(self, caller: Caller) -> Refusal:
        why = "wrong secret" if caller.secret else "no secret"
        return self._failures.refusal(
            caller, why if caller.unverified_client_id in self._settings else "unknown client"
        )
