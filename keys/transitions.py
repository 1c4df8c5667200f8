"""What changes a ring: pure functions Ring -> Ring. None of them touches `version`; the write does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from keys.errors import GuardRefused, KeysError, KeyUnfit
from keys.lifecycle import Schedule, State, guard_missing, state
from keys.record import KeyRecord, Ring
from keys.replica_report import Sighting
from keys.signer import Pair, signer_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration wants of the ring: its schedule, the longest life of a token, the algorithms in use.

    The first algorithm is the default one, which signs where another cannot yet.
    """

    schedule: Schedule
    longest_ttl: float
    algorithms: tuple[str, ...]

    @property
    def default(self) -> str:
        """The algorithm of whoever asks for none."""
        return self.algorithms[0]


def first_ring(pairs: Sequence[tuple[Pair, Pair]], now: float, wanted: Wanted) -> Ring:
    """Make the first ring: per algorithm a key that signs at once, since no verifier knows another, and its standby."""
    empty = Ring(
        version=1,
        longest_ttl=wanted.longest_ttl,
        keep=wanted.schedule.keep(wanted.longest_ttl),
        guard=wanted.schedule.guard,
        keys=(),
        default=wanted.default,
    )
    return replace(empty, keys=_begun(empty, pairs, now))


def noted(ring: Ring, now: float, wanted: Wanted) -> Ring:
    """Let the ring remember a configuration: tokens may from now on live for its longest ttl.

    A longer time counts for the keys that may still sign, retired ones included that a replica may not know of; a
    longer guard for the standby, which verifiers may be about to miss for that long. A shorter one changes nothing:
    tokens of the longer life are out. Returns the same object where nothing changes.
    """
    schedule = wanted.schedule
    keep = max(ring.keep, schedule.keep(wanted.longest_ttl))
    guard = max(ring.guard, schedule.guard)
    longest_ttl = max(ring.longest_ttl, wanted.longest_ttl)
    default = _default(ring, wanted)
    if (longest_ttl, keep, guard, default) == (ring.longest_ttl, ring.keep, ring.guard, ring.default):
        return ring
    keys = tuple(_wait_longer(_keep_longer(key, now, schedule, keep), guard) for key in ring.keys)
    return replace(ring, longest_ttl=longest_ttl, keep=keep, guard=guard, default=default, keys=keys)


def added(ring: Ring, fresh: Iterable[Pair], now: float) -> Ring:
    """Publish a standby for each algorithm of `fresh` that has none: a new algorithm begins as a key that waits.

    Until a rotation promotes it, tokens are signed with the default algorithm. Returns the same object where nothing
    is missing.
    """
    missing = [_published(ring, pair, now) for pair in fresh if ring.standby(pair.algorithm) is None]
    return replace(ring, keys=(*ring.keys, *missing)) if missing else ring


def pruned(ring: Ring, now: float) -> Ring:
    """Drop the keys whose time is over; tombstones of revoked keys stay. The same object where nothing changes."""
    keys = tuple(key for key in ring.keys if state(key, now) is not State.REMOVED)
    return ring if len(keys) == len(ring.keys) else replace(ring, keys=keys)


def rotated(
    ring: Ring,
    fresh: Iterable[Pair],
    now: float,
    wanted: Wanted,
    sightings: Iterable[Sighting] = (),
    *,
    force: bool = False,
) -> Ring:
    """For each of `fresh` promote the standby of its algorithm, retire the predecessor and publish it as next standby.

    All of them or none. Raises GuardRefused, with the most seconds missing, while verifiers may still lack a standby,
    unless with `force`; SelfTestFailed if a standby does not sign.
    """
    ring = noted(pruned(ring, now), now, wanted)
    fresh = tuple(fresh)
    standbys = [_standby(ring, pair.algorithm) for pair in fresh]
    missing, replica = max((guard_missing(one, now, wanted.schedule, sightings) for one in standbys), default=(0.0, ""))
    if missing > 0 and not force:
        raise GuardRefused(missing, replica)
    keys = ring.keys
    for standby, pair in zip(standbys, fresh, strict=True):
        keys = _promoted(replace(ring, keys=keys), standby, pair, now)
    ring = replace(ring, keys=keys, guard=wanted.schedule.guard)
    return replace(ring, default=_default(ring, wanted))


def retired(ring: Ring, algorithms: Collection[str], now: float) -> Ring:
    """Let the keys of `algorithms` go, which nobody wants any more: what signs retires, what waits is dropped.

    The algorithm that signs where another cannot yet stays, whatever is asked. The same object where nothing changes.
    """
    going = set(algorithms) - {ring.default or ring.algorithms[0]}

    def let_go(key: KeyRecord) -> KeyRecord | None:
        if key.algorithm not in going:
            return key
        if key.waits:
            return None  # it never signed, so nobody misses it
        return _retired(key, now, ring.keep) if key.signs else key

    keys = tuple(left for key in ring.keys if (left := let_go(key)) is not None)
    return ring if keys == ring.keys else replace(ring, keys=keys)


