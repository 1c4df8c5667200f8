"""What one worker holds of the state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sts.state.once import OnceOnly
from sts.state.revocations import Revocations
from sts.state.settings import StateSettings
from sts.state.state import State


@dataclass(frozen=True, slots=True)
class StateAtWork:
    """The store, what is marked there once, and the list of revocations that follows it. Made after the fork."""

    store: State
    once: OnceOnly
    revocations: Revocations

    @classmethod
    def of(
        cls,
        store: State,
        settings: StateSettings,
        *,
        audit_secret: bytes,
        once_secret: bytes,
        on_fault: Callable[[str], None] = lambda _: None,
        unmarked: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> StateAtWork:
        """Put a store to work; `start` begins to follow it.

        The secrets are the deployment's keys for the audit's label and for `once.LABEL`; `on_fault` hears when the
        store begins to be out of reach, `unmarked` each time that a credential passes without a mark.
        """
        return cls(
            store,
            OnceOnly(store, once_secret, settings.on_outage.replay, unmarked),
            Revocations(store, audit_secret, settings, on_fault, monotonic),
        )

    def start(self) -> None:
        """Look at the store now, and from now on every second."""
        self.revocations.start()

    def reconfigure(self, settings: StateSettings) -> None:
        """Take what a reload may change: `on_outage`, `max_stale`."""
        self.once.on_outage = settings.on_outage.replay
        self.revocations.settings = settings

    def close(self) -> None:
        """Stop following, and let go of the store."""
        self.revocations.stop()
        self.store.close()
