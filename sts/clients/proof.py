"""The protocol of all authentication methods. Each method verifies the evidence; the registry decides admission."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from sts.errors import CLIENT_REFUSED, Refusal
from sts.model import Caller, Evidence

MAX_MEMORY: Final = 256
"""How many results per client a method may cache, if it may cache results at all."""


@dataclass(frozen=True, slots=True)
class Once:
    """Evidence that may be used only once: its replay key (`kind`, `parts`), valid `until` then (Unix seconds)."""

    kind: str
    parts: tuple[str, ...]
    until: float


class Marks(Protocol):
    """The replay cache of all replicas."""

    def mark(self, kind: str, *parts: str, until: float) -> None:
        """Mark a replay key `until` then (Unix seconds). Raises REPLAYED if it is marked already, STATE_UNAVAILABLE."""


class Proof(Protocol):
    """How one client authenticates."""

    evidence: Evidence
    """The kind of evidence that the client presents; a caller with another kind is refused."""

    def prove(self, caller: Caller, now: float) -> Once | None:
        """Verify that `caller` is this client. Returns the replay key to consume, or None.

        Raises CLIENT_REFUSED with facts for the audit, SOURCE_UNREACHABLE if keys cannot be fetched.
        """


def unproven(why: str, **facts: object) -> Refusal:
    """Return the refusal of a caller that failed to authenticate. `why` and `facts` are for the audit."""
    return Refusal(CLIENT_REFUSED, why=why, **facts)


def is_unproven(refusal: Refusal) -> bool:
    """Return whether a refusal means failed authentication, and not that the authentication could not be checked."""
    return refusal.reason is CLIENT_REFUSED


def no_proof(refusal: Refusal) -> Refusal:
    """Convert the refusal of a credential to CLIENT_REFUSED; a refusal because of our own fault stays unchanged."""
    if refusal.reason.retry:
        return refusal
    return Refusal(CLIENT_REFUSED, **{"fault": refusal.reason.name, **refusal.facts})
