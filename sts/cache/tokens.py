"""The token cache: a minted token is reused for the same request while everything on which it depends is unchanged.

The key contains only the request. Everything else on which the response depends is stored beside the token and checked
again at each hit. So a rotation invalidates no token, and a reload or the loss of an issuer's key only those that it
concerns. The caller has authenticated before; the cache never decides who may request a token.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from sys import getsizeof
from types import MappingProxyType
from typing import ClassVar, Final, Protocol

from sts.cache.memory import Memory
from sts.errors import Reason, Refusal
from sts.model import Ask, Client, Credential, Grant, Issued, NotApplicable, Presented, Principal, Revocable
from sts.options import ByteSize, Duration, Section
from sts.resilience.bulkhead import Bulkhead, FullError

PATIENCE_S: Final = 2.0
"""Seconds that a request waits for an identical concurrent request before it mints its own token."""
MAX_WAITERS: Final = 8
"""How many requests may wait in this way in total: one slow source must not block the threads of all others."""


class CacheSettings(Section):
    """The `cache` section."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"shared"})

    memory: ByteSize = 64_000_000
    """How much memory each worker may use for minted tokens."""
    min_remaining: Duration | None = None
    """The minimum remaining lifetime of a token from the cache; default: a third of its ttl, at most 30s."""


Unrevoked = Callable[[Revocable, float], bool]
"""Returns whether nothing of this is revoked now. May raise Refusal. Never waits."""


class KeysInForce(Protocol):
    """Reports whether the keys of issuers are still current."""

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Return whether the key with which `prover` proved a credential is still in its key set. Never waits."""


@dataclass(frozen=True, slots=True)
class Causes:
    """The dependencies of a minted token beside the request.

    - `proofs`: the keys that proved subject and actor: the name of the prover and the thumbprint of its key. A kind of
      credential without a key has none.
    - `kid`: our signing key.
    - `until`: when the token is too old to be reused, in Unix seconds.
    - `keep`: whether the token may be cached.
    - `revocable`: the identifiers by which the token can be revoked.
    - `recipient`: the audience and the thumbprint of its backend's key to which the token is encrypted, or None.
    """

    proofs: tuple[tuple[str, str], ...]
    kid: str
    until: float
    keep: bool
    revocable: Revocable
    recipient: tuple[str, str] | None = None

    @classmethod
    def of(
        cls, proven: Sequence[tuple[Presented, Principal]], grant: Grant, issued: Issued, revocable: Revocable
    ) -> Causes:
        """Return the dependencies of one issued token and of the credentials that were proven for it."""
        keys = [(presented.prover, principal.proof_key) for presented, principal in proven]
        return cls(
            proofs=tuple((prover, key) for prover, key in keys if not isinstance(key, NotApplicable)),
            kid=issued.kid,
            until=min(issued.expires_at - grant.min_remaining, grant.fresh_until),
            keep=grant.keep,
            revocable=revocable,
            recipient=None if grant.recipient is None or not issued.recipient else (grant.recipient, issued.recipient),
        )


def cache_key(
    secret: bytes, client: Client, ask: Ask, credential: Credential, facts: tuple[tuple[str, str], ...]
) -> bytes:
    """Return the key of a request: HMAC-SHA256 over every input of the decision, 32 bytes.

    Each part is preceded by its length and each list by its count, so that no two requests have the same text (`a,b`
    and `c`; `a` and `b,c`). The order of audiences, resources or scopes does not matter. Absent scopes (None) differ
    from an empty list.

    Args:
        secret: The key that is derived for this purpose only.
        client: The authenticated client.
        ask: The request.
        credential: The credential of the subject.
        facts: The facts of the request that rules read, by name.
    """
    kind, value = credential.token_type, credential.value
    text = (
        f"{len(ask.door)}:{ask.door}{len(client.id)}:{client.id}{len(kind)}:{kind}{len(value)}:{value}"
        f"{_actor(ask.actor)}{_set(ask.audiences)}{_set(ask.resources)}"
        f"{'-' if ask.scopes is None else _set(ask.scopes)}{len(ask.requested_type)}:{ask.requested_type}"
        f"{'-' if ask.route is None else _set((ask.route,))}"
        f"{_set(tuple(_held(ask)))}{len(facts)};"
    )
    for name, value in facts:
        text += f"{len(name)}:{name}{len(value)}:{value}"
    # surrogatepass: every possible text has one encoding, and two texts never have the same one
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")


def _actor(actor: Credential | None) -> str:
    if actor is None:
        return "-"
    return f"{len(actor.token_type)}:{actor.token_type}{len(actor.value)}:{actor.value}"


def _held(ask: Ask) -> list[str]:
    """Return which certificates were proven beside the credential, and whose they are."""
    held = (("user", ask.certificate), ("caller", ask.caller_certificate))
    return [f"{whose}:{thumbprint}" for whose, thumbprint in held if thumbprint is not None]


def _set(texts: tuple[str, ...]) -> str:
    if len(texts) > 1:
        texts = tuple(sorted(set(texts)))
    return f"{len(texts)};" + "".join([f"{len(text)}:{text}" for text in texts])


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached token and its dependencies.

    `parts` are the fingerprints of the configuration of the client, source, audiences and route.
    """

    issued: Issued
    causes: Causes
    parts: tuple[str, ...]

    @property
    def size(self) -> int:
        """The memory of this entry in bytes, without the texts that belong to the configuration."""
        issued = self.issued
        objects: list[object] = [
            *(self, issued, self.causes, self.parts, self.causes.until, self.causes.recipient),
            *(self.causes.proofs, *self.causes.proofs, self.causes.revocable, self.causes.revocable.groups),
            *(one for group in self.causes.revocable.groups for one in (group, group[0], group[1], *group[1])),
            *(issued.expires_at, issued.subject, issued.token, issued.jti, issued.scopes, *(issued.scopes or ())),
            *(issued.headers, *issued.headers, *issued.headers.values()),
            *(issued.shadow, *issued.shadow.values()),
        ]
        # A read-only view does not count the dictionary behind it.
        return sum(map(getsizeof, objects)) + getsizeof(dict(issued.headers))


