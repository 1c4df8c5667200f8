"""By what a minted token can be revoked: a value that travels from the proof to the cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revocable:
    """Everything by which a revocation may name what a token was made from, gathered when it was proven.

    Each group holds the names of one thing (the subject's credential, an actor's, what the client was given) and since
    when that thing exists (Unix seconds): a revocation concerns what is no younger than itself. Names hold no text of
    a credential: `sts.state.revocations` makes them.
    """

    groups: tuple[tuple[float, tuple[str, ...]], ...]
