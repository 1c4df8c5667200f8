"""The keys that a worker signs and publishes with: one immutable snapshot of the ring, replaced as a whole.

A request takes no lock here, reads no file and parses no key: it reads one attribute and looks up the signer.
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
    """The keys of one algorithm; times in seconds.

    - `kid`, `age`: the signing key, and how long it has signed.
    - `due_in`: the time until the rotation is due; negative if it is overdue.
    - `standby`, `standby_ready_in`: the standby key, and the time until it may sign.
    """

    kid: str
    age: float
    due_in: float
    standby: str | None
    standby_ready_in: float


@dataclass(frozen=True, slots=True)
class Status:
    """What readiness and metrics report; durations in seconds.

    - `unseen`: the time since the store was last read successfully.
    - `publishes_for`: how long the JWKS stays available if the store is not read again.
    - `usable`: whether a key can sign for every algorithm of the ring.
    - `fault`: why the last read of the store failed, "" if it succeeded.
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
    """A ring with its signers: per algorithm, latest first, each with the start and the end of its signing period."""

    ring: Ring
    signers: Mapping[str, tuple[tuple[float, float, Signer], ...]] = field(repr=False)
    leaves: Mapping[str, float]

    def signer(self, algorithm: str, now: float) -> Signer | None:
        """Return the key that signs at `now`, None if there is none."""
        return next((one for since, end, one in self.signers.get(algorithm, ()) if since <= now < end), None)


class Keyring:
    """The ring of one worker; `refresh` updates it.

    The constructor loads the ring. Afterwards the keyring keeps the last good ring, and signs with it until
    `store_grace` has passed without a successful read.

    Args:
        store: Where the ring is stored.
        schedule: The times of the `keys` section.
        clock: Returns Unix seconds.
        on_fault: Called when reading the store begins to fail, or fails for another reason.
        floor: The newest ring version that any worker of this replica has seen. Without it, the keyring detects only
            a rollback behind a version that it has seen itself.
        on_deaf: Called with the reason when the store sends no change notices, so that changes wait for the next poll.

    Raises:
        KeysError: The ring cannot be loaded.
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
        with contextlib.suppress(KeysError):  # a failure to clean up reports of other replicas must not stop this one
            self._presence.tidy(schedule)
        self._told = True
        try:
            self._tell(self._snapshot.ring, seen_at)
        except StoreUnavailable as error:  # a full disk must not prevent the start of a replacement worker
            self._report(error)
        if clock() - seen_at > schedule.poll:
            # A rotation may have happened between the load and our report, because it did not wait for this replica.
            # In less than one poll it cannot promote a key that was published after the load. Later it can: read again.
            self._refresh()

    def signer(self, algorithm: str, now: float) -> Signer:
        """Return the key that signs for `algorithm` at `now` (Unix seconds). Raises NoUsableKey.

        If the ring has no such key, the signer of the default algorithm is returned. This happens when the first key of
        a new algorithm waits for a rotation, or the last key of a former algorithm has retired.
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
        """Return whether the JWKS shows `kid` at `now`, so that a token signed with it still verifies."""
        leaves = self._snapshot.leaves.get(kid)
        return leaves is not None and now < leaves

    def jwks(self, now: float) -> dict[str, Any]:
        """Return the JWK Set at `now` (RFC 7517 §5): public members by allow-list, in the order of publication.

        Raises NoUsableKey if the store has been unreachable for so long that the set may lack a key with which other
        replicas sign. By then all tokens that were signed here have expired, and a stale set would make verifiers
        refuse the tokens of other replicas.
        """
        if now > self._presence.until:
            raise NoUsableKey(f"the key store has not been seen for {now - self._seen_at:.0f} s")
        return jwks(self._snapshot.ring, now)

    def status(self, now: float) -> Status:
        """Return the status at `now` (Unix seconds) for readiness and metrics."""
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
        """Read the store; returns whether the ring changed. Cheap if the ring is unchanged.

        Raises:
            KeysError: The store cannot be read, is not authentic, is empty or older than a ring that was seen
                (RolledBack), or a key of the new ring fails its self-test. The keyring keeps its present ring.
        """
        with self._refreshing:
            try:
                return self._refresh()
            except KeysError as error:
                self._report(error)
                raise

    def reschedule(self, schedule: Schedule) -> None:
        """Apply a new schedule, after a reload of the configuration.

        A longer `store_grace` applies from the next successful read: while the store is unreachable, a key of this ring
        may have been retired under the shorter grace.
        """
        self._schedule = schedule
        self._signs_until = min(self._signs_until, self._seen_at + schedule.store_grace)

    def start(self) -> None:
        """Read the store every `poll` seconds and after each change notice, in threads of this process (`Poller`)."""
        self._poller.start()

    def stop(self) -> None:
        """Stop the threads, and report to the store that this replica has stopped publishing."""
        self._poller.stop()
        with contextlib.suppress(KeysError):  # the report expires by itself
            self._presence.leave()

    def _load(self) -> Ring:
        """Read the ring. Raises RolledBack if any process of this replica has seen a newer one."""
        seen = self._floor.version  # before the read: other processes may see a newer ring during it
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
        seen_at = self._clock()  # before the read: the ring may be this old
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
        """Return the seconds until the next read; half a poll if reports fail: then each read covers only one poll."""
        return self._schedule.poll / (1 if self._told else 2)

    def _look(self) -> None:
        try:
            self.refresh()
        except KeysError:
            pass  # on_fault and the status report it; signing stops by itself after store_grace
        except Exception as error:  # noqa: BLE001 - a bug of ours: the thread continues, the read counts as failed
            self._report(KeysError(f"the look at the key store failed: {type(error).__name__}"))

    def _report(self, error: KeysError) -> None:
        """Report a fault once, not at every poll."""
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
    """Parse and test every private key once. Raises SelfTestFailed."""
    living = [key for key in ring.keys if key.revoked_at is None]
    return _Snapshot(
        ring=ring,
        signers={name: _signers(living, name) for name in {key.algorithm for key in ring.keys}},
        leaves={key.kid: _FOREVER if key.leaves_at is None else key.leaves_at for key in living},
    )


def _default(ring: Ring) -> str:
    return ring.default or ring.algorithms[0]


def _signers(living: list[KeyRecord], algorithm: str) -> tuple[tuple[float, float, Signer], ...]:
    """Return the keys that were promoted, latest first, each with the start and the end of its signing period.

    Each key signs from the end of its predecessor; the first key has no start. Therefore a clock that is stepped back
    after the ring was created (a machine that boots before NTP) causes no outage, and the successor of a revoked key
    signs at once.
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
