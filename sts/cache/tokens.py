"""The token cache: a token that was minted for a request, for the same request again, while all that made it stands.

The key is made of the request alone; everything else that the answer depended on is kept beside the token and judged
anew at each hit. So a rotation voids nothing, and a reload or the loss of an issuer's key exactly what it touched.
Whoever asks has proven itself before; the cache never decides who may ask.
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
"""Seconds that a request waits for the same request of somebody else before it makes its own token."""
MAX_WAITERS: Final = 8
"""How many requests may wait so at once, whatever for: one slow source must not hold the threads of all others."""


class CacheSettings(Section):
    """The `cache` section."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"shared"})

    memory: ByteSize = 64_000_000
    """How much memory each worker may spend on minted tokens."""
    min_remaining: Duration | None = None
    """How much life a token from the cache still has at least; default: a third of its ttl, at most 30s."""


Unrevoked = Callable[[Revocable, float], bool]
"""Whether nothing of this is revoked now; may raise Refusal, and never waits."""


class KeysInForce(Protocol):
    """Who knows which issuers' keys are believed now."""

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Whether the key that `prover` proved a credential with is still in its set. Never waits."""


@dataclass(frozen=True, slots=True)
class Causes:
    """What a minted token depended on beside the request.

    `proofs` are the keys that proved subject and actor: who has each in its set, and its thumbprint; a kind of
    credential without such a key has none. `kid` is our own key.
    `recipient` is the audience whose backend's key, by its thumbprint, the token is encrypted to. `revocable` is by
    what it can be revoked.
    `until` (Unix seconds) is when the token is too old to be handed out again; `keep` whether it may be kept at all.
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
        """Gather the causes of one issued token, from the credentials that were proven for it."""
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
    """The key of a request: HMAC-SHA256 over every input of the decision, 32 bytes.

    `secret` is the cache's own label key (each use has its own label); `facts` are the request's facts that rules
    read, by name. Each part is preceded by its length and each list by its count, so that no two requests make one
    text (`a,b` and `c` against `a` and `b,c`); the order in which audiences, resources or scopes were named does not
    count. Scopes that were not asked for (None) are not an empty list.
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
    # surrogatepass: every text that can arrive makes one key, and two texts never the same one
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")


def _actor(actor: Credential | None) -> str:
    if actor is None:
        return "-"
    return f"{len(actor.token_type)}:{actor.token_type}{len(actor.value)}:{actor.value}"


def _held(ask: Ask) -> list[str]:
    """Which certificates were proven beside the credential, and for whom."""
    held = (("user", ask.certificate), ("caller", ask.caller_certificate))
    return [f"{whose}:{thumbprint}" for whose, thumbprint in held if thumbprint is not None]


def _set(texts: tuple[str, ...]) -> str:
    if len(texts) > 1:
        texts = tuple(sorted(set(texts)))
    return f"{len(texts)};" + "".join([f"{len(text)}:{text}" for text in texts])


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept token, ready to be handed out, and what it depends on.

    `parts` are the fingerprints of the client, source, audiences and route that made it.
    """

    issued: Issued
    causes: Causes
    parts: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all that this entry alone keeps alive; the configuration's own texts are not counted."""
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
    """One token in the making; `refused` is what became of it, where it was refused."""

    __slots__ = ("landed", "refused")

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.refused: tuple[Reason, dict[str, object]] | None = None


class TokenCache:
    """The tokens that this worker has minted.

    `secret` is the label key for `cache_key`; `published(kid, now)` says whether one of our keys is still published,
    `recipient_current(audience, thumbprint)` whether a backend's key is still in its set in force,
    `unrevoked(revocable, now)` whether nothing that made a token was revoked; it may raise Refusal, and never waits.
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
        """What all share that wait for somebody else's answer, to the same request or to the same question."""
        self._flights: dict[tuple[bytes, tuple[str, ...]], _Flight] = {}

    def find(self, key: bytes, parts: tuple[str, ...], sources: KeysInForce, now: float) -> Issued | None:
        """The token kept for `key`, or None where there is none, or one of the things that made it has changed.

        `parts` are the fingerprints of what would make the token now. Takes no lock, reads no file, asks nobody. What
        was revoked is no hit: whoever makes the token anew says why it is refused. Raises Refusal where that cannot be
        told.
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
        """Whether `fill` would wait, because another request is making the same token."""
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
        """Make the token for `key` and keep it where it may be kept. May wait, for `make` or for somebody else's.

        `waits` says whether for the latter: the event loop must not. The same request at the same time is made once:
        up to `max_waiters` wait for it, `patience` at most; who may not wait, or has waited long enough, makes its own.
        A refusal is theirs too: key and parts hold all that it can depend on, and many who wait must not try a dead
        source one after the other. Whatever may not be kept is not shared with those who wait either.
        """
        own = _Flight()
        flight = self._flights.setdefault((key, parts), own)
        if flight is own:
            try:
                # Another flight may have landed between our look-up and here.
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
        """Wait for somebody else's token; whether it is worth a look."""
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
            # The headers are shared by every later hit: no door may change them.
            kept = replace(issued, cached=True, headers=MappingProxyType(dict(issued.headers)))
            entry = Entry(kept, causes, parts)
            self._memory.put(key, entry, size=entry.size, ends=causes.until, now=now)
        return issued
