"""What stands in the pipeline of `sts explain` where a service would sign and remember."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from keys.errors import KeysError
from keys.jwks import jwks
from keys.record import Ring
from sts.errors import NO_KEY, Refusal, StartError
from sts.model_revocable import Revocable


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Stands where the keyring stands, so that a token can be shown without one being made.

    The ring is opened at first need: only to prove one of our own tokens.
    """

    ring: Callable[[], Ring]
    kid: str = "(not signed)"
    algorithm: str = "ES256"

    def signer(self, algorithm: str, _now: float) -> Unsigned:
        """As Keyring: one that names the algorithm."""
        return replace(self, algorithm=algorithm)

    def sign(self, _signing_input: bytes) -> bytes:
        """No signature."""
        return b""

    def published(self, _kid: str, _now: float) -> bool:
        """As Keyring; nothing is kept that it could void."""
        return True

    def jwks(self, now: float) -> dict[str, Any]:
        """The keys of the ring that the service has. Raises NO_KEY where there is none."""
        try:
            return jwks(self.ring(), now)
        except (KeysError, StartError) as error:
            raise Refusal(NO_KEY, why=str(error)) from None


class Unrevoked:
    """Stands where the state stands: nothing is revoked, nothing was used. Only the API keys are read."""

    def __init__(self, keys: object) -> None:
        self.revocations = self.once = self
        self.keys = keys

    def mark(self, *_: object, until: float) -> None:
        """Nothing was used before."""

    def gather(self, *_: object) -> Revocable:
        """Nothing by which anything could be revoked."""
        return Revocable(())

    def check(self, *_: object) -> None:
        """Nothing is revoked."""

    check_caller = check

    def current(self, *_: object) -> bool:
        """Nothing was revoked meanwhile."""
        return True

    def minted(self, revocable: Revocable, _: object) -> Revocable:
        """As Revocations."""
        return revocable
