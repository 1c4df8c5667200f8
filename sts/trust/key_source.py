"""Where an issuer's keys come from, for those who prove tokens: the protocol, the look-up, and keys from a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Final, Protocol

from sts.errors import BAD_ALGORITHM, UNKNOWN_KEY, Refusal, StartError
from sts.jose import KeySet, UnfitError, VerifyKey, import_jwks
from sts.options import KeptFile

MAX_TRIES: Final = 4
"""Keys that are tried for one token: each costs a verification, and an attacker chooses the token."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """The keys that may have signed a token with this header: at least one, at most MAX_TRIES. May wait.

        Raises UNKNOWN_KEY, BAD_ALGORITHM if the key with this `kid` may not verify `algorithm`, or SOURCE_UNREACHABLE.
        """

    def current(self, thumbprint: str) -> bool:
        """Whether the key with this RFC 7638 thumbprint is in the set in force. Never waits."""

    @property
    def trouble(self) -> str:
        """Why the last attempt to get the keys failed, "" if it did not; for operators."""


class LookUp:
    """The keys of one set, found by a token's header."""

    def __init__(self, keys: KeySet) -> None:
        by_kid: defaultdict[str | None, list[VerifyKey]] = defaultdict(list)
        for key in keys.keys:
            by_kid[key.kid].append(key)
        self._by_kid = {kid: tuple(same) for kid, same in by_kid.items() if kid is not None}
        self._all = keys.keys
        self.thumbprints = frozenset(key.thumbprint for key in keys.keys)
        self.left_out = "; ".join(keys.skipped[:5])

    def find(self, kid: str | None, algorithm: str) -> tuple[VerifyKey, ...]:
        """The fitting keys: those with exactly this `kid`, or all for a token without one; () if there is none.

        Raises BAD_ALGORITHM if `kid` is there but not for `algorithm`, so that no fetch is made for it; UNKNOWN_KEY if
        more than MAX_TRIES would fit.
        """
        named = self._all if kid is None else self._by_kid.get(kid, ())
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if named and not fitting and kid is not None:
            raise Refusal(BAD_ALGORITHM, why="the key may not verify this algorithm", alg=algorithm, kid=kid)
        if len(fitting) > MAX_TRIES:
            raise Refusal(UNKNOWN_KEY, why="too many keys would fit", alg=algorithm, kid=kid)
        return fitting

    def unknown(self, kid: str | None, algorithm: str) -> Refusal:
        """The refusal of a token whose key is not there; it says which keys of the set could not be used and why."""
        why = "the issuer publishes no such key"
        return Refusal(UNKNOWN_KEY, why=why, alg=algorithm, kid=kid, left_out=self.left_out)


class FileJwks:
    """Keys from a JWK set file, as the configuration has read it: a reload reads it anew.

    Raises StartError if the file could not be read or leaves no usable key.
    """

    trouble = ""

    def __init__(self, file: KeptFile, algorithms: Collection[str]) -> None:
        try:
            self._keys = LookUp(import_jwks(file.read(), algorithms))
        except UnfitError as error:
            raise StartError(f"the JWK set file {file} cannot be used: {error}") from None

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:  # noqa: ARG002 - KeySource
        """As KeySource says; never waits."""
        found = self._keys.find(kid, algorithm)
        if not found:
            raise self._keys.unknown(kid, algorithm)
        return found

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return thumbprint in self._keys.thumbprints
