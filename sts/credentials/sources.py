"""All sources over all kinds: which source a credential is for, and the one way to a `Principal`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sts.credentials.kind import Kind, Source
from sts.errors import BAD_TYPE, UNKNOWN_ISSUER, Refusal
from sts.model import Credential, Limits, Presented, Principal


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

    def limits(self, presented: Presented) -> Limits:
        """What the source's configuration allows its principals."""
        return self.by_name[presented.prover].limits

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Whether the key that `prover` proved a credential with is still in its set in force."""
        found = self.by_name.get(prover)
        return found is not None and found.key_current(proof_key)
