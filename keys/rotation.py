"""The changes of a ring over a store, by compare-and-swap.

Every writer decides anew on the ring that it really replaces: of two operators at once one wins, and the other meets a
ring in which the rotation has happened.
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
    """What a rotation of one algorithm would do, and when: seconds from now.

    `signing` is "" for an algorithm that was added and whose first key waits. `due_in` is negative once the rotation
    is overdue; `guard_missing` is 0 once the standby may sign, and `late` names the replica that it waits for.
    """

    algorithm: str
    signing: str
    standby: str
    due_in: float
    guard_missing: float
    late: str = ""

    @property
    def due(self) -> bool:
        """Whether `rotate_every` has passed since the signing key began."""
        return self.due_in <= 0


def plan(ring: Ring, algorithm: str, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()) -> Plan:
    """Say what `rotate` would do with `ring` at `now`. Raises KeysError if the algorithm has no standby."""
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
    """Make the first ring unless there is one; returns the ring in the store and whether it was made here.

    Processes that start at once on an empty store end with one and the same ring.
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
    """Write into the store what a configuration wants; to be done *before* a service works by it.

    The ring learns how long tokens may live before the first of them is minted, and publishes a standby for each
    algorithm that it has no key of. Returns the ring in the store and whether it was changed here.
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
    """Rotate in the store; returns the ring in the store and the algorithms that were rotated here.

    `algorithms` is None for all that are wanted; those that nobody wants any more retire then. With `only_if_due`
    nothing is done before `rotate_every` has passed. Raises GuardRefused, with the seconds missing, also for the loser
    of two operators at once; `force` skips that guard.
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
    """Revoke one key in the store. Raises KeysError if it is not there or revoked already."""
    fresh = _Fresh()

    def change(ring: Ring) -> Ring:
        key = ring.find(kid)
        return transitions.revoked(ring, kid, fresh.of("" if key is None else key.algorithm), clock())

    return _swap(store, change)[0]


def revoke_all(store: Store, clock: Clock, wanted: Wanted) -> Ring:
    """Revoke every key in the store, and sign with fresh ones of the wanted algorithms at once."""
    pairs = _pairs(wanted.algorithms)

    def change(ring: Ring) -> Ring:
        return replace(transitions.all_revoked(ring, pairs, clock()), default=wanted.default)

    return _swap(store, change)[0]


def import_key(store: Store, clock: Clock, pair: Pair) -> Ring:
    """Let a key from elsewhere be the standby of its algorithm. Raises KeyUnfit."""
    return _swap(store, lambda ring: transitions.imported(ring, pair, clock()))[0]


def reseal(store: Store) -> Ring:
    """Write the ring anew, as it is, so that it is sealed with the first of the seal keys."""
    return _swap(store, replace)[0]


class _Fresh:
    """New key pairs, one per algorithm, made at most once however often a change is tried."""

    def __init__(self) -> None:
        self._made: dict[str, Pair] = {}

    def of(self, algorithm: str) -> Pair:
        if algorithm not in self._made:
            self._made[algorithm] = generate(algorithm)
        return self._made[algorithm]


def _pairs(algorithms: Iterable[str]) -> list[tuple[Pair, Pair]]:
    return [(generate(name), generate(name)) for name in algorithms]


def _swap(store: Store, change: Callable[[Ring], Ring]) -> tuple[Ring, bool]:
    """Apply `change` to the ring in the store, anew after each write of somebody else; says whether it changed."""
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
