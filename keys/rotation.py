"""Change the ring in a store, by compare-and-swap.

Every writer decides again on the ring that it really replaces. If two operators rotate at the same time, one succeeds
and the other finds a ring in which the rotation has happened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from keys import transitions
from keys.errors import Conflict, KeysError, RingMissing
from keys.lifecycle import Schedule, due_in, guard_missing
from keys.record import Ring
from keys.replica_report import Sighting
from keys.signer import Pair, generate
from keys.store import Store
from keys.transitions import Wanted

_ATTEMPTS: Final = 20

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rotation of one algorithm would do; durations in seconds from now.

    - `signing`, `standby`: the `kid` of each; `signing` is "" for a new algorithm whose first key is a standby.
    - `due_in`: the time until the rotation is due; negative if it is overdue.
    - `guard_missing`: the time until the standby may sign; 0 if it may.
    - `late`: the replica for which the standby waits, "" if none.
    """

    algorithm: str
    signing: str
    standby: str
    due_in: float
    guard_missing: float
    late: str = ""

    @property
    def due(self) -> bool:
        """Whether `rotate_every` has passed since the signing key became active."""
        return self.due_in <= 0


def plan(ring: Ring, algorithm: str, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()) -> Plan:
    """Return what `rotate` would do with `ring` at `now`. Raises KeysError if the algorithm has no standby."""
    signing, standby = ring.signing(algorithm), ring.standby(algorithm)
    if standby is None:
        raise KeysError(f"the ring has no {algorithm} key to rotate, or no standby for it")
    missing, late = guard_missing(standby, now, schedule, sightings)
    return Plan(
        algorithm=algorithm,
        signing="" if signing is None else signing.kid,
        standby=standby.kid,
        due_in=missing if signing is None else due_in(signing, now, schedule),
        guard_missing=missing,
        late=late,
    )


def create(store: Store, clock: Clock, wanted: Wanted) -> tuple[Ring, bool]:
    """Create the first ring if the store has none; returns the ring in the store and whether this call created it.

    Processes that start at the same time on an empty store all end with the same ring.
    """
    try:
        return store.load(), False
    except RingMissing:
        ring = transitions.first_ring(_pairs(wanted.algorithms), clock(), wanted)
    try:
        store.compare_and_swap(None, ring)
    except Conflict:
        return store.load(), False
    return ring, True


def prepare(store: Store, clock: Clock, wanted: Wanted) -> tuple[Ring, bool]:
    """Write the requirements of a configuration into the ring; call it *before* the service uses that configuration.

    The ring records the token lifetime before the first such token is minted, and publishes a standby for each
    algorithm that has none. Returns the ring in the store and whether this call changed it.
    """
    fresh = _Fresh()

    def change(ring: Ring) -> Ring:
        now = clock()
        missing = [name for name in wanted.algorithms if ring.standby(name) is None]
        return transitions.added(transitions.noted(ring, now, wanted), [fresh.of(name) for name in missing], now)

    return _swap(store, change)


def rotate(
    store: Store,
    clock: Clock,
    wanted: Wanted,
    algorithms: Collection[str] | None = None,
    *,
    only_if_due: bool = False,
    force: bool = False,
) -> tuple[Ring, tuple[str, ...]]:
    """Rotate the ring in the store; returns the ring in the store and the algorithms that this call rotated.

    Args:
        store: The store of the ring.
        clock: Returns Unix seconds.
        wanted: The requirements of the configuration.
        algorithms: The algorithms to rotate. None: all that the configuration uses; the others are retired.
        only_if_due: Rotate an algorithm only if `rotate_every` has passed.
        force: Skip the guard.

    Raises:
        GuardRefused: A standby may not sign yet, with the missing seconds. If two operators rotate at the same time,
            the second one gets this error.
    """
    fresh, done = _Fresh(), list[str]()

    def change(ring: Ring) -> Ring:
        now, sightings = clock(), tuple(store.sightings())
        asked = wanted.algorithms if algorithms is None else algorithms
        plans = [plan(ring, name, now, wanted.schedule, sightings) for name in asked]
        done[:] = [one.algorithm for one in plans if one.due or not only_if_due]
        if not done:
            return ring
        ring = transitions.rotated(ring, [fresh.of(name) for name in done], now, wanted, sightings, force=force)
        unwanted = set(ring.algorithms) - set(wanted.algorithms) if algorithms is None else ()
        return transitions.retired(ring, unwanted, now)

    ring, changed = _swap(store, change)
    return ring, tuple(done) if changed else ()


def revoke(store: Store, clock: Clock, kid: str) -> Ring:
    """Revoke one key in the store. Raises KeysError if the key is missing or already revoked."""
    fresh = _Fresh()

    def change(ring: Ring) -> Ring:
        key = ring.find(kid)
        return transitions.revoked(ring, kid, fresh.of("" if key is None else key.algorithm), clock())

    return _swap(store, change)[0]


def revoke_all(store: Store, clock: Clock, wanted: Wanted) -> Ring:
    """Revoke every key in the store; new keys of the configured algorithms sign at once."""
    pairs = _pairs(wanted.algorithms)

    def change(ring: Ring) -> Ring:
        return replace(transitions.all_revoked(ring, pairs, clock()), default=wanted.default)

    return _swap(store, change)[0]


def import_key(store: Store, clock: Clock, pair: Pair) -> Ring:
    """Make an imported key the standby of its algorithm. Raises KeyUnfit."""
    return _swap(store, lambda ring: transitions.imported(ring, pair, clock()))[0]


def reseal(store: Store) -> Ring:
    """Write the unchanged ring again, so that it is sealed with the first seal key."""
    return _swap(store, replace)[0]


class _Fresh:
    """New key pairs, one per algorithm, generated at most once although a change may be retried."""

    def __init__(self) -> None:
        self._made: dict[str, Pair] = {}

    def of(self, algorithm: str) -> Pair:
        if algorithm not in self._made:
            self._made[algorithm] = generate(algorithm)
        return self._made[algorithm]


def _pairs(algorithms: Iterable[str]) -> list[tuple[Pair, Pair]]:
    return [(generate(name), generate(name)) for name in algorithms]


def _swap(store: Store, change: Callable[[Ring], Ring]) -> tuple[Ring, bool]:
    """Apply `change` to the ring in the store, again after each conflict; returns the ring and whether it changed."""
    for _ in range(_ATTEMPTS):
        ring = store.load()
        changed = change(ring)
        if changed is ring:
            return ring, False
        changed = replace(changed, version=ring.version + 1)
        try:
            store.compare_and_swap(ring.version, changed)
        except Conflict:
            continue
        return changed, True
    raise Conflict(f"{store.place} is being changed by others all the time")
