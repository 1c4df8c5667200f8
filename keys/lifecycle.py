"""The state of a key, and the times of a rotation. Pure functions without I/O: the clock is an argument."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from keys.record import KeyRecord
from keys.replica_report import Sighting, lacking


class State(enum.StrEnum):
    """The states of a key, in their order. A key never moves back."""

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The durations of the `keys` section, all in seconds.

    - `rotate_every`: when a rotation is due. It triggers an alarm only: a key continues to sign until it is rotated.
    - `jwks_max_age`: the `max-age` of the JWKS response.
    - `verifier_refresh`: how long the slowest verifier keeps the JWKS beyond that.
    - `clock_skew`: the maximum difference of two clocks.
    - `poll`: how often a replica reads the store.
    - `store_grace`: how long a replica signs without having read the store.
    """

    rotate_every: float
    jwks_max_age: float
    verifier_refresh: float
    clock_skew: float
    poll: float
    store_grace: float

    @property
    def guard(self) -> float:
        """How long a key must be published until every verifier has it; it must not sign earlier (RO-02).

        A replica may publish the key one `poll` late. A cache and a verifier may have fetched the JWKS just before.
        """
        return self.jwks_max_age + self.verifier_refresh + self.clock_skew + self.poll

    @property
    def signs_on(self) -> float:
        """How long a replica that has not read the store may still sign with a key that another replica retired."""
        return max(self.poll, self.store_grace)

    def keep(self, longest_ttl: float) -> float:
        """Return how long a retired key stays published: until the last token that it may have signed expires (RO-03).

        `longest_ttl` is the longest lifetime of a token in seconds.
        """
        return self.signs_on + longest_ttl + self.clock_skew


def state(record: KeyRecord, now: float) -> State:
    """Return the state of a key at `now` (Unix seconds). It never moves back while the clock advances.

    A revocation applies at once, also on a replica whose clock is behind the clock of the writer.
    """
    if record.revoked_at is not None:
        return State.REVOKED
    if record.leaves_at is not None and record.leaves_at <= now:
        return State.REMOVED
    if record.retired_at is not None and record.retired_at <= now:
        return State.RETIRED
    if record.active_at is not None and record.active_at <= now:
        return State.ACTIVE
    return State.PUBLISHED


def is_published(record: KeyRecord, now: float) -> bool:
    """Return whether the JWKS shows the key at `now`."""
    return state(record, now) not in (State.REMOVED, State.REVOKED)


def guard_missing(
    standby: KeyRecord, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()
) -> tuple[float, str]:
    """Return the seconds until `standby` may sign (0 if it may), and the replica that causes the delay, else "".

    The result is that of `lacked_for`, but the reports of replicas count only after each replica had the time to read
    the ring.
    """
    looking = standby.published_at + schedule.poll + schedule.clock_skew
    early = lacked_for(standby, now, schedule)
    return early if early[0] > 0 and now < looking else lacked_for(standby, now, schedule, sightings)


def lacked_for(key: KeyRecord, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()) -> tuple[float, str]:
    """Return for how many seconds a verifier may still lack `key` (0 if none does), and the replica that causes it.

    The longest guard counts: the guard when the key was published (verifiers fetched under that one), the present
    guard, and the guards of replicas with another configuration. The guard starts again when the last replica begins
    to publish the key: verifiers may have fetched a JWKS without the key there until then.
    """
    sightings = tuple(sightings)
    guard = max(key.ready_at - key.published_at, schedule.guard, *(one.guard for one in sightings))
    missing, late = key.published_at + guard - now, ""
    lacked, replica = lacking(sightings, key.kid)
    if lacked + guard - schedule.poll - now > missing:
        missing, late = lacked + guard - schedule.poll - now, replica
    return (missing, late) if missing > 0 else (0.0, "")


def due_in(signing: KeyRecord, now: float, schedule: Schedule) -> float:
    """Return the seconds until the signing key should be rotated; negative if the rotation is overdue.

    Raises ValueError for a key that has never signed.
    """
    if signing.active_at is None:
        raise ValueError("the key never began to sign")
    return signing.active_at + schedule.rotate_every - now
