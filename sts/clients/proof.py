"""What every way of proving a caller has in common. A way judges what is presented; who is admitted, the directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from sts.errors import CLIENT_REFUSED, Refusal
from sts.model import Caller, Evidence

MAX_MEMORY: Final = 256
"""How many results of one client a way may keep, where it may keep any."""


@dataclass(frozen=True, slots=True)
class Once:
    """What proved a caller may prove nobody a second time: what names it, and until when it would (Unix seconds)."""

    kind: str
    parts: tuple[str, ...]
    until: float


class Marks(Protocol):
    """Where it is kept, for all replicas, what may be used only once."""

    def mark(self, kind: str, *parts: str, until: float) -> None:
        """Mark what `parts` name until then (Unix seconds). Raises REPLAYED if it was before, or STATE_UNAVAILABLE."""


class Proof(Protocol):
    """How one client proves itself."""

    evidence: Evidence
    """What its callers present; with anything else they are not it."""

    def prove(self, caller: Caller, now: float) -> Once | None:
        """Prove that `caller` is this client; what must not be accepted again, None if that hangs on nothing.

        Raises CLIENT_REFUSED with facts for the audit, SOURCE_UNREACHABLE where keys cannot be had.
        """


def unproven(why: str, **facts: object) -> Refusal:
    """The refusal of a caller that did not prove itself. `why` and `facts` are for the audit."""
    return Refusal(CLIENT_REFUSED, why=why, **facts)


def is_unproven(refusal: Refusal) -> bool:
    """Whether a refusal says that a caller is not proven, and not that nobody can tell."""
    return refusal.reason is CLIENT_REFUSED


def no_proof(refusal: Refusal) -> Refusal:
    """The same refusal, of what was to prove a caller and not of a credential; faults of ours stay as they are."""
    if refusal.reason.retry:
        return refusal
    return Refusal(CLIENT_REFUSED, **{"fault": refusal.reason.name, **refusal.facts})