def revoked(ring: Ring, kid: str, fresh: Pair, now: float) -> Ring:
    """End the key `kid` from whatever state; one that signs is replaced by its standby in the same step.

    `fresh`, of the same algorithm, becomes the standby where one is missing then, and signs at once where there was
    none. Raises KeysError if there is no such key, or it is revoked already.
    """
    key = ring.find(kid)
    if key is None or key.revoked_at is not None:
        raise KeysError(f"the ring has no key {kid}" if key is None else f"key {kid} is revoked already")
    buried = replace(ring, keys=_changed(ring.keys, _buried(key, now)))
    standby = ring.standby(key.algorithm)
    if key.signs and standby is not None:
        return replace(buried, keys=_promoted(buried, standby, fresh, now))
    if key.signs:
        return replace(buried, keys=(*buried.keys, replace(_published(ring, fresh, now), active_at=now)))
    return added(buried, [fresh], now) if key.waits else buried


def all_revoked(ring: Ring, pairs: Sequence[tuple[Pair, Pair]], now: float) -> Ring:
    """End every key, standbys too (the store was stolen), and sign with fresh ones at once."""
    buried = tuple(key if key.revoked_at is not None else _buried(key, now) for key in ring.keys)
    return replace(ring, keys=(*buried, *_begun(ring, pairs, now)))


def imported(ring: Ring, pair: Pair, now: float) -> Ring:
    """Let a key from elsewhere wait to sign, in the place of the standby, which nobody has met in a token.

    Raises KeyUnfit for a key that is or was in the ring: a revoked one does not come back.
    """
    known = ring.find(pair.kid)
    if known is not None:
        raise KeyUnfit(f"key {pair.kid} is in the ring already: {state(known, now)}")
    keys = tuple(key for key in ring.keys if not (key.waits and key.algorithm == pair.algorithm))
    return replace(ring, keys=(*keys, _published(ring, pair, now)))


def _begun(ring: Ring, pairs: Sequence[tuple[Pair, Pair]], now: float) -> tuple[KeyRecord, ...]:
    keys: list[KeyRecord] = []
    for first, standby in pairs:
        keys.append(replace(_published(ring, first, now), active_at=now))
        keys.append(_published(ring, standby, now))
    return tuple(keys)


def _standby(ring: Ring, algorithm: str) -> KeyRecord:
    standby = ring.standby(algorithm)
    if standby is None:
        raise KeysError(f"the ring has no {algorithm} key to rotate to: no standby")
    return standby


def _default(ring: Ring, wanted: Wanted) -> str:
    return wanted.default if ring.signing(wanted.default) is not None else ring.default


def _promoted(ring: Ring, standby: KeyRecord, fresh: Pair, now: float) -> tuple[KeyRecord, ...]:
    """The keys after the standby's promotion. A standby that fails its self-test does not become active."""
    signer_of(standby)
    keys = _changed(ring.keys, replace(standby, active_at=now))
    signing = ring.signing(standby.algorithm)
    if signing is not None:
        keys = _changed(keys, _retired(signing, now, ring.keep))
    return (*keys, _published(ring, fresh, now))


def _changed(keys: tuple[KeyRecord, ...], changed: KeyRecord) -> tuple[KeyRecord, ...]:
    return tuple(changed if key.kid == changed.kid else key for key in keys)


def _retired(key: KeyRecord, now: float, keep: float) -> KeyRecord:
    return replace(key, retired_at=now, leaves_at=now + keep)


def _buried(key: KeyRecord, now: float) -> KeyRecord:
    return replace(key, revoked_at=now, private=None)


def _published(ring: Ring, pair: Pair, now: float) -> KeyRecord:
    """A key that is published now. Verifiers may have fetched under the guard that counted for an earlier one."""
    return KeyRecord(
        kid=pair.kid,
        algorithm=pair.algorithm,
        public=pair.public,
        private=pair.private,
        published_at=now,
        ready_at=max(now + ring.guard, *(key.ready_at for key in ring.keys), now),
    )


def _keep_longer(key: KeyRecord, now: float, schedule: Schedule, keep: float) -> KeyRecord:
    """A key retired so recently that a replica may still sign with it stays for the longer time, too.

    One that has left by a clock which is ahead of ours does not come back.
    """
    if key.retired_at is None or key.leaves_at is None:
        return key
    signs_until = key.retired_at + schedule.signs_on + schedule.clock_skew
    if now > signs_until or now >= key.leaves_at - schedule.clock_skew:
        return key
    return replace(key, leaves_at=max(key.leaves_at, key.retired_at + keep))


def _wait_longer(key: KeyRecord, guard: float) -> KeyRecord:
    return replace(key, ready_at=max(key.ready_at, key.published_at + guard)) if key.waits else key
