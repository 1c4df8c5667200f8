"""Everybody who may call, and the one place where a `Client` comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sts.clients.access_token import AccessTokenClient, AccessTokenProof, Tokens
from sts.clients.assertion import DEFAULT_ALGORITHMS, AssertionClient, AssertionProof
from sts.clients.client import ClientSettings, within
from sts.clients.dummy import DUMMY_KEYS
from sts.clients.failures import Failures
from sts.clients.network import NetworkClient, NetworkProof
from sts.clients.proof import Marks, Once, Proof, is_unproven
from sts.clients.secret import SecretClient, SecretProof, live
from sts.clients.tls import TlsClient, TlsProof
from sts.errors import REPLAYED, STATE_UNAVAILABLE, Refusal, StartError
from sts.model import Caller, Client
from sts.resilience.bulkhead import on_behalf_of
from sts.trust.issuers import Issuer
from sts.trust.remote_jwks import KeySource

EVERY: Final = frozenset({"*"})


@dataclass(frozen=True, slots=True)
class World:
    """What the ways of proving need beside the settings; clients with a secret need none of it.

    `issuer` is our issuer identifier; `keys` gives the keys that a client's settings name; `tokens` proves access
    tokens; `marks` remembers assertions; `clock` is Unix seconds.
    """

    issuer: str = ""
    keys: Callable[[Issuer], KeySource] | None = None
    tokens: Tokens | None = None
    marks: Marks | None = None
    clock: Callable[[], float] = lambda: 0.0

    def proof_of(self, client_id: str, settings: ClientSettings) -> Proof:
        """How one client proves itself. Raises StartError where its files cannot be used."""
        match settings:
            case SecretClient():
                return SecretProof(live(settings))
            case TlsClient():
                return TlsProof(settings)
            case NetworkClient():
                return NetworkProof(settings)
            case AssertionClient() if self.keys is not None:
                keys = self.keys(settings.trusted(client_id))
                return AssertionProof(client_id, self.issuer, keys, settings.algorithms)
            case AccessTokenClient() if self.tokens is not None:
                return AccessTokenProof(settings.source, settings.client_id, self.tokens)
        raise StartError(f"there is no way to prove the client {client_id}")


class Clients:
    """The configured clients by id, disabled ones included. `failures` outlives a reload."""

    def __init__(self, settings: Mapping[str, ClientSettings], failures: Failures, world: World = World()) -> None:
        self._settings = settings
        self._proofs = {client_id: world.proof_of(client_id, one) for client_id, one in settings.items()}
        self._by_certificate = next((one for one in self._proofs.values() if isinstance(one, TlsProof)), None)
        self._failures = failures
        self._world = world

    def knows(self, caller: Caller) -> bool:
        """Whether the caller names a configured client; proves nothing."""
        return caller.unverified_client_id in self._settings

    def troubles(self) -> Iterator[tuple[str, str]]:
        """The enabled clients whose keys could not be had the last time, and why; for operators."""
        for client_id, proof in self._proofs.items():
            if self._settings[client_id].enabled and isinstance(proof, AssertionProof) and proof.trouble:
                yield client_id, proof.trouble

    def may_wait(self, caller: Caller) -> bool:
        """Whether `prove` may wait, or compute long: for a caller with a signed token, or with a certificate."""
        if caller.evidence == "connection":
            return self._by_certificate is not None
        return caller.evidence != "secret"

    def prove(self, caller: Caller) -> Client:
        """Identify the caller, prove it and admit it. May wait, for keys or for the state.

        Raises CLIENT_REFUSED, one and the same for an unknown client, a wrong proof, a way of authentication that is
        not the client's, a disabled client, a peer outside its networks and, at forward-auth, a client without a
        profile: which one it was stands in the audit. After too many of them, whichever they were, it is
        CLIENT_LIMITED; who passes is never counted or limited. Raises SOURCE_UNREACHABLE or STATE_UNAVAILABLE where
        it cannot be told.
        """
        client_id, now = caller.unverified_client_id, self._world.clock()
        settings, proof = self._settings.get(client_id), self._proofs.get(client_id)
        known = proof is not None and proof.evidence == caller.evidence
        try:
            with on_behalf_of(client_id if known else "", caller.peer.address):
                once = (proof if proof is not None and known else self._stranger(caller)).prove(caller, now)
        except Refusal as refusal:
            if not is_unproven(refusal):
                raise
            raise self._refusal(caller, refusal.facts if known else {}) from None
        if not known or settings is None:
            raise self._refusal(caller, {})
        self._admit(caller, settings)
        if once is not None:
            self._use_up(caller, once)
        return Client(
            id=client_id,
            audiences=frozenset(settings.audiences),
            sources=EVERY if settings.sources is None else frozenset(settings.sources),
            default_audience=settings.default_audience,
            profile=settings.profile,
            backend_of=frozenset(settings.backend_of),
            may_present=frozenset(settings.may_present),
            actors=frozenset(settings.actors),
            certificate_header=settings.certificate_header,
        )

    def _stranger(self, caller: Caller) -> Proof:
        """What costs a caller who is no known client as much as a known one's proof; it is not listened to.

        The time of the answer must not tell which clients there are (RFC 6749 §2.3.1).
        """
        if caller.evidence == "assertion":
            return AssertionProof(caller.unverified_client_id, self._world.issuer, DUMMY_KEYS, DEFAULT_ALGORITHMS)
        if caller.evidence == "bearer" and self._world.tokens is not None:
            return AccessTokenProof("", "", self._world.tokens)
        if caller.evidence == "connection" and self._by_certificate is not None:
            return self._by_certificate
        return SecretProof()

    def _admit(self, caller: Caller, settings: ClientSettings) -> None:
        if not settings.enabled:
            raise self._failures.refusal(caller, "client is disabled")
        if settings.networks is not None and not within(caller.peer, settings.networks):
            raise self._failures.refusal(caller, "peer outside the client's networks", peer=caller.peer.address)
        if caller.door == "forward_auth" and settings.profile is None:
            raise self._failures.refusal(caller, "client has no profile")

    def _use_up(self, caller: Caller, once: Once) -> None:
        """Last of all: who is refused for another reason has used nothing up."""
        if self._world.marks is None:
            raise Refusal(STATE_UNAVAILABLE, why="there is no store for what may be used only once")
        try:
            self._world.marks.mark(once.kind, *once.parts, until=once.until)
        except Refusal as refusal:
            if refusal.reason is not REPLAYED:
                raise
            raise self._failures.refusal(caller, "the assertion was used before") from None

    def _refusal(self, caller: Caller, facts: Mapping[str, object]) -> Refusal:
        """Say what is wrong; of what a stranger presented, nothing."""
        told = dict(facts)
        why = str(told.pop("why", ""))
        if not why:
            known = caller.unverified_client_id in self._settings
            why = "not the client's way of authentication" if known else "unknown client"
            told = {"presented": caller.evidence} if known else {}
        return self._failures.refusal(caller, why, **told)
