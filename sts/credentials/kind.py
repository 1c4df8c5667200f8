"""What every source's settings hold, and what a kind of credential must do."""

from __future__ import annotations

from typing import ClassVar, Protocol

from sts.model import Credential, Limits, Presented, Principal
from sts.options import Names, Namespace, Rule, Section


class SourceSettings(Section):
    """One configured origin of inbound credentials, whatever its kind."""

    not_yet: ClassVar[frozenset[str]] = frozenset()

    enabled: bool = True
    """`false` refuses the source's credentials from the next reload on and voids the tokens they made."""
    audiences: Names | None = None
    """Which backends may be reached from here; `["*"]` for all. Must be written once there are several sources."""
    namespace: Namespace | None = None
    """Prefix of the minted `sub`, `""` for none. Must be written once there are several sources."""
    same_subjects: bool = False
    """Said in writing where two sources share a namespace, because their subjects are the same people."""
    require: Rule | None = None
    """A CEL rule over the proven credential that must be `true`, else `requirement_failed`."""
    identity: dict[str, Rule]
    """CEL per attribute over the proven credential; `subject` must be there."""


class Source(Protocol):
    """A configured source at work: one instance of a kind."""

    name: str
    limits: Limits

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove what was presented and report its facts. May wait; raises Refusal."""

    def key_current(self, proof_key: str) -> bool:
        """Whether the key that proved a credential is still in the source's set in force. Never waits."""


class Kind(Protocol):
    """A kind of credential over all its sources: finds the one source that a credential is for."""

    token_types: frozenset[str]

    def recognise(self, credential: Credential) -> Presented | None:
        """Parse as far as needed to name the source; None if this kind does not read it. Never waits.

        Raises Refusal if the credential is this kind's but malformed, or for a source that is not there.
        """
