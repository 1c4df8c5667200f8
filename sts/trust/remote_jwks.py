"""The keys of an issuer or a backend over HTTP, refreshed in the background.

This module prevents known faults of other implementations: a failed refresh that empties the set (PyJWT #1162); a fetch
for every random `kid` (hydra #2535); a revoked key that stays because its `kid` is known (svelte-langgraph #284); a
slow issuer that blocks all threads.
"""

from __future__ import annotations

import enum
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from sts.errors import BAD_ALGORITHM, SOURCE_UNREACHABLE, UNKNOWN_KEY, Refusal, StartError
from sts.jose import KeySet, UnfitError, VerifyKey, import_jwks
from sts.options import KeptFile
from sts.resilience.bulkhead import QUEUE, Bulkhead, FullError
from sts.trust.fetch import UnreachableError

MAX_TRIES: Final = 4
"""The maximum number of keys tried for one token: each costs a verification, and an attacker chooses the token."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """Return the keys that may have signed a token with this header: at least one, at most MAX_TRIES. May wait.

        Raises UNKNOWN_KEY, BAD_ALGORITHM if the key with this `kid` may not verify `algorithm`, or SOURCE_UNREACHABLE.
        """

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:
        """Return whether `keys_for` would not wait, and would return keys that verify quickly."""

    def current(self, thumbprint: str) -> bool:
        """Return whether the key with this RFC 7638 thumbprint is in the current set. Never waits."""

    @property
    def trouble(self) -> str:
        """Why the last fetch of the keys failed, "" if it succeeded; for operators."""


class LookUp:
    """The keys of one set, indexed by `kid`."""

    def __init__(self, keys: KeySet) -> None:
        by_kid: defaultdict[str | None, list[VerifyKey]] = defaultdict(list)
        for key in keys.keys:
            by_kid[key.kid].append(key)
        self._by_kid = {kid: tuple(same) for kid, same in by_kid.items() if kid is not None}
        self._all = keys.keys
        self.thumbprints = frozenset(key.thumbprint for key in keys.keys)
        self.left_out = "; ".join(keys.skipped[:5])
        self._unfit = keys.skipped_kids

    def find(self, kid: str | None, algorithm: str) -> tuple[VerifyKey, ...]:
        """Return the matching keys: those with exactly this `kid`, or all for a token without `kid`; () if none.

        Raises BAD_ALGORITHM if the key with `kid` does not support `algorithm`, so that no fetch is made for it;
        UNKNOWN_KEY if `kid` belongs to an unusable key, or if more than MAX_TRIES keys match.
        """
        named = self._all if kid is None else self._by_kid.get(kid, ())
        if not named and kid in self._unfit:
            raise self.unknown(kid, algorithm)
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if named and not fitting and kid is not None:
            raise Refusal(BAD_ALGORITHM, why="the key may not verify this algorithm", alg=algorithm, kid=kid)
        if len(fitting) > MAX_TRIES:
            raise Refusal(UNKNOWN_KEY, why="too many keys would fit", alg=algorithm, kid=kid)
        return fitting

    def settles(self, kid: str | None, algorithm: str) -> bool:
        """Return whether this set decides without a fetch, and quickly: it has quick keys, or it refuses."""
        try:
            found = self.find(kid, algorithm)
        except Refusal:
            return True
        return bool(found) and all(key.is_quick for key in found)

    def unknown(self, kid: str | None, algorithm: str) -> Refusal:
        """Return the refusal of a token whose key is not in the set; it lists the unusable keys with their reasons."""
        why = "the issuer publishes no such key"
        return Refusal(UNKNOWN_KEY, why=why, alg=algorithm, kid=kid, left_out=self.left_out)


class FileJwks:
    """Keys from a JWK set file that the configuration has read; a reload reads the file again.

    Raises StartError if the file cannot be read or contains no usable key.
    """

    trouble = ""

    def __init__(self, file: KeptFile, algorithms: Collection[str]) -> None:
        try:
            self._keys = LookUp(import_jwks(file.read(), algorithms))
        except UnfitError as error:
            raise StartError(f"the JWK set file {file} cannot be used: {error}") from None

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:  # noqa: ARG002 - KeySource
        """Return the keys for a token header (see `KeySource`). Never waits."""
        found = self._keys.find(kid, algorithm)
        if not found:
            raise self._keys.unknown(kid, algorithm)
        return found

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:  # noqa: ARG002 - KeySource
        """Return whether `keys_for` answers with keys that verify quickly, or refuses."""
        return self._keys.settles(kid, algorithm)

    def current(self, thumbprint: str) -> bool:
        """Return whether the file contains the key."""
        return thumbprint in self._keys.thumbprints


MIN_LIFE: Final = 60.0
MAX_LIFE: Final = 3600.0
DEFAULT_LIFE: Final = 300.0
"""Seconds for which a set is fresh: the `max-age` of the response between the first two, else the third."""
REFRESH_AFTER: Final = (0.75, 0.85)
"""The share of a set's lifetime after which it is refreshed in the background; random, to spread the replicas."""
COOL_DOWN: Final = (1.0, 4.5)
"""Seconds between two fetches for an unknown `kid`: the first value, doubled while such fetches continue, up to the
second. With the time of the fetch a new key is found within 5 s, for any number of invented key ids."""
QUIET: Final = 30.0
"""Seconds without a fetch for an unknown `kid` after which the cool-down starts with its first value again."""
BACK_OFF: Final = (1.0, 2.0, 30.0)
"""Seconds before the next attempt after a failure: the first value, doubled with each failure, up to the second value
if there are no current keys, up to the third if there are keys and only a refresh fails."""
FAILURES: Final = 3
"""Successive failures after which no request waits for the next attempt."""
FAILURE_IS_NEWS: Final = 60.0
"""Seconds after a failed attempt during which a stale set is used without waiting for the next attempt."""
GRACE: Final = 0.5
"""Seconds that a request waits without a place in the bulkhead for a fetch that has not been slow so far."""
PATIENCE: Final = 6.0
"""The maximum time in seconds that a request waits for the keys."""
LACKS: Final = "the issuer's set lacks it and is fetched again in a moment"
"""The reason to refuse a token whose key may be new, while it is too soon to fetch the set again."""
WARM_UP: Final = 2.0
"""The maximum time in seconds that a worker waits for the first sets of all issuers before it accepts requests."""
MAX_MISSED: Final = 1000
_AT_ONCE: Final = 32