class _Flight:
    """One token that is being minted; `refused` is the refusal, if it was refused."""

    __slots__ = ("landed", "refused")

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.refused: tuple[Reason, dict[str, object]] | None = None


class TokenCache:
    """The tokens that this worker has minted.

    Args:
        secret: The key for `cache_key`.
        memory: The storage.
        published: `published(kid, now)` returns whether our key is still published.
        patience: Seconds that a request waits for an identical one.
        max_waiters: How many requests may wait.
        recipient_current: `recipient_current(audience, thumbprint)` returns whether a backend's key is still current.
        unrevoked: `unrevoked(revocable, now)` returns whether no dependency of a token was revoked. May raise
            Refusal. Never waits.
    """

    def __init__(
        self,
        secret: bytes,
        memory: Memory[Entry],
        published: Callable[[str, float], bool],
        patience: float = PATIENCE_S,
        max_waiters: int = MAX_WAITERS,
        recipient_current: Callable[[str, str], bool] = lambda _audience, _thumbprint: False,
        unrevoked: Unrevoked = lambda _revocable, _now: False,
    ) -> None:
        self.secret = secret
        self._memory = memory
        self._published = published
        self._recipient_current = recipient_current
        self._unrevoked = unrevoked
        self._patience = patience
        self.waiters = Bulkhead(max_waiters)
        """The common limit of all requests that wait for another one, for its token or for its introspection."""
        self._flights: dict[tuple[bytes, tuple[str, ...]], _Flight] = {}

    def find(self, key: bytes, parts: tuple[str, ...], sources: KeysInForce, now: float) -> Issued | None:
        """Return the token for `key`, None if there is none or one of its dependencies has changed.

        Takes no lock, reads no file, and makes no request. A revoked token is no hit: the following attempt to mint it
        reports the reason. Raises Refusal if revocations cannot be checked.

        Args:
            key: The result of `cache_key`.
            parts: The present fingerprints of the configuration.
            sources: Reports whether keys are still current.
            now: Unix seconds.
        """
        entry = self._memory.get(key, now)
        if entry is None or entry.parts != parts:
            return None
        causes = entry.causes
        for prover, key_thumbprint in causes.proofs:
            if not sources.key_current(prover, key_thumbprint):
                return None
        if causes.recipient is not None and not self._recipient_current(*causes.recipient):
            return None
        if not self._unrevoked(causes.revocable, now):
            return None
        return entry.issued if self._published(causes.kid, now) else None

    def under_way(self, key: bytes, parts: tuple[str, ...]) -> bool:
        """Return whether `fill` would wait, because another request is minting the same token."""
        return (key, parts) in self._flights

    def fill(
        self,
        key: bytes,
        parts: tuple[str, ...],
        sources: KeysInForce,
        clock: Callable[[], float],
        make: Callable[[], tuple[Issued, Causes]],
        *,
        waits: bool = True,
    ) -> Issued:
        """Mint the token for `key`, and cache it if allowed. May wait for `make` or for an identical request.

        Identical concurrent requests mint once: up to `max_waiters` requests wait for the first one, at most `patience`
        seconds. A request that may not wait, or has waited long enough, mints its own token. Waiting requests also
        share a refusal: key and parts contain everything on which it can depend, and many waiting requests must not try
        a dead source one after the other. A token that may not be cached is not shared either.

        Args:
            key: The result of `cache_key`.
            parts: The present fingerprints of the configuration.
            sources: Reports whether keys are still current.
            clock: Returns Unix seconds.
            make: Mints the token.
            waits: Whether to wait for an identical request; the event loop must not.
        """
        own = _Flight()
        flight = self._flights.setdefault((key, parts), own)
        if flight is own:
            try:
                # Another request may have completed between our look-up and here.
                return self.find(key, parts, sources, clock()) or self._make(key, parts, clock, make)
            except Refusal as refusal:
                own.refused = (refusal.reason, refusal.facts)
                raise
            finally:
                del self._flights[key, parts]
                own.landed.set()
        if waits and self._wait(flight):
            if flight.refused is not None:
                reason, facts = flight.refused
                raise Refusal(reason, **facts)
            found = self.find(key, parts, sources, clock())
            if found is not None:
                return found
        return self._make(key, parts, clock, make)

    def _wait(self, flight: _Flight) -> bool:
        """Wait for the token of another request; returns whether that request has completed."""
        try:
            place = self.waiters.enter()
        except FullError:
            return False
        try:
            return flight.landed.wait(self._patience)
        finally:
            place.leave()

    def _make(
        self,
        key: bytes,
        parts: tuple[str, ...],
        clock: Callable[[], float],
        make: Callable[[], tuple[Issued, Causes]],
    ) -> Issued:
        issued, causes = make()
        now = clock()
        if causes.keep and now < causes.until:
            # Every later hit shares the headers: no endpoint may change them.
            kept = replace(issued, cached=True, headers=MappingProxyType(dict(issued.headers)))
            entry = Entry(kept, causes, parts)
            self._memory.put(key, entry, size=entry.size, ends=causes.until, now=now)
        return issued
