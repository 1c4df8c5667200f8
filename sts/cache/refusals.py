"""The negative cache: a refusal that only time or a change can lift is repeated without a new proof.

Only refusals after a proof are cached, and only for reasons that the same request must meet again. Not cached are
decisions of other parties (tables, OPA), reasons that may end soon (503, `unknown_key`, `not_yet_valid`), revocation,
replay, and wrong signatures. The cache has separate memory, so that refusals never evict tokens.
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
"""The memory of each worker for refusals, in bytes."""
LASTING: Final = frozenset(
    {ACTOR_REFUSED, AUDIENCE_MISMATCH, INSUFFICIENT_SCOPE, NOT_ALLOWED, NO_CONSENT, NO_MAPPING}
    | {REQUIREMENT_FAILED, SUBJECT_COLLISION, TOO_OLD, UNSAFE_HEADER_VALUE}
)


class Subject(Protocol):
    """Records the subject of a request for the audit."""

    subject: str | None

    def identified(self, subject: str) -> None:
        """Record that the proven credential maps to this subject."""


class Grounds:
    """The grounds of a possible refusal, collected while a request is processed; without a proof it is not cached.

    `revocable` is None until revocations were checked: an earlier refusal does not depend on them.
    """

    __slots__ = ("ends", "proofs", "revocable")

    def __init__(self) -> None:
        self.ends: float | None = None
        self.proofs: tuple[tuple[str, str], ...] = ()
        self.revocable: Revocable | None = None

    def proven(self, proven: Iterable[tuple[Presented, Principal, Limits]]) -> None:
        """Record the proven credentials; a refusal is valid until one of them gets too old for another refusal."""
        found = list(proven)
        keys = [(one.prover, principal.proof_key) for one, principal, _ in found]
        self.proofs = tuple((prover, key) for prover, key in keys if not isinstance(key, NotApplicable))
        self.ends = min([end for _, principal, limits in found for end in _ends(principal, limits)], default=None)
        if self.ends is None:
            self.ends = float("inf")


def _ends(principal: Principal, limits: Limits) -> Iterator[float]:
    """Yield when `admit` would begin to refuse the credential for its age, and when its source is due again."""
    for since, life in (
        (principal.expires_at, -1.0),  # a token needs a remaining lifetime of one second
        (principal.issued_at, limits.max_age),
        (principal.auth_time, limits.max_auth_age),
        (principal.fresh_until, 0.0),
    ):
        if isinstance(since, int | float) and life is not None:
            yield since + life


@dataclass(frozen=True, slots=True)
class Refused:
    """A cached refusal, the revision of its configuration, and its grounds."""

    reason: Reason
    facts: Mapping[str, object] = field(repr=False)
    subject: str | None = field(repr=False)
    revision: str
    proofs: tuple[tuple[str, str], ...]
    revocable: Revocable | None

    @property
    def size(self) -> int:
        """The approximate memory of this refusal in bytes."""
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
    """The cached refusals of one worker; `unrevoked` as for `TokenCache`."""

    def __init__(self, memory: Memory[Refused], unrevoked: Unrevoked) -> None:
        self._memory = memory
        self._unrevoked = unrevoked

    @contextmanager
    def remembered(
        self, key: bytes, revision: str | None, sources: KeysInForce, now: float, subject: Subject
    ) -> Iterator[Grounds]:
        """Repeat a cached refusal, or collect the grounds within the block and cache a lasting refusal.

        The look-up takes no lock and never waits.

        Args:
            key: The key of the token cache.
            revision: The revision of the configuration; None: do not cache this request's refusal.
            sources: Returns whether keys are still current.
            now: Unix seconds.
            subject: Records the subject for the audit.

        Raises:
            Refusal: The cached refusal, or STATE_UNAVAILABLE if revocations cannot be checked.
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
