"""What every source's settings hold, and what a kind of credential must do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from pydantic import AfterValidator, StringConstraints

from sts.errors import BAD_TYPE, UNKNOWN_ISSUER, Refusal
from sts.model import Credential, Limits, Presented, Principal
from sts.options import Names, Namespace, Rule, Section

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=512)]


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(value):
        raise ValueError("name at least one; an empty list would accept nothing")
    return value


SomeNames = Annotated[Names, AfterValidator(_not_empty)]
"""At least one text."""


class SourceSettings(Section):
    """One configured origin of inbound credentials, whatever its kind.

    `variable` is what its rules call the proven credential, `attributes` what that one holds: None for whatever an
    issuer put into it.
    """

    not_yet: ClassVar[frozenset[str]] = frozenset()
    variable: ClassVar[str] = "claims"
    attributes: ClassVar[frozenset[str] | None] = None

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

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the files that it names: the key, and a sentence."""
        yield from ()


class Source(Protocol):
    """A configured source at work: one instance of a kind."""

    name: str
    limits: Limits

    @property
    def trouble(self) -> str:
        """Why what it depends on outside could not be had the last time, "" if it could; for operators."""

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove what was presented and report its facts. May wait; raises Refusal."""

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Whether `prove` would wait for nothing and compute nothing that takes long. Never waits, never raises."""

    def key_current(self, proof_key: str) -> bool:
        """Whether the key that proved a credential is still in the source's set in force. Never waits."""


class Kind(Protocol):
    """A kind of credential over all its sources: finds the one source that a credential is for."""

    token_types: frozenset[str]

    def recognise(self, credential: Credential) -> Presented | None:
        """Parse as far as needed to name the source; None if this kind does not read it. Never waits.

        Raises Refusal if the credential is this kind's but malformed, or for a source that is not there.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """The enabled sources by name, and the kinds that read credentials for them."""

    kinds: tuple[Kind, ...]
    by_name: Mapping[str, Source]

    def present(self, credential: Credential) -> Presented:
        """Find the one source a credential is for, without proving anything and without waiting.

        A declared type that no kind reads is refused before the credential is parsed (RFC 8693 §3).
        """
        readers = [kind for kind in self.kinds if credential.token_type in kind.token_types]
        if not readers:
            raise Refusal(BAD_TYPE, why="this subject_token_type is not read here")
        for kind in readers:
            presented = kind.recognise(credential)
            if presented is not None:
                return presented
        raise Refusal(UNKNOWN_ISSUER, why="no source reads such a credential")

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove a presented credential at its source."""
        return self.by_name[presented.prover].prove(presented, now)

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Whether `prove` would wait for nothing and compute nothing that takes long."""
        return self.by_name[presented.prover].at_hand(presented, now)

    def limits(self, presented: Presented) -> Limits:
        """What the source's configuration allows its principals."""
        return self.by_name[presented.prover].limits

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Whether the key that `prover` proved a credential with is still in its set in force."""
        found = self.by_name.get(prover)
        return found is not None and found.key_current(proof_key)
