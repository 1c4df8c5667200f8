"""What one worker holds of the state."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sts.errors import StartError
from sts.redis_link import PATIENT, RedisLink, RedisSettings
from sts.state import key_records, replay
from sts.state.api_keys import ApiKeys
from sts.state.continuity import NAMESPACE as ACCEPTED
from sts.state.continuity import Continuity, seen_file
from sts.state.key_records import NAMESPACE as KEYS
from sts.state.key_records import KeyRecords
from sts.state.last_used import LastUsed
from sts.state.redis_state import RedisState
from sts.state.replay import OnceOnly
from sts.state.revocations import NAMESPACE as REVOCATIONS
from sts.state.revocations import Revocations
from sts.state.settings import StateSettings
from sts.state.sqlite import FILE, SqliteState
from sts.state.state import State
from sts.telemetry import Reading

FOLLOWED = (REVOCATIONS, KEYS)
"""The namespaces of which each worker has a copy."""


@dataclass(frozen=True, slots=True)
class StateAtWork:
    """The store, what is marked there once, and the revocations and API keys that follow it. Made after the fork."""

    store: State
    once: OnceOnly
    revocations: Revocations
    keys: ApiKeys
    used: LastUsed

    @classmethod
    def of(  # noqa: PLR0913 - once for each worker
        cls,
        store: State,
        settings: StateSettings,
        *,
        audit_secrets: Sequence[bytes],
        derive: Callable[[str], Sequence[bytes]],
        clock: Callable[[], float],
        on_fault: Callable[[str], None] = lambda _: None,
        unmarked: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        var: Path | None = None,
    ) -> StateAtWork:
        """Put a store to work; `start` begins to follow it.

        `audit_secrets` are the deployment's keys for the audit's label, the present one and the previous secret's;
        `derive` gives those for other labels; `on_fault` hears when the store begins to be out of reach, or holds a
        record that is not authentic, `unmarked` each time that a credential passes without a mark. `var` is where what
        was seen of the store outlives the process; without it only this worker remembers.
        """
        seen = {
            name: Continuity(store, name, None if var is None else seen_file(var, settings.store, name), clock)
            for name in FOLLOWED
        }
        revocations = Revocations(store, audit_secrets, settings, on_fault, monotonic, seen[REVOCATIONS])
        keys = ApiKeys(KeyRecords(store, derive(key_records.LABEL)), clock, settings, on_fault, monotonic, seen[KEYS])
        return cls(
            store,
            OnceOnly(
                store,
                derive(replay.LABEL),
                settings.on_outage.replay,
                unmarked,
                on_fault,
                lost=lambda: revocations.lost or keys.follower.lost,
            ),
            revocations,
            keys,
            LastUsed(store, keys.used),
        )

    @property
    def lost(self) -> str:
        """Why the store is not the one that was seen before, "" if it is."""
        return self.revocations.lost or self.keys.follower.lost

    @property
    def troubles(self) -> dict[str, str]:
        """What does not work although the service goes on, by what it concerns; "" for what works."""
        return {"state": self.lost, "once-only marks": self.once.trouble, "last use of API keys": self.used.trouble}

    def readings(self) -> list[Reading]:
        """For Prometheus."""
        lost = Reading("sts_state_lost", "1 while the state store is not the one seen before.", bool(self.lost))
        return [*self.revocations.readings(), lost]

    def start(self) -> None:
        """Look at the store now, and from now on every second."""
        self.revocations.start()
        self.keys.follower.start()
        self.used.start()

    def reconfigure(self, settings: StateSettings) -> None:
        """Take what a reload may change: `on_outage`, `max_stale`."""
        self.once.on_outage = settings.on_outage.replay
        self.revocations.settings = settings
        self.keys.settings = settings

    def close(self) -> None:
        """Stop following, and let go of the store."""
        self.revocations.stop()
        self.keys.follower.stop()
        self.used.stop()
        self.store.close()


def open_state(settings: StateSettings, redis: RedisSettings | None, var: Path, clock: Callable[[], float]) -> State:
    """The store that the settings name; nothing is opened or made before it is used or checked. Raises StartError."""
    if settings.store == "sqlite":
        return SqliteState(var / FILE, clock)
    if redis is None:
        raise StartError("state.store: redis needs the section `redis`")
    return RedisState(RedisLink(redis), RedisLink(redis, PATIENT), clock, urgent={REVOCATIONS, ACCEPTED})
