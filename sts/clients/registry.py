"""The configured clients; the only module that creates a `Client`."""

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
    """The dependencies of the authentication methods; clients with a secret need only the clock.

    - `issuer`: our issuer identifier.
    - `keys`: returns the keys for the settings of a client.
    - `tokens`: verifies access tokens.
    - `marks`: the replay cache for assertions.
    - `clock`: returns Unix seconds.
    """

    issuer: str = ""
    keys: Callable[[Issuer], KeySource] | None = None
    tokens: Tokens | None = None
    marks: Marks | None = None
    clock: Callable[[], float] = lambda: 0.0

    def proof_of(self, client_id: str, settings: ClientSettings) -> Proof:
        """Return the `Proof` of one client. Raises StartError if its files cannot be used."""
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
    """The configured clients by id, including disabled ones. `failures` survives a reload."""

    def __init__(self, settings: Mapping[str, ClientSettings], failures: Failures, world: World = World()) -> None:
        self._settings = settings
        self._proofs = {client_id: world.proof_of(client_id, one) for client_id, one in settings.items()}
        self._by_certificate = next((one for one in self._proofs.values() if isinstance(one, TlsProof)), None)
        self._failures = failures
        self._world = world

    def knows(self, caller: Caller) -> bool:
        """Return whether the caller names a configured client. This proves nothing."""
        return caller.unverified_client_id in self._settings

    def troubles(self) -> Iterator[tuple[str, str]]:
        """Yield the enabled clients whose last fetch of keys failed, with the reason; for operators."""
        for client_id, proof in self._proofs.items():
            if self._settings[client_id].enabled and isinstance(proof, AssertionProof) and proof.trouble:
                yield client_id, proof.trouble

    def may_wait(self, caller: Caller) -> bool:
        """Return whether `prove` may wait or compute for long: for a signed token, or for a certificate."""
        if caller.evidence == "connection":
            return self._by_certificate is not None
        return caller.evidence != "secret"

    def prove(self, caller: Caller) -> Client:
        """Identify, authenticate and admit the caller. May wait for keys or for the state store.

        A caller that succeeds is never counted or limited.

        Raises:
            CLIENT_REFUSED: The same refusal for an unknown client, a wrong proof, another method of authentication than
                the client's, a disabled client, a peer outside its networks and, at forward-auth, a client without a
                profile. The audit contains which one it was.
            CLIENT_LIMITED: Instead of CLIENT_REFUSED, after too many failures.
            SOURCE_UNREACHABLE, STATE_UNAVAILABLE: The authentication could not be checked.
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
        """Return the dummy verification for an unknown client, whose result is ignored.

        The response time must not reveal which clients exist (RFC 6749 §2.3.1).
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
        """Mark the replay key; the last step, so that a caller refused for another reason has consumed no key."""
        if self._world.marks is None:
            raise Refusal(STATE_UNAVAILABLE, why="there is no store for what may be used only once")
        try:
            self._world.marks.mark(once.kind, *once.parts, until=once.until)
        except Refusal as refusal:
            if refusal.reason is not REPLAYED:
                raise
            raise self._failures.refusal(caller, "the assertion was used before") from None

    def _refusal(self, caller: Caller, facts: Mapping[str, object]) -> Refusal:
        """Return the refusal with its reason; for an unknown client, without facts of what it presented."""
        told = dict(facts)
        why = str(told.pop("why", ""))
        if not why:
            known = caller.unverified_client_id in self._settings
            why = "not the client's way of authentication" if known else "unknown client"
            told = {"presented": caller.evidence} if known else {}
        return self._failures.refusal(caller, why, **told)
