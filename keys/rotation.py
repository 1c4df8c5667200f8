"""What changes a ring: pure functions Ring -> Ring, and the same over a store by compare-and-swap.

Every writer decides anew on the ring that it really replaces: of two operators at once one wins, and the other meets a
ring in which the rotation has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from keys.errors import Conflict, GuardRefused, KeysError, RingMissing
from keys.lifecycle import Schedule, State, due_in, guard_missing, state
from keys.record import KeyRecord, Ring
from keys.signer import Pair, generate, signer_of
from keys.store import Store

_ATTEMPTS: Final = 20

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rotation of one algorithm would do, and when: seconds from now.

    `due_in` is negative once the rotation is overdue; `guard_missing` is 0 once the standby may sign.
    """

    algorithm: str
    signing: str
    standby: str
    due_in: float
    guard_missing: float

    @property
    def due(self) -> bool:
        """Whether `rotate_every` has passed since the signing key began."""
        return self.due_in <= 0


def plan(ring: Ring, algorithm: str, now: float, schedule: Schedule) -> Plan:
    """Say what `rotate` would do with `ring` at `now`. Raises KeysError if the algorithm has no key or no standby."""
    signing, standby = _both(ring, algorithm)
    return Plan(
        algorithm=algorithm,
        signing=signing.kid,
        standby=standby.kid,
        due_in=due_in(signing, now, schedule),
        guard_missing=guard_missing(standby, now, schedule),
    )


def first_ring(first: Pair, standby: Pair, now: float, schedule: Schedule, longest_ttl: float) -> Ring:
    """Make the first ring: one key that signs at once, since no verifier can know an older one, and its standby."""
    return Ring(
        version=1,
        longest_ttl=longest_ttl,
        keep=schedule.keep(longest_ttl),
        guard=schedule.guard,
        keys=(
            replace(_published(first, now, schedule.guard), active_at=now),
            _published(standby, now, schedule.guard),
        ),
    )


def rotated(ring: Ring, fresh: Pair, now: float, schedule: Schedule, longest_ttl: float) -> Ring:
    """Promote the standby of `fresh`'s algorithm, retire its predecessor and publish `fresh` as the next standby.

    Raises GuardRefused while verifiers may still lack the standby, SelfTestFailed if the standby does not sign.
    """
    ring = noted(pruned(ring, now), now, schedule, longest_ttl)
    signing, standby = _both(ring, fresh.algorithm)
    missing = guard_missing(standby, now, schedule)
    if missing > 0:
        raise GuardRefused(missing)
    signer_of(standby)
    changed = {
        signing.kid: replace(signing, retired_at=now, leaves_at=now + ring.keep),
        standby.kid: replace(standby, active_at=now),
    }
    # Verifiers may have fetched under the guard of the last publication, if that was longer than the one in force.
    next_standby = _published(fresh, now, ring.guard)
    keys = (*(changed.get(key.kid, key) for key in ring.keys), next_standby)
    return replace(ring, guard=schedule.guard, keys=keys)


def noted(ring: Ring, now: float, schedule: Schedule, longest_ttl: float) -> Ring:
    """Let the ring remember a configuration: tokens may from now on live for `longest_ttl`.

    A longer time counts for the keys that may still sign, retired ones included that a replica may not know of; a
    longer guard for the standby, which verifiers may be about to miss for that long. A shorter one changes nothing:
    tokens of the longer life are out. Returns the same object where nothing changes.
    """
    keep = max(ring.keep, schedule.keep(longest_ttl))
    guard = max(ring.guard, schedule.guard)
    longest_ttl = max(ring.longest_ttl, longest_ttl)
    if (longest_ttl, keep, guard) == (ring.longest_ttl, ring.keep, ring.guard):
        return ring
    keys = tuple(_wait_longer(_keep_longer(key, now, schedule, keep), guard) for key in ring.keys)
    return replace(ring, longest_ttl=longest_ttl, keep=keep, guard=guard, keys=keys)


def pruned(ring: Ring, now: float) -> Ring:
    """Drop the keys whose time is over; tombstones of revoked keys stay. The same object where nothing changes."""
    keys = tuple(key for key in ring.keys if state(key, now) is not State.REMOVED)
    return ring if len(keys) == len(ring.keys) else replace(ring, keys=keys)


def create(store: Store, algorithm: str, clock: Clock, schedule: Schedule, longest_ttl: float) -> tuple[Ring, bool]:
    """Make the first ring unless there is one; returns the ring in the store and whether it was made here.

    Processes that start at once on an empty store end with one and the same ring.
    """
    try:
        return store.load(), False
    except RingMissing:
        ring = first_ring(generate(algorithm), generate(algorithm), clock(), schedule, longest_ttl)
    try:
        store.compare_and_swap(None, ring)
    except Conflict:
        return store.load(), False
    return ring, True


def rotate(
    store: Store, algorithm: str, clock: Clock, schedule: Schedule, longest_ttl: float, *, only_if_due: bool = False
) -> tuple[Ring, bool]:
    """Rotate in the store; returns the ring in the store and whether it was rotated here.

    With `only_if_due` nothing is done before `rotate_every` has passed. Raises GuardRefused, with the seconds missing,
    also for the loser of two operators at once.
    """
    fresh = generate(algorithm)

    def change(ring: Ring) -> Ring:
        now = clock()
        if only_if_due and not plan(ring, algorithm, now, schedule).due:
            return ring
        return rotated(ring, fresh, now, schedule, longest_ttl)

    return _swap(store, change)


def note_longest_ttl(store: Store, clock: Clock, schedule: Schedule, longest_ttl: float) -> tuple[Ring, bool]:
    """Write into the store what a configuration lets tokens live for; to be done *before* the first is minted."""
    return _swap(store, lambda ring: noted(ring, clock(), schedule, longest_ttl))


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


def _both(ring: Ring, algorithm: str) -> tuple[KeyRecord, KeyRecord]:
    signing, standby = ring.signing(algorithm), ring.standby(algorithm)
    if signing is None or standby is None:
        raise KeysError(f"the ring has no {algorithm} key to rotate, or no standby for it")
    return signing, standby


def _published(pair: Pair, now: float, guard: float) -> KeyRecord:
    return KeyRecord(
        kid=pair.kid,
        algorithm=pair.algorithm,
        public=pair.public,
        private=pair.private,
        published_at=now,
        ready_at=now + guard,
    )


def _keep_longer(key: KeyRecord, now: float, schedule: Schedule, keep: float) -> KeyRecord:
    """A key retired so recently that a replica may still sign with it stays for the longer time, too."""
    if key.retired_at is None or key.leaves_at is None:
        return key
    signs_until = key.retired_at + schedule.signs_on + schedule.clock_skew
    if now > signs_until or now >= key.leaves_at:
        return key
    return replace(key, leaves_at=max(key.leaves_at, key.retired_at + keep))


def _wait_longer(key: KeyRecord, guard: float) -> KeyRecord:
    return replace(key, ready_at=max(key.ready_at, key.published_at + guard)) if key.waits else key