Keys = TypeVar("Keys")
"""A parsed set of keys."""
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Keys]):
    """One successful fetch: the keys, and the `max-age` of the response in seconds."""

    keys: Keys
    max_age: float | None


@dataclass(frozen=True, slots=True)
class _Held(Generic[Keys]):
    """A set and its times: when to refresh it, until when it is fresh, and until when it may be used stale."""

    keys: Keys
    refresh_at: float
    fresh_until: float
    stale_until: float


class _Need(enum.Enum):
    """The purpose of a fetch: to refresh a current set, to get any set, or to find a key that the set lacks."""

    REFRESH = enum.auto()
    SET = enum.auto()
    KEY = enum.auto()


@dataclass(slots=True)
class _Flight:
    """The fetch in progress; `slow` is true after a request has waited GRACE seconds for it without a result."""

    landed: Future[None] = field(default_factory=Future)
    slow: bool = False

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; returns whether the fetch has completed."""
        return bool(wait([self.landed], seconds).done)


class RemoteSet(Generic[Keys]):
    """A set of keys that is fetched in a separate thread, one fetch at a time.

    There is no fetch before the first use, so the object may be created before a fork. Requests that cannot wait are
    answered at once with the present set.

    Args:
        load: Fetches the set; may block. Raises UnreachableError or UnfitError.
        clock: Returns Unix seconds.
        stale_jwks: Seconds for which the last good set remains in use after its lifetime if no fetch succeeds.
        max_waiters: How many requests may wait for a fetch, shared fairly by callers.
        notice: Called after every fetch with the reason of a failure, or "".
        patience: The maximum waiting time of a request in seconds.
        all_waiters: The common limit of requests that wait for the sets of all issuers, shared fairly by callers.
    """

    _waits_for_none: ClassVar[bool] = True  # whether requests wait without any set, or after a failure

    def __init__(
        self,
        load: Callable[[], Loaded[Keys]],
        clock: Callable[[], float],
        *,
        stale_jwks: float,
        max_waiters: int,
        notice: Callable[[str], None] = lambda _why: None,
        patience: float = PATIENCE,
        all_waiters: Bulkhead | None = None,
    ) -> None:
        self._load, self._clock, self._notice = load, clock, notice
        self._stale_jwks, self._patience = stale_jwks, patience
        self._waiters = Bulkhead(max_waiters, queue=QUEUE * max_waiters, shared=all_waiters)
        self._lock = threading.Lock()
        # The fetching thread writes these under the lock. Reading needs no lock: each is one reference.
        self._held: _Held[Keys] | None = None
        self._flight: _Flight | None = None
        self._failed_at = float("-inf")
        self._failures = 0
        self._trouble = ""
        self._key_fetch_at = float("-inf")
        self._cool_down = COOL_DOWN[0]
        self._missed: set[object] = set()  # keys that the last fetch did not find

    @property
    def trouble(self) -> str:
        """Why the last fetch of the keys failed, "" if it succeeded; for operators."""
        return self._trouble

    def begin(self) -> Future[None] | None:
        """Start the first fetch; the future is done after success or failure. Returns None if no fetch is needed."""
        flight = self._fly(self._clock(), _Need.SET) if self._held is None else None
        return None if flight is None else flight.landed

    def find(
        self,
        look: Callable[[Keys], Found | None],
        missing: Callable[[Keys], Refusal],
        now: float,
        wanted: object = None,
        **facts: object,
    ) -> Found:
        """Return what `look` finds in the set. Waits only if there is no current set, or `look` finds nothing in it.

        Args:
            look: Searches a set; returns None or an empty value if it finds nothing.
            missing: Returns the refusal for a set that was fetched for this search and lacks the key.
            now: Unix seconds.
            wanted: Identifies what is searched.
            facts: Facts for the audit.

        Raises:
            Refusal: The result of `missing`, or SOURCE_UNREACHABLE with `facts` if there is no set, or if it is too
                soon to fetch it again.
        """
        held, need = self._held, _Need.SET
        if held is not None and self._in_force(held, now):
            if now >= held.refresh_at:
                self._fly(now, _Need.REFRESH)
            found = look(held.keys)
            if found:
                return found
            need = _Need.KEY
        flight = self._fly(now, need)
        waited = self._held is not held if flight is None else self._wait(flight, need)
        held, now = self._held, self._clock()
        # There is no newer set: the last good one is better than an outage, as long as `stale_jwks` allows it.
        found = look(held.keys) if held is not None and now < held.stale_until else None
        if found:
            return found
        if held is not None and now < held.fresh_until and not self._trouble:
            if waited and len(self._missed) < MAX_MISSED:
                self._missed.add(wanted)
            if waited or (flight is None and wanted in self._missed):
                raise missing(held.keys)
            if flight is None:
                raise Refusal(SOURCE_UNREACHABLE, why=LACKS, **facts)
        why = self._trouble or "no answer yet"
        raise Refusal(SOURCE_UNREACHABLE, why=why if waited else f"not waited for: {why}", **facts)

    def holds(self, look: Callable[[Keys], bool]) -> bool:
        """Return whether there is a current set and `look` returns true for it. Never waits.

        This call also starts a refresh, so that the set is refreshed although all tokens come from the cache.
        """
        held = self._held
        if held is None:
            return False
        now = self._clock()
        if now >= held.refresh_at:
            self._fly(now, _Need.REFRESH, block=False)
        return look(held.keys) and self._in_force(held, now)

    def _in_force(self, held: _Held[Keys], now: float) -> bool:
        """Return whether to use the set without waiting: it is fresh, or stale while the issuer is known to be down."""
        if now < held.fresh_until:
            return held.fresh_until - now <= MAX_LIFE  # else the clock was set back, and the age of the set is unknown
        return now - self._failed_at < FAILURE_IS_NEWS and now < held.stale_until

    def _wait(self, flight: _Flight, need: _Need) -> bool:
        """Wait for a fetch, if the request may wait; returns whether the fetch has completed.

        If there is no set at all, every request waits for GRACE seconds: a cold start must not refuse the first
        requests.
        """
        if self._failures >= FAILURES or not (self._waits_for_none or (self._held and not self._failures)):
            return flight.landed.done()
        grace = 0.0 if flight.slow or self._failures else GRACE
        if need is _Need.SET and flight.wait(grace):
            return True
        try:
            place = self._waiters.enter(grace if need is _Need.KEY else 0.0, grace)
        except FullError as error:
            flight.slow = flight.slow or error.stalled
            return flight.landed.done()
        try:
            landed = flight.wait(grace)
            flight.slow = not landed
            return landed or flight.wait(self._patience)
        finally:
            place.leave()

    def _fly(self, now: float, need: _Need, *, block: bool = True) -> _Flight | None:
        """Join the fetch in progress, or start one; returns None if it is too soon after the last fetch."""
        if self._flight is None and self._resting(now, need):
            return None
        if not self._lock.acquire(blocking=block):
            return None
        try:
            if self._flight is None and not self._resting(now, need):
                self._flight = _Flight()
                threading.Thread(target=self._fetch, args=[self._flight], name="jwks", daemon=True).start()
                if need is _Need.KEY:
                    again = now - self._key_fetch_at < QUIET
                    self._cool_down = min(2 * self._cool_down, COOL_DOWN[1]) if again else COOL_DOWN[0]
                    self._key_fetch_at = now
        except RuntimeError:  # no thread can be started: the next request tries again
            self._flight = None
        finally:
            self._lock.release()
        return self._flight

    def _resting(self, now: float, need: _Need) -> bool:
        held, until = self._held, float("-inf")
        if held is not None and need is not _Need.KEY and self._in_force(held, now) and now < held.refresh_at:
            return True  # another fetch has loaded the set in the meantime
        if self._failures:
            longest = BACK_OFF[2] if need is _Need.REFRESH else BACK_OFF[1]
            until = self._failed_at + min(longest, BACK_OFF[0] * 2.0 ** min(self._failures - 1, 10))
        if need is _Need.KEY:  # the cool-down counts only fetches of this kind: another fetch must not delay a new key
            until = max(until, self._key_fetch_at + self._cool_down)
        # A pause longer than the maximum is ignored: the clock was set back.
        return now < until <= now + BACK_OFF[2]

    def _fetch(self, flight: _Flight) -> None:
        loaded, why = None, ""
        try:
            loaded = self._load()
        except (UnreachableError, UnfitError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - after any error, no request may wait for this thread for ever
            why = f"fault: {type(error).__name__}"
        with self._lock:
            now = self._clock()
            if loaded is not None:
                self._keep(loaded, now)
            else:
                self._failures, self._failed_at, self._trouble = self._failures + 1, now, why
            self._flight = None
        flight.landed.set_result(None)
        self._notice(why)

    def _keep(self, loaded: Loaded[Keys], now: float) -> None:
        life = clamp_life(loaded.max_age)
        fresh_until = now + life
        self._held = _Held(
            loaded.keys, now + life * _jitter(*REFRESH_AFTER), fresh_until, fresh_until + self._stale_jwks
        )
        self._failures, self._trouble, self._missed = 0, "", set()


def warm_up(sets: Iterable[RemoteSet[Any]], monotonic: Callable[[], float], seconds: float = WARM_UP) -> None:
    """Fetch the first set of each, a few at a time, and wait until all fetches have completed, at most `seconds`."""
    end = monotonic() + seconds
    under_way: set[Future[None]] = set()
    for one in sets:
        if len(under_way) >= _AT_ONCE:
            under_way = wait(under_way, max(0.0, end - monotonic()), FIRST_COMPLETED).not_done
            if len(under_way) >= _AT_ONCE:
                return
        landed = one.begin()
        if landed is not None:
            under_way.add(landed)
    wait(under_way, max(0.0, end - monotonic()))


class RemoteJwks(RemoteSet[LookUp]):
    """A `KeySource`: the keys of an issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """Return the keys for a token header (see `KeySource`). Waits only without a current set or for a new `kid`."""
        return self.find(
            lambda keys: keys.find(kid, algorithm),
            lambda keys: keys.unknown(kid, algorithm),
            now,
            hash((kid, algorithm)),  # a short value also for a very long invented kid
            kid=kid,
        )

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:  # noqa: ARG002 - KeySource
        """Return whether the current set answers `keys_for` without a fetch, and with keys that verify quickly."""
        return self.holds(lambda keys: keys.settles(kid, algorithm))

    def current(self, thumbprint: str) -> bool:
        """Return whether the key is in the current set. Never waits."""
        return self.holds(lambda keys: thumbprint in keys.thumbprints)


class CallerJwks(RemoteJwks):
    """The keys of a caller that is not yet authenticated.

    No request waits if no fetch has succeeded yet, or the last one failed: the response time would reveal that such a
    caller exists.
    """

    _waits_for_none = False


def clamp_life(max_age: float | None) -> float:
    """Return for how many seconds to keep a document with this `max_age`, within limits (RFC 9111 §5.2.2.1)."""
    return DEFAULT_LIFE if max_age is None else min(max(max_age, MIN_LIFE), MAX_LIFE)


def _jitter(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - it spreads load and protects nothing
