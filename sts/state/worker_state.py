"""The state of one worker: the store, and its copies in memory."""

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
"""The namespaces of which each worker keeps a copy."""


@dataclass(frozen=True, slots=True)
class StateAtWork:
    """The store, the replay cache, and the copies of revocations and API keys. Create it after the fork."""

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
        """Build the state of a worker; call `start` to follow the store.

        Args:
            store: The store.
            settings: The `state` section.
            audit_secrets: The deployment's keys for the audit, of the present and the previous secret.
            derive: Returns the keys for another label.
            clock: Returns Unix seconds.
            on_fault: Called when the store becomes unreachable, or contains a record that is not authentic.
            unmarked: Called each time that a credential is accepted without a mark.
            monotonic: A monotonic clock in seconds.
            var: The folder of the files that detect a loss of the store across restarts; None: only in memory.
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
        """Why the store has lost its content (emptied, replaced or restored), "" if it has not."""
        return self.revocations.lost or self.keys.follower.lost

    @property
    def troubles(self) -> dict[str, str]:
        """The faults that do not stop the service, by topic; "" for no fault."""
        return {"state": self.lost, "once-only marks": self.once.trouble, "last use of API keys": self.used.trouble}

    def readings(self) -> list[Reading]:
        """Return the readings for Prometheus."""
        lost = Reading("sts_state_lost", "1 while the state store is not the one seen before.", bool(self.lost))
        return [*self.revocations.readings(), lost]

    def start(self) -> None:
        """Read the store now, and start the threads that read it every second."""
        self.revocations.start()
        self.keys.follower.start()
        self.used.start()

    def reconfigure(self, settings: StateSettings) -> None:
        """Apply the settings that a reload may change: `on_outage`, `max_stale`."""
        self.once.on_outage = settings.on_outage.replay
        self.revocations.settings = settings
        self.keys.settings = settings

    def close(self) -> None:
        """Stop the threads, and close the store."""
        self.revocations.stop()
        self.keys.follower.stop()
        self.used.stop()
        self.store.close()


def open_state(settings: StateSettings, redis: RedisSettings | None, var: Path, clock: Callable[[], float]) -> State:
    """Return the store of the settings; it is opened or created at the first use or check. Raises StartError."""
    if settings.store == "sqlite":
        return SqliteState(var / FILE, clock)
    if redis is None:
        raise StartError("state.store: redis needs the section `redis`")
    return RedisState(RedisLink(redis), RedisLink(redis, PATIENT), clock, urgent={REVOCATIONS, ACCEPTED})
