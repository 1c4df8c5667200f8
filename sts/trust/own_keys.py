"""Our own published keys, for those who are handed a token of ours back: the issuer's keys, without a fetch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sts.errors import NO_KEY, Refusal
from sts.jose import SUPPORTED, UnfitError, VerifyKey, import_jwks
from sts.trust.key_source import LookUp


class OwnKeys:
    """A `KeySource` over `jwks(now)`, the key set that we publish: a key that left it, or was revoked, is unknown."""

    trouble = ""

    def __init__(self, jwks: Callable[[float], Mapping[str, Any]], clock: Callable[[], float]) -> None:
        self._jwks, self._clock = jwks, clock
        # One reference, replaced as a whole: threads may find it in either state.
        self._known: tuple[tuple[str, ...], LookUp] | None = None

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """As KeySource says; never waits. NO_KEY where nothing is published."""
        keys = self._keys(now)
        found = keys.find(kid, algorithm)
        if not found:
            raise keys.unknown(kid, algorithm)
        return found

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return thumbprint in self._keys(self._clock()).thumbprints

    def _keys(self, now: float) -> LookUp:
        published = self._jwks(now)
        kids = tuple(key["kid"] for key in published["keys"])
        known = self._known
        if known is None or known[0] != kids:
            try:
                known = self._known = (kids, LookUp(import_jwks(published, sorted(SUPPORTED))))
            except UnfitError:
                raise Refusal(NO_KEY, why="no key of ours is published") from None
        return known[1]
