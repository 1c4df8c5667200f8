"""What state a key is in, and how long things take. Pure: the clock is an argument, nothing here reads or writes."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from keys.record import KeyRecord
from keys.replica_report import Sighting, lacking


class State(enum.StrEnum):
    """The stations of a key's life in their order; a key never moves back."""

    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The numbers of the `keys` section, all in seconds.

    `rotate_every` is an alarm, never an end: a key signs on until it is rotated. `jwks_max_age` is the `max-age` we
    answer the JWKS with; `verifier_refresh` how long the slowest verifier keeps it beyond that; `clock_skew` how far
    two clocks differ at most; `poll` how often a replica looks at the store; `store_grace` how long it signs without
    having seen it.
    """

    rotate_every: float
    jwks_max_age: float
    verifier_refresh: float
    clock_skew: float
    poll: float
    store_grace: float

    @property
    def guard(self) -> float:
        """How long a key is published before every verifier has it: it must not sign earlier (RO-02).

        A replica publishes it one `poll` late; a cache on the way and a verifier may have fetched just before that.
        """
        return self.jwks_max_age + self.verifier_refresh + self.clock_skew + self.poll

    @property
    def signs_on(self) -> float:
        """How long a replica may still sign with a key that was retired without its knowing."""
        return max(self.poll, self.store_grace)

    def keep(self, longest_ttl: float) -> float:
        """How long a retired key stays published: until the last token it may have signed is over (RO-03)."""
        return self.signs_on + longest_ttl + self.clock_skew


def state(record: KeyRecord, now: float) -> State:
    """The state of a key at `now`. It never moves back while the clock goes on.

    A revocation holds at once, even on a replica whose clock is behind the one that wrote it.
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
    """Whether the JWKS shows the key at `now`."""
    return state(record, now) not in (State.REMOVED, State.REVOKED)


def guard_missing(
    standby: KeyRecord, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()
) -> tuple[float, str]:
    """How many seconds are missing until `standby` may sign, 0 if it may; and which replica is the reason, if one is.

    As `lacked_for` says; but what replicas say of a standby is not asked before each had the time to look at the ring.
    """
    looking = standby.published_at + schedule.poll + schedule.clock_skew
    early = lacked_for(standby, now, schedule)
    return early if early[0] > 0 and now < looking else lacked_for(standby, now, schedule, sightings)


def lacked_for(key: KeyRecord, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()) -> tuple[float, str]:
    """How many seconds a verifier may still lack `key`, 0 if none does; and which replica is the reason, if one is.

    The longest of all guards counts: the one in force when it was published (verifiers fetched under that one), the
    one in force now, and those of replicas that work by another configuration. It counts anew from when the last
    replica began to publish the key: verifiers may have fetched there until then.
    """
    sightings = tuple(sightings)
    guard = max(key.ready_at - key.published_at, schedule.guard, *(one.guard for one in sightings))
    missing, late = key.published_at + guard - now, ""
    lacked, replica = lacking(sightings, key.kid)
    if lacked + guard - schedule.poll - now > missing:
        missing, late = lacked + guard - schedule.poll - now, replica
    return (missing, late) if missing > 0 else (0.0, "")


def due_in(signing: KeyRecord, now: float, schedule: Schedule) -> float:
    """How many seconds are left until the signing key should be rotated; negative once that is overdue."""
    if signing.active_at is None:
        raise ValueError("the key never began to sign")
    return signing.active_at + schedule.rotate_every - now
