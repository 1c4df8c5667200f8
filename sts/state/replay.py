"""Credentials that may be used once: marked when they are proven, refused when they come again."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from sts.errors import REPLAYED, STATE_UNAVAILABLE, Refusal
from sts.state.settings import Outage
from sts.state.state import AlreadyMarkedError, State, StateUnavailableError

LABEL: Final = "once-only marks"
"""The label under which the key of the marks is derived from the deployment secret."""


class OnceOnly:
    """Marks proofs in the store. `on_outage` is `state.on_outage.replay`, and may be replaced by a reload.

    `secrets` are the deployment's keys for `LABEL`: as long as there is a previous secret each proof is marked under
    both, so that replacing it lets nothing pass a second time. `waved_through` hears why, each time that a proof
    passes unmarked; `on_fault` hears when marking begins to fail. `lost` says why the store may have lost its marks,
    "" if it has not: then a proof may have been used before, as on an outage.
    """

    def __init__(
        self,
        state: State,
        secrets: Sequence[bytes],
        on_outage: Outage,
        waved_through: Callable[[str], None] = lambda _: None,
        on_fault: Callable[[str], None] = lambda _: None,
        lost: Callable[[], str] = lambda: "",
    ) -> None:
        self._state = state
        self._secrets = tuple(secrets)
        self.on_outage = on_outage
        self._waved_through = waved_through
        self._on_fault = on_fault
        self._lost = lost
        self.trouble = ""

    def mark(self, kind: str, *parts: str, until: float) -> None:
        """Take a *proven* credential of this `kind`, named by `parts` (such as issuer and jti), or refuse it.

        `until` (Unix seconds) is when nobody takes it any more, leeway included. What stands in the store is a hash.
        Raises Refusal: REPLAYED, or STATE_UNAVAILABLE where it cannot be told and `on_outage` says deny.
        """
        lost = self._lost()
        if lost and self.on_outage == "deny":
            raise Refusal(STATE_UNAVAILABLE, why=lost, what=kind)
        if lost:
            self._waved_through(lost)
        text = "".join(f"{len(part)}:{part}" for part in (kind, *parts))
        try:
            for secret in self._secrets:
                self._state.mark(hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256"), until)
            self.trouble = ""
        except AlreadyMarkedError:
            self.trouble = ""
            raise Refusal(REPLAYED, why="it was used before", what=kind) from None
        except StateUnavailableError as error:
            self._failed(str(error))
            if self.on_outage == "deny":
                raise Refusal(STATE_UNAVAILABLE, why=str(error), what=kind) from None
            self._waved_through(str(error))

    def _failed(self, why: str) -> None:
        """Keep why the last mark failed, for operators; a fault is logged once and not with every request."""
        known, self.trouble = self.trouble, why
        if why != known:
            self._on_fault(f"a once-only proof could not be marked: {why}")
