"""The common settings of all sources, and the protocols of sources and kinds of credential."""

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
"""At least one non-empty text."""


class SourceSettings(Section):
    """One configured origin of inbound credentials, of any kind.

    `variable` is the name of the proven credential in CEL rules. `attributes` are its members; None if the issuer
    decides which members it has.
    """

    not_yet: ClassVar[frozenset[str]] = frozenset()
    variable: ClassVar[str] = "claims"
    attributes: ClassVar[frozenset[str] | None] = None

    enabled: bool = True
    """`false` refuses the source's credentials from the next reload on, and invalidates the tokens made from them."""
    audiences: Names | None = None
    """The audiences that its credentials may reach; `["*"]` for all. Required if there are several sources."""
    namespace: Namespace | None = None
    """The prefix of the minted `sub`, `""` for none. Required if there are several sources."""
    same_subjects: bool = False
    """`true` confirms that two sources share a namespace because their subjects are the same people."""
    require: Rule | None = None
    """A CEL rule over the proven credential that must be `true`, else `requirement_failed`."""
    identity: dict[str, Rule]
    """CEL per attribute over the proven credential; `subject` is required."""

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from ()


class Source(Protocol):
    """A configured source at run time: one instance of a kind."""

    name: str
    limits: Limits

    @property
    def trouble(self) -> str:
        """Why the last access to an external dependency failed, "" if it succeeded; for operators."""

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove a presented credential and return its facts. May wait. Raises Refusal."""

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Return whether `prove` would neither wait nor compute for long. Never waits, never raises."""

    def key_current(self, proof_key: str) -> bool:
        """Return whether the key that proved a credential is still in the source's key set. Never waits."""


class Kind(Protocol):
    """A kind of credential with all its sources: finds the one source of a credential."""

    token_types: frozenset[str]

    def recognise(self, credential: Credential) -> Presented | None:
        """Parse a credential as far as needed to find its source; None if it is of another kind. Never waits.

        Raises Refusal if the credential is of this kind but malformed, or of an unknown source.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """The enabled sources by name, and the kinds that read credentials for them."""

    kinds: tuple[Kind, ...]
    by_name: Mapping[str, Source]

    def present(self, credential: Credential) -> Presented:
        """Find the one source of a credential, without proving it and without waiting.

        Raises BAD_TYPE for a declared type of no kind, before the credential is parsed (RFC 8693 §3); UNKNOWN_ISSUER if
        no kind accepts the credential; and what the kind raises.
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
        """Return whether `prove` would neither wait nor compute for long."""
        return self.by_name[presented.prover].at_hand(presented, now)

    def limits(self, presented: Presented) -> Limits:
        """Return the limits that the configuration of the source sets for its principals."""
        return self.by_name[presented.prover].limits

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Return whether the key with which `prover` proved a credential is still in its key set."""
        found = self.by_name.get(prover)
        return found is not None and found.key_current(proof_key)
