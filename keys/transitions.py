"""The changes of a ring: pure functions Ring -> Ring. They do not change `version`; the write does."""

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
    """The requirements of a configuration: the schedule, the longest token lifetime in seconds, the algorithms in use.

    The first algorithm is the default, which signs when another one has no signing key yet.
    """

    schedule: Schedule
    longest_ttl: float
    algorithms: tuple[str, ...]

    @property
    def default(self) -> str:
        """The algorithm of audiences that configure none."""
        return self.algorithms[0]


def first_ring(pairs: Sequence[tuple[Pair, Pair]], now: float, wanted: Wanted) -> Ring:
    """Create the first ring: per algorithm a key that signs at once, since no verifier has another, and its standby."""
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
    """Record the requirements of a configuration in the ring: tokens may live for its longest ttl from now on.

    A longer `keep` applies to all keys that may still sign, also to retired keys of which a replica may not have read
    the retirement. A longer guard applies to the standby, because verifiers may lack it for that long. A shorter value
    changes nothing: tokens with the longer lifetime were already issued. Returns the same object for no change.
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
    """Publish a standby for each algorithm of `fresh` that has none: a new algorithm begins with a standby.

    Until a rotation promotes the standby, the default algorithm signs. Returns the same object for no change.
    """
    missing = [_published(ring, pair, now) for pair in fresh if ring.standby(pair.algorithm) is None]
    return replace(ring, keys=(*ring.keys, *missing)) if missing else ring


def pruned(ring: Ring, now: float) -> Ring:
    """Drop the removed keys; tombstones of revoked keys stay. Returns the same object for no change."""
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
    """Promote the standby of the algorithm of each `fresh` pair, retire its predecessor, publish `fresh` as standby.

    All of them or none. Raises GuardRefused with the longest wait while verifiers may still lack a standby, except with
    `force`; SelfTestFailed if a standby does not sign correctly.
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
    """Retire the signing keys of `algorithms`, which the configuration no longer uses, and drop their standbys.

    The default algorithm of the ring always stays. Returns the same object for no change.
    """
    going = set(algorithms) - {ring.default or ring.algorithms[0]}

    def let_go(key: KeyRecord) -> KeyRecord | None:
        if key.algorithm not in going:
            return key
        if key.waits:
            return None  # it never signed, so no token needs it
        return _retired(key, now, ring.keep) if key.signs else key

    keys = tuple(left for key in ring.keys if (left := let_go(key)) is not None)
    return ring if keys == ring.keys else replace(ring, keys=keys)


def revoked(ring: Ring, kid: str, fresh: Pair, now: float) -> Ring:
    """Revoke the key `kid`, in any state; its standby replaces a signing key in the same step.

    `fresh`, of the same algorithm, becomes the standby if one is missing then, and signs at once if there was no
    standby. Raises KeysError if the ring has no such key, or the key is already revoked.
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
    """Revoke every key, including standbys (for a stolen store); the new `pairs` sign at once."""
    buried = tuple(key if key.revoked_at is not None else _buried(key, now) for key in ring.keys)
    return replace(ring, keys=(*buried, *_begun(ring, pairs, now)))


def imported(ring: Ring, pair: Pair, now: float) -> Ring:
    """Make an imported key the standby, in place of the present standby, which has signed no token.

    Raises KeyUnfit for a key that the ring already has: a revoked key must not return.
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
    """Return the keys after the promotion of `standby`. Raises SelfTestFailed: a bad key must not become active."""
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
    """Return a record that is published now; `ready_at` allows for a longer guard that applied to an earlier key."""
    return KeyRecord(
        kid=pair.kid,
        algorithm=pair.algorithm,
        public=pair.public,
        private=pair.private,
        published_at=now,
        ready_at=max(now + ring.guard, *(key.ready_at for key in ring.keys), now),
    )


def _keep_longer(key: KeyRecord, now: float, schedule: Schedule, keep: float) -> KeyRecord:
    """Extend `leaves_at` of a key that was retired so recently that a replica may still sign with it.

    A key that has left the JWKS by a clock that is ahead of ours does not return.
    """
    if key.retired_at is None or key.leaves_at is None:
        return key
    signs_until = key.retired_at + schedule.signs_on + schedule.clock_skew
    if now > signs_until or now >= key.leaves_at - schedule.clock_skew:
        return key
    return replace(key, leaves_at=max(key.leaves_at, key.retired_at + keep))


def _wait_longer(key: KeyRecord, guard: float) -> KeyRecord:
    return replace(key, ready_at=max(key.ready_at, key.published_at + guard)) if key.waits else key
