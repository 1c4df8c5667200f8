"""What a worker signs and publishes with: one immutable snapshot of the ring, swapped whole.

A request takes no lock here, reads no file and parses no key: it reads one attribute and looks up.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keys.errors import KeysError, NoUsableKey, RingMissing, RolledBack, StoreUnavailable
from keys.heartbeat import Presence
from keys.jwks import jwks
from keys.lifecycle import Schedule, due_in, guard_missing
from keys.poller import Poller
from keys.record import KeyRecord, Ring
from keys.rollback_guard import Floor
from keys.signer import Signer, signer_of
from keys.store import Store

_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One algorithm: the kid that signs, how long it has signed, until rotation is due, until the standby may sign."""

    kid: str
    age: float
    due_in: float
    standby: str | None
    standby_ready_in: float


@dataclass(frozen=True, slots=True)
class Status:
    """What readiness and metrics report; lengths in seconds.

    `unseen` is how long ago the store was last seen with a good ring, `publishes_for` how long the JWKS stays up if it
    is not seen again; `fault` says why the last look at it failed, "" if it did not; `usable` whether there is
    something to sign with for every algorithm of the ring.
    """

    version: int
    keys: Mapping[str, KeyStatus]
    published: int
    longest_ttl: float
    unseen: float
    publishes_for: float
    usable: bool
    fault: str


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A ring made ready: per algorithm its signers, latest first, each with the times between which it signs."""

    ring: Ring
    signers: Mapping[str, tuple[tuple[float, float, Signer], ...]] = field(repr=False)
    leaves: Mapping[str, float]

    def signer(self, algorithm: str, now: float) -> Signer | None:
        """The key that signs at `now`, if there is one."""
        return next((one for since, end, one in self.signers.get(algorithm, ()) if since <= now < end), None)


class Keyring:
    """The ring of one worker, kept fresh by `refresh`.

    `on_fault` hears when looking at the store begins to fail, or fails for another reason, `on_deaf` why nothing is
    heard of changes before the next poll; `clock` gives Unix seconds; `floor` is what all workers of a replica share,
    and without it this keyring knows only what it has seen itself. The construction loads and raises KeysError; from
    then on the last good ring is kept, for signing until `store_grace` has passed.
    """

    def __init__(
        self,
        store: Store,
        schedule: Schedule,
        clock: Callable[[], float],
        on_fault: Callable[[KeysError], None] | None = None,
        floor: Floor | None = None,
        on_deaf: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._clock = clock
        self._on_fault = on_fault
        self._floor = Floor() if floor is None else floor
        self._refreshing = threading.Lock()
        self._poller = Poller(store, self._look, self._pause, on_deaf)
        self._fault = ""
        seen_at = clock()
        self._snapshot = _snapshot(self._load())
        self._floor.raise_to(self._snapshot.ring.version)
        self._seen_at = seen_at
        self._signs_until = seen_at + schedule.store_grace
        self._presence = Presence(store, clock, self._snapshot.ring)
        with contextlib.suppress(KeysError):  # others' words, not ours: a rotation waits for them, no service does
            self._presence.tidy(schedule)
        self._told = True
        try:
            self._tell(self._snapshot.ring, seen_at)
        except StoreUnavailable as error:  # on a full disk a worker that ended is replaced all the same
            self._report(error)
        if clock() - seen_at > schedule.poll:
            # Rotations that we knew nothing of were not held back before we spoke; from now on they are. In less than
            # a poll none can have let a key sign that was not published before we looked.
            self._refresh()

    def signer(self, algorithm: str, now: float) -> Signer:
        """The key that signs for `algorithm` at `now`. Raises NoUsableKey.

        Where the ring has none for it (the first key of an algorithm that was added waits for a rotation, the last one
        of a former algorithm has retired) it is the default algorithm's.
        """
        if now > self._signs_until:
            raise NoUsableKey(f"the key store has not been seen for {now - self._seen_at:.0f} s")
        snapshot = self._snapshot
        signer = snapshot.signer(algorithm, now)
        if signer is None:
            signer = snapshot.signer(_default(snapshot.ring), now)
        if signer is None:
            raise NoUsableKey(f"the ring has no {algorithm} key that signs, nor one of its default algorithm")
        return signer

    def published(self, kid: str, now: float) -> bool:
        """Whether the JWKS shows `kid` at `now`, so that a token it signed still verifies."""
        leaves = self._snapshot.leaves.get(kid)
        return leaves is not None and now < leaves

    def jwks(self, now: float) -> dict[str, Any]:
        """The JWK Set at `now` (RFC 7517 §5): public members by allow-list, in the order of publication.

        Raises NoUsableKey once the store has been out of sight for so long that the set may lack a key which others
        sign with: no token that was signed here is good any more by then, and a stale set would make verifiers refuse
        those of others.
        """
        if now > self._presence.until:
            raise NoUsableKey(f"the key store has not been seen for {now - self._seen_at:.0f} s")
        return jwks(self._snapshot.ring, now)

    def status(self, now: float) -> Status:
        """What there is to report at `now`."""
        ring = self._snapshot.ring
        keys = {name: _key_status(ring, name, now, self._schedule) for name in ring.algorithms if ring.signing(name)}
        return Status(
            version=ring.version,
            keys=keys,
            published=len(jwks(ring, now)["keys"]) if now <= self._presence.until else 0,
            longest_ttl=ring.longest_ttl,
            unseen=max(0.0, now - self._seen_at),
            publishes_for=max(0.0, self._presence.until - now),
            usable=bool(keys) and all(self._signs(name, now) for name in ring.algorithms),
            fault=self._fault,
        )

    def refresh(self) -> bool:
        """Look at the store; returns whether a new ring was swapped in. Cheap if it is unchanged.

        Raises KeysError and keeps the ring it has: where the store cannot be read, is not authentic, is empty or older
        than what was seen (RolledBack), or a key of the new ring fails its self-test.
        """
        with self._refreshing:
            try:
                return self._refresh()
            except KeysError as error:
                self._report(error)
                raise

    def reschedule(self, schedule: Schedule) -> None:
        """Take a new schedule, after a reload of the configuration.

        A longer grace counts from the next sight of the store on: a ring that is out of sight may hold a key that has
        been retired under the shorter one.
        """
        self._schedule = schedule
        self._signs_until = min(self._signs_until, self._seen_at + schedule.store_grace)

    def start(self) -> None:
        """Look at the store every `poll` seconds, and when it tells of a change, in this process (see `Poller`)."""
        self._poller.start()

    def stop(self) -> None:
        """Stop looking, and tell the store that nothing is published any more."""
        self._poller.stop()
        with contextlib.suppress(KeysError):  # it said until when at most
            self._presence.leave()

    def _load(self) -> Ring:
        """Read the ring. Raises RolledBack where any process of this replica has seen a newer one."""
        seen = self._floor.version  # before the look: what others see meanwhile may well be newer
        try:
            ring = self._store.load()
        except RingMissing as error:
            if not seen:
                raise
            raise RolledBack(f"{error}, though this service has seen version {seen}") from None
        if ring.version < seen:
            raise RolledBack(
                f"{self._store.place} holds version {ring.version} of the ring, "
                f"though this service has seen version {seen}"
            )
        return ring

    def _refresh(self) -> bool:
        seen_at = self._clock()  # before the look: what is read may be this old
        known = self._snapshot.ring
        ring = self._load()
        changed = ring != known
        if changed:
            if ring.version <= known.version:
                raise RolledBack(f"{self._store.place} holds another ring of version {ring.version} than was seen")
            self._snapshot = _snapshot(ring)
            self._presence.took(ring)
            self._floor.raise_to(ring.version)
        self._seen_at = seen_at
        self._signs_until = seen_at + self._schedule.store_grace
        self._tell(ring, seen_at)
        self._fault = ""
        return changed

    def _tell(self, ring: Ring, seen_at: float) -> None:
        self._told = False
        self._presence.tell(ring, seen_at, self._schedule)
        self._told = True

    def _pause(self) -> float:
        """Seconds until the next look: earlier where the store takes no word, since each look counts for one poll."""
        return self._schedule.poll / (1 if self._told else 2)

    def _look(self) -> None:
        try:
            self.refresh()
        except KeysError:
            pass  # told to on_fault, shown in status; signing ends by itself after store_grace
        except Exception as error:  # noqa: BLE001 - a fault of ours: the thread lives on, the store counts as unseen
            self._report(KeysError(f"the look at the key store failed: {type(error).__name__}"))

    def _report(self, error: KeysError) -> None:
        """Tell of a fault once, not at every poll."""
        known, self._fault = self._fault, str(error)
        if self._on_fault is not None and self._fault != known:
            self._on_fault(error)

    def _signs(self, algorithm: str, now: float) -> bool:
        try:
            self.signer(algorithm, now)
        except NoUsableKey:
            return False
        return True


def _snapshot(ring: Ring) -> _Snapshot:
    """Parse and test every private half once. Raises SelfTestFailed."""
    living = [key for key in ring.keys if key.revoked_at is None]
    return _Snapshot(
        ring=ring,
        signers={name: _signers(living, name) for name in {key.algorithm for key in ring.keys}},
        leaves={key.kid: _FOREVER if key.leaves_at is None else key.leaves_at for key in living},
    )


def _default(ring: Ring) -> str:
    return ring.default or ring.algorithms[0]


def _signers(living: list[KeyRecord], algorithm: str) -> tuple[tuple[float, float, Signer], ...]:
    """The keys that were ever promoted, latest first, each with its beginning and its end.

    Each signs from the end of its predecessor, the first since ever: so a clock that is stepped back after the ring
    was made (a machine that boots before NTP) is no outage, and the successor of a revoked key signs at once.
    """
    begun = [key for key in living if key.algorithm == algorithm and key.active_at is not None]
    begun.sort(key=lambda key: key.active_at or 0.0)
    ends = [-_FOREVER, *(_FOREVER if key.retired_at is None else key.retired_at for key in begun)]
    spans = zip(ends[:-1], ends[1:], begun, strict=True)
    return tuple(reversed([(since, end, signer_of(key)) for since, end, key in spans]))


def _key_status(ring: Ring, algorithm: str, now: float, schedule: Schedule) -> KeyStatus:
    signing, standby = ring.signing(algorithm), ring.standby(algorithm)
    if signing is None or signing.active_at is None:
        raise NoUsableKey(f"the ring has no {algorithm} key that signs")
    return KeyStatus(
        kid=signing.kid,
        age=max(0.0, now - signing.active_at),
        due_in=due_in(signing, now, schedule),
        standby=None if standby is None else standby.kid,
        standby_ready_in=_FOREVER if standby is None else guard_missing(standby, now, schedule)[0],
    )
