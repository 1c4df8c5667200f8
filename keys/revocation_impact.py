"""How long verifiers may still trust a revoked key, or lack its successor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from keys.lifecycle import Schedule, lacked_for
from keys.record import Ring
from keys.replica_report import Sighting


@dataclass(frozen=True, slots=True)
class Bounds:
    """The impact of a revocation, in seconds from now.

    - `believed`: how long a verifier may keep a JWKS with the revoked key.
    - `unknown`: how long a slow verifier may lack a key that signs now, 0 if none does.
    - `out_of_sight`: the replicas that have not read the revocation. Each has the seconds for which the replica, and
      the verifiers that fetch its JWKS, may continue to use the revoked key unless the replica is stopped.
    """

    believed: float
    unknown: float
    out_of_sight: tuple[tuple[str, float], ...]


def bounds(before: Ring, ring: Ring, now: float, schedule: Schedule, sightings: Iterable[Sighting]) -> Bounds:
    """Return the impact of the revocation that changed `before` to `ring`.

    Read `sightings` at `now`, after each replica had the time of one `poll` to read the store.
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
    """Return the reports as they will be when each replica that reads the store has loaded `ring`."""
    late = now - 3 * schedule.poll - schedule.clock_skew
    return [
        one
        if one.seen_at < late
        else replace(
            one, version=ring.version, since={key.kid: one.since.get(key.kid, now + schedule.poll) for key in ring.keys}
        )
        for one in sightings
    ]
