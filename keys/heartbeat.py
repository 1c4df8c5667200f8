"""How a replica keeps its word to the store: what it publishes, and until when at most (see `sighting`)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from os import getpid
from typing import Final

from keys.lifecycle import Schedule, is_published
from keys.record import Ring
from keys.replica_report import Sighting, ended, here, is_alive
from keys.store import Store

_KEPT_S: Final = 3600.0


class Presence:
    """One replica, by a name that no other ever has; `until` is when it must stop publishing.

    It is to be made in the process that publishes, after the fork.
    """

    def __init__(self, store: Store, clock: Callable[[], float], ring: Ring) -> None:
        self._store = store
        self._clock = clock
        self._host, self._pid = here(), getpid()
        self._name = f"{self._host}-{self._pid}-{secrets.token_hex(4)}"
        self._since = {key.kid: 0.0 for key in ring.keys}  # what it publishes first it never published without
        self._told: Sighting | None = None
        self._unsaid_until = 0.0
        self._guard = 0.0
        self._held: dict[float, float] = {}  # each guard that was in force: until when its verifiers hold what they got

    @property
    def until(self) -> float:
        """Until when this replica publishes; Unix seconds."""
        return max(self._unsaid_until, 0.0 if self._told is None else self._told.until)

    def took(self, ring: Ring) -> None:
        """The replica publishes `ring` from now on."""
        now = self._clock()
        self._since = {key.kid: self._since.get(key.kid, now) for key in ring.keys}

    def tell(self, ring: Ring, seen_at: float, schedule: Schedule) -> None:
        """Say what is published, and that it ends unless the store is seen again. Raises StoreUnavailable.

        It ends with the last token that the replica may sign meanwhile: what is kept for a retired key is kept for the
        whole JWKS. Where the store shows its ring but takes no word (its disk is full), the replica publishes for one
        `poll` from each look: every guard allows for a replica that is one poll late, said or not.
        """
        self._unsaid_until = seen_at + schedule.poll
        since = {key.kid: self._since[key.kid] for key in ring.keys if is_published(key, seen_at)}
        until = seen_at + ring.keep
        guard = self._longest(schedule.guard)
        told = Sighting(self._name, self._host, self._pid, ring.version, seen_at, until, guard, since)
        self._store.report(told)
        self._told = told

    def _longest(self, guard: float) -> float:
        """The longest guard under which a verifier may still hold a JWKS from here; `guard` is in force from now on.

        A shorter `jwks_max_age` does not shorten what was fetched before it.
        """
        now = self._clock()
        self._held[self._guard] = now + self._guard
        self._guard = guard
        self._held = {one: until for one, until in self._held.items() if until > now}
        return max(guard, *self._held, 0.0)

    def leave(self) -> None:
        """Say that nothing is published any more. Raises StoreUnavailable."""
        if self._told is not None:
            self._told = replace(self._told, until=min(self._told.until, self._clock()))
            self._store.report(self._told)

    def tidy(self, schedule: Schedule) -> None:
        """Speak for those of this host that were killed, and drop those whose word counts no more.

        Raises StoreUnavailable.
        """
        now, found = self._clock(), tuple(self._store.sightings())
        for one in ended(found, self._host, is_alive, now):
            self._store.report(replace(one, until=now))
        for one in found:
            if one.until + max(one.guard, schedule.guard) + _KEPT_S < now:
                self._store.forget(one.replica)
