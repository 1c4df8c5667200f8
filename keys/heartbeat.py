"""Report to the store which keys this replica publishes, and until when (see `replica_report`)."""

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
    """Sends the reports of one replica, under a unique name. The replica must stop publishing at `until`.

    Create the object after the fork, in the process that publishes: the report contains the process id.
    """

    def __init__(self, store: Store, clock: Callable[[], float], ring: Ring) -> None:
        self._store = store
        self._clock = clock
        self._host, self._pid = here(), getpid()
        self._name = f"{self._host}-{self._pid}-{secrets.token_hex(4)}"
        self._since = {key.kid: 0.0 for key in ring.keys}  # the initial keys count as always published
        self._told: Sighting | None = None
        self._unsaid_until = 0.0
        self._guard = 0.0
        self._held: dict[float, float] = {}  # guard -> until when verifiers may use a JWKS fetched under it

    @property
    def until(self) -> float:
        """The time until which this replica publishes, in Unix seconds."""
        return max(self._unsaid_until, 0.0 if self._told is None else self._told.until)

    def took(self, ring: Ring) -> None:
        """Record that the replica publishes `ring` from now on."""
        now = self._clock()
        self._since = {key.kid: self._since.get(key.kid, now) for key in ring.keys}

    def tell(self, ring: Ring, seen_at: float, schedule: Schedule) -> None:
        """Report what the replica publishes, and until when unless it reads the store again. Raises StoreUnavailable.

        The report expires with the last token that the replica may sign until then: the time for which a retired key
        stays published applies to the whole JWKS. If the store can be read but not written (its disk is full), the
        replica publishes for one `poll` after each read: every guard allows for a replica that is one poll late, also
        without a report.

        Args:
            ring: The ring that the replica publishes.
            seen_at: When the store was read, in Unix seconds.
            schedule: The schedule in force.
        """
        self._unsaid_until = seen_at + schedule.poll
        since = {key.kid: self._since[key.kid] for key in ring.keys if is_published(key, seen_at)}
        until = seen_at + ring.keep
        guard = self._longest(schedule.guard)
        told = Sighting(self._name, self._host, self._pid, ring.version, seen_at, until, guard, since)
        self._store.report(told)
        self._told = told

    def _longest(self, guard: float) -> float:
        """Return the longest guard under which a verifier may still use a JWKS from here; `guard` applies from now on.

        A shorter `jwks_max_age` does not shorten the life of a JWKS that was fetched before the change.
        """
        now = self._clock()
        self._held[self._guard] = now + self._guard
        self._guard = guard
        self._held = {one: until for one, until in self._held.items() if until > now}
        return max(guard, *self._held, 0.0)

    def leave(self) -> None:
        """Report that this replica has stopped publishing. Raises StoreUnavailable."""
        if self._told is not None:
            self._told = replace(self._told, until=min(self._told.until, self._clock()))
            self._store.report(self._told)

    def tidy(self, schedule: Schedule) -> None:
        """Expire the reports of dead processes on this host, and delete obsolete reports.

        Raises StoreUnavailable.
        """
        now, found = self._clock(), tuple(self._store.sightings())
        for one in ended(found, self._host, is_alive, now):
            self._store.report(replace(one, until=now))
        for one in found:
            if one.until + max(one.guard, schedule.guard) + _KEPT_S < now:
                self._store.forget(one.replica)
