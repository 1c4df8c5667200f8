"""The negative cache: a refusal that nothing but time or a change can lift is given again without a new proof.

Only what was proven is remembered, and only reasons that the same request must meet again: nothing that another party
said (tables, OPA), nothing that may pass a moment later (503, `unknown_key`, `not_yet_valid`), nothing of revocation or
replay, no signature that is wrong. It has memory of its own, so that refusals never push out tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final, Protocol

from sts.cache.memory import Memory
from sts.cache.tokens import KeysInForce, Unrevoked
from sts.errors import (
    ACTOR_REFUSED,
    AUDIENCE_MISMATCH,
    INSUFFICIENT_SCOPE,
    NO_CONSENT,
    NO_MAPPING,
    NOT_ALLOWED,
    REQUIREMENT_FAILED,
    SUBJECT_COLLISION,
    TOO_OLD,
    UNSAFE_HEADER_VALUE,
    Reason,
    Refusal,
)
from sts.model import Limits, NotApplicable, Presented, Principal, Revocable

LIFE_S: Final = 5.0
BYTES: Final = 1_000_000
"""Memory of each worker for refusals."""
LASTING: Final = frozenset(
    {ACTOR_REFUSED, AUDIENCE_MISMATCH, INSUFFICIENT_SCOPE, NOT_ALLOWED, NO_CONSENT, NO_MAPPING}
    | {REQUIREMENT_FAILED, SUBJECT_COLLISION, TOO_OLD, UNSAFE_HEADER_VALUE}
)


class Subject(Protocol):
    """Who remembers for the audit whom a request is about."""

    subject: str | None

    def identified(self, subject: str) -> None:
        """The proven credential maps to this subject."""


class Grounds:
    """What a refusal of one request would rest on, collected on its way; nothing is kept without a proof.

    `revocable` is None as long as revocations were not looked at: such a refusal comes before them.
    """

    __slots__ = ("ends", "proofs", "revocable")

    def __init__(self) -> None:
        self.ends: float | None = None
        self.proofs: tuple[tuple[str, str], ...] = ()
        self.revocable: Revocable | None = None

    def proven(self, proven: Iterable[tuple[Presented, Principal, Limits]]) -> None:
        """Each credential that came along is proven; a refusal holds until one of them is too old for another one."""
        found = list(proven)
        keys = [(one.prover, principal.proof_key) for one, principal, _ in found]
        self.proofs = tuple((prover, key) for prover, key in keys if not isinstance(key, NotApplicable))
        self.ends = min([end for _, principal, limits in found for end in _ends(principal, limits)], default=None)
        if self.ends is None:
            self.ends = float("inf")


def _ends(principal: Principal, limits: Limits) -> Iterator[float]:
    """When `admit` would begin to refuse the credential for its age, and when its source must be asked again."""
    for since, life in (
        (principal.expires_at, -1.0),  # a token needs a second of life
        (principal.issued_at, limits.max_age),
        (principal.auth_time, limits.max_auth_age),
        (principal.fresh_until, 0.0),
    ):
        if isinstance(since, int | float) and life is not None:
            yield since + life


@dataclass(frozen=True, slots=True)
class Refused:
    """A kept refusal, the revision of the configuration that made it, and what it rests on."""

    reason: Reason
    facts: Mapping[str, object] = field(repr=False)
    subject: str | None = field(repr=False)
    revision: str
    proofs: tuple[tuple[str, str], ...]
    revocable: Revocable | None

    @property
    def size(self) -> int:
        """About how many bytes it keeps alive."""
        names = [name for group in (self.revocable.groups if self.revocable else ()) for name in group[1]]
        pairs = [text for pair in self.proofs for text in pair]
        objects = [
            self,
            self.facts,
            *self.facts.values(),
            self.subject,
            self.proofs,
            *self.proofs,
            *pairs,
            names,
            *names,
        ]
        return sum(map(getsizeof, objects))


class Refusals:
    """The refusals of one worker; `unrevoked` as for `TokenCache`."""

    def __init__(self, memory: Memory[Refused], unrevoked: Unrevoked) -> None:
        self._memory = memory
        self._unrevoked = unrevoked

    @contextmanager
    def remembered(
        self, key: bytes, revision: str | None, sources: KeysInForce, now: float, subject: Subject
    ) -> Iterator[Grounds]:
        """Refuse `key`'s request again, or collect the grounds of what is done within, and keep a lasting refusal.

        `key` is that of the token cache; `revision` None says that nothing of this request lasts. A look takes no lock
        and never waits. Raises what was raised for the same request, and STATE_UNAVAILABLE where revocations cannot be
        looked at.
        """
        if revision is None:
            yield Grounds()
            return
        found = self._memory.get(key, now)
        if found is not None and self._holds(found, revision, sources, now):
            if found.subject is not None:
                subject.identified(found.subject)
            raise Refusal(found.reason, **found.facts)
        grounds = Grounds()
        try:
            yield grounds
        except Refusal as refusal:
            if grounds.ends is not None and refusal.reason in LASTING:
                ends = min(now + LIFE_S, grounds.ends)
                kept = Refused(
                    refusal.reason, refusal.facts, subject.subject, revision, grounds.proofs, grounds.revocable
                )
                self._memory.put(key, kept, size=kept.size, ends=ends, now=now)
            raise

    def _holds(self, found: Refused, revision: str, sources: KeysInForce, now: float) -> bool:
        return (
            found.revision == revision
            and all(sources.key_current(prover, key) for prover, key in found.proofs)
            and (found.revocable is None or self._unrevoked(found.revocable, now))
        )
