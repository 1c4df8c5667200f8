"""The replay cache: a one-time credential is marked when it is proven, and refused when it is used again."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from sts.errors import REPLAYED, STATE_UNAVAILABLE, Refusal
from sts.state.settings import Outage
from sts.state.state import AlreadyMarkedError, State, StateUnavailableError

LABEL: Final = "once-only marks"
"""The label for the derivation of the key for marks from the deployment secret."""


class OnceOnly:
    """Marks proofs in the store.

    Args:
        state: The store.
        secrets: The deployment's keys for `LABEL`. While there is a previous secret, each proof is marked under both,
            so that a replacement of the secret allows no replay.
        on_outage: The setting `state.on_outage.replay`; a reload may change it.
        waved_through: Called with the reason each time that a proof is accepted without a mark.
        on_fault: Called when marking begins to fail.
        lost: Returns why the store may have lost its marks, "" if it has not. A loss counts as an outage, because a
            proof may have been used before.
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
        """Mark a *proven* credential, or refuse it if it was marked before. The store contains only a hash.

        Args:
            kind: The kind of credential.
            parts: The identifiers of the credential, such as issuer and jti.
            until: When the credential has expired for every verifier, including leeway, in Unix seconds.

        Raises:
            REPLAYED: The credential was used before.
            STATE_UNAVAILABLE: The store cannot be used and `on_outage` is `deny`.
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
        """Record why the last mark failed, for operators; a fault is logged once, not for every request."""
        known, self.trouble = self.trouble, why
        if why != known:
            self._on_fault(f"a once-only proof could not be marked: {why}")
