"""Credentials that may be used once: marked when they are proven, refused when they come again."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from sts.errors import REPLAYED, STATE_UNAVAILABLE, Refusal
from sts.state.settings import Outage
from sts.state.state import AlreadyMarkedError, State, StateUnavailableError

LABEL: Final = "once-only marks"
"""The label under which the key of the marks is derived from the deployment secret."""


class OnceOnly:
    """Marks proofs in the store. `secret` is the deployment's key for `LABEL`; `on_outage` as `state.on_outage.replay`.

    `waved_through` hears why, each time that a proof passes unmarked.
    """

    def __init__(
        self, state: State, secret: bytes, on_outage: Outage, waved_through: Callable[[str], None] = lambda _: None
    ) -> None:
        self._state = state
        self._secret = secret
        self.on_outage = on_outage
        self._waved_through = waved_through

    def mark(self, kind: str, *parts: str, until: float) -> None:
        """Take a *proven* credential of this `kind`, named by `parts` (such as issuer and jti), or refuse it.

        `until` (Unix seconds) is when nobody takes it any more, leeway included. What stands in the store is a hash.
        Raises Refusal: REPLAYED, or STATE_UNAVAILABLE where it cannot be told and `on_outage` says deny.
        """
        text = "".join(f"{len(part)}:{part}" for part in (kind, *parts))
        key = hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256")
        try:
            self._state.mark(key, until)
        except AlreadyMarkedError:
            raise Refusal(REPLAYED, why="it was used before", what=kind) from None
        except StateUnavailableError as error:
            if self.on_outage == "deny":
                raise Refusal(STATE_UNAVAILABLE, why=str(error), what=kind) from None
            self._waved_through(str(error))
