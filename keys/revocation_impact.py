"""What a revocation means for those outside: how long who may still believe the key, or not know its successor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from keys.lifecycle import Schedule, lacked_for
from keys.record import Ring
from keys.replica_report import Sighting


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds from now on.

    `believed` is how long a verifier may keep a JWKS that has the revoked key; `unknown` how long a slow one may lack
    a key that signs now, 0 if none does. `out_of_sight` are the replicas that do not know of the revocation, each with
    the seconds for which it, and verifiers that ask it, may go on with the revoked key unless it is stopped.
    """

    believed: float
    unknown: float
    out_of_sight: tuple[tuple[str, float], ...]


def bounds(before: Ring, ring: Ring, now: float, schedule: Schedule, sightings: Iterable[Sighting]) -> Bounds:
    """Say what the step from `before` to `ring`, a revocation, means outside.

    `sightings` are to be read at `now`, once each replica has had the time of a `poll` to look at the store.
    """
    sightings = tuple(sightings)
    guard = max(before.guard, schedule.guard, *(one.guard for one in sightings))
    signed = {key.kid for key in before.keys if key.signs}
    new = [key for key in ring.keys if key.signs and key.kid not in signed]
    unknown = max((lacked_for(key, now, schedule, sightings)[0] for key in new), default=0.0)
    lost = [
        (one.replica, one.until + guard - now) for one in sightings if one.version < ring.version and one.until > now
    ]
    return Bounds(guard, unknown, tuple(lost))


def foreseen(ring: Ring, now: float, schedule: Schedule, sightings: Iterable[Sighting]) -> list[Sighting]:
    """The sightings as they will be once each replica that looks at the store has taken `ring`."""
    late = now - 3 * schedule.poll - schedule.clock_skew
    return [
        one
        if one.seen_at < late
        else replace(
            one, version=ring.version, since={key.kid: one.since.get(key.kid, now + schedule.poll) for key in ring.keys}
        )
        for one in sightings
    ]
