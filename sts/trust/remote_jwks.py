"""Keys of an issuer or a backend over HTTP: fresh enough, never waited for without need, never replaced by a failure.

What goes wrong elsewhere, and is ruled out here: a failed refresh that empties the set (PyJWT #1162); a fetch for
every random `kid` (hydra #2535); a revoked key that stays since its `kid` is known (svelte-langgraph #284); a slow
issuer that takes all threads with it.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from sts.errors import BAD_ALGORITHM, SOURCE_UNREACHABLE, UNKNOWN_KEY, Refusal, StartError
from sts.jose import KeySet, UnfitError, VerifyKey, import_jwks
from sts.options import KeptFile
from sts.trust.fetch import UnreachableError

MAX_TRIES: Final = 4
"""Keys that are tried for one token: each costs a verification, and an attacker chooses the token."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """The keys that may have signed a token with this header: at least one, at most MAX_TRIES. May wait.

        Raises UNKNOWN_KEY, BAD_ALGORITHM if the key with this `kid` may not verify `algorithm`, or SOURCE_UNREACHABLE.
        """

    def current(self, thumbprint: str) -> bool:
        """Whether the key with this RFC 7638 thumbprint is in the set in force. Never waits."""

    @property
    def trouble(self) -> str:
        """Why the last attempt to get the keys failed, "" if it did not; for operators."""


class LookUp:
    """The keys of one set, found by a token's header."""

    def __init__(self, keys: KeySet) -> None:
        by_kid: defaultdict[str | None, list[VerifyKey]] = defaultdict(list)
        for key in keys.keys:
            by_kid[key.kid].append(key)
        self._by_kid = {kid: tuple(same) for kid, same in by_kid.items() if kid is not None}
        self._all = keys.keys
        self.thumbprints = frozenset(key.thumbprint for key in keys.keys)
        self.left_out = "; ".join(keys.skipped[:5])

    def find(self, kid: str | None, algorithm: str) -> tuple[VerifyKey, ...]:
        """The fitting keys: those with exactly this `kid`, or all for a token without one; () if there is none.

        Raises BAD_ALGORITHM if `kid` is there but not for `algorithm`, so that no fetch is made for it; UNKNOWN_KEY if
        more than MAX_TRIES would fit.
        """
        named = self._all if kid is None else self._by_kid.get(kid, ())
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if named and not fitting and kid is not None:
            raise Refusal(BAD_ALGORITHM, why="the key may not verify this algorithm", alg=algorithm, kid=kid)
        if len(fitting) > MAX_TRIES:
            raise Refusal(UNKNOWN_KEY, why="too many keys would fit", alg=algorithm, kid=kid)
        return fitting

    def unknown(self, kid: str | None, algorithm: str) -> Refusal:
        """The refusal of a token whose key is not there; it says which keys of the set could not be used and why."""
        why = "the issuer publishes no such key"
        return Refusal(UNKNOWN_KEY, why=why, alg=algorithm, kid=kid, left_out=self.left_out)


class FileJwks:
    """Keys from a JWK set file, as the configuration has read it: a reload reads it anew.

    Raises StartError if the file could not be read or leaves no usable key.
    """

    trouble = ""

    def __init__(self, file: KeptFile, algorithms: Collection[str]) -> None:
        try:
            self._keys = LookUp(import_jwks(file.read(), algorithms))
        except UnfitError as error:
            raise StartError(f"the JWK set file {file} cannot be used: {error}") from None

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:  # noqa: ARG002 - KeySource
        """As KeySource says; never waits."""
        found = self._keys.find(kid, algorithm)
        if not found:
            raise self._keys.unknown(kid, algorithm)
        return found

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return thumbprint in self._keys.thumbprints


MIN_LIFE: Final = 60.0
MAX_LIFE: Final = 3600.0
DEFAULT_LIFE: Final = 300.0
"""Seconds for which a set is in force: what its answer says within the first two, else the third."""
REFRESH_AFTER: Final = (0.75, 0.85)
"""The share of a set's life after which it is refreshed in the background; jittered, so that replicas spread."""
COOL_DOWN: Final = (30.0, 45.0)
"""Seconds after a fetch before an unknown `kid` may cause the next one."""
BACK_OFF: Final = 1.0
"""Seconds before the second attempt after a failure; doubled with each further one, up to the cool-down."""
FAILURE_IS_NEWS: Final = 60.0
"""Seconds for which a failed attempt is reason enough to use a stale set without waiting for the next attempt."""
PATIENCE: Final = 6.0
"""Seconds that a request waits for the keys at most."""


Keys = TypeVar("Keys")
"""A set of keys, ready to be looked into."""
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Keys]):
    """One successful fetch: the keys, and the seconds for which their owner says they may be kept."""

    keys: Keys
    max_age: float | None


@dataclass(frozen=True, slots=True)
class _Held(Generic[Keys]):
    """A set and its times: refreshed from the first on, in force until the second, a last resort until the third."""

    keys: Keys
    refresh_at: float
    fresh_until: float
    stale_until: float


@dataclass(slots=True)
class _Flight:
    """The one fetch under way."""

    landed: threading.Event = field(default_factory=threading.Event)


class RemoteSet(Generic[Keys]):
    """Keys over `load`, which fetches the set, may take its time, and raises UnreachableError or UnfitError.

    Fetches run in a thread of their own, one at a time, none before the first use: it may be made before a fork.
    At most `max_waiters` requests wait for one, and only while `all_waiters`, which issuers share, has room: the others
    are answered at once from what is there. `stale_jwks` is how many seconds the last good set serves after its life
    when no fetch succeeds. `notice` hears of every fetch: "" or why it failed.
    """

    def __init__(
        self,
        load: Callable[[], Loaded[Keys]],
        clock: Callable[[], float],
        *,
        stale_jwks: float,
        max_waiters: int,
        notice: Callable[[str], None] = lambda _why: None,
        patience: float = PATIENCE,
        all_waiters: threading.BoundedSemaphore | None = None,
    ) -> None:
        self._load, self._clock, self._notice = load, clock, notice
        self._stale_jwks, self._patience = stale_jwks, patience
        self._waiters = threading.BoundedSemaphore(max_waiters)
        self._all_waiters = all_waiters or threading.BoundedSemaphore(max_waiters)
        self._lock = threading.Lock()
        # Written by the fetching thread under the lock, read without it: each is one reference.
        self._held: _Held[Keys] | None = None
        self._flight: _Flight | None = None
        self._not_before = float("-inf")
        self._failed_at = float("-inf")
        self._failures = 0
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last attempt to get the keys failed, "" if it did not; for operators."""
        return self._trouble

    def find(
        self, look: Callable[[Keys], Found | None], missing: Callable[[Keys], Refusal], now: float, **facts: object
    ) -> Found:
        """What `look` finds in the set. Waits only if there is no set in force, or if it finds nothing in it.

        Raises what `missing` says of a set that is fresh and has nothing, and SOURCE_UNREACHABLE, with `facts`, where
        there is none to be had.
        """
        held = self._held
        if held is not None and self._in_force(held, now):
            if now >= held.refresh_at:
                self._fly(now)
            found = look(held.keys)
            if found:
                return found
        flight = self._fly(now)
        if flight is not None:
            self._wait(flight)
        held, now = self._held, self._clock()
        # No newer set could be had: what is left of the last good one is better than an outage, for as long as allowed.
        found = look(held.keys) if held is not None and now < held.stale_until else None
        if found:
            return found
        fresh = held is not None and now < held.fresh_until and (flight is None or flight.landed.is_set())
        if held is not None and fresh and not self._trouble:
            raise missing(held.keys)
        raise Refusal(SOURCE_UNREACHABLE, why=self._trouble or "no answer yet", **facts)

    def holds(self, look: Callable[[Keys], bool]) -> bool:
        """Whether there is a set in force and `look` says yes to it. Never waits.

        It sees to it that the set is refreshed even where only cached answers are asked for.
        """
        held = self._held
        if held is None:
            return False
        now = self._clock()
        if now >= held.refresh_at:
            self._fly(now, block=False)
        return look(held.keys) and self._in_force(held, now)

    def _in_force(self, held: _Held[Keys], now: float) -> bool:
        """Whether to use the set without waiting: it is fresh, or stale while the issuer is known to be down."""
        if now < held.fresh_until:
            return held.fresh_until - now <= MAX_LIFE  # else the clock was set back, and says nothing of the set's age
        return now - self._failed_at < FAILURE_IS_NEWS and now < held.stale_until

    def _wait(self, flight: _Flight) -> None:
        if not self._waiters.acquire(blocking=False):
            return
        try:
            if self._all_waiters.acquire(blocking=False):
                try:
                    flight.landed.wait(self._patience)
                finally:
                    self._all_waiters.release()
        finally:
            self._waiters.release()

    def _fly(self, now: float, *, block: bool = True) -> _Flight | None:
        """Join the fetch under way, or begin one; None while it is too soon after the last."""
        if self._flight is None and self._resting(now):
            return None
        if not self._lock.acquire(blocking=block):
            return None
        try:
            if self._flight is None and not self._resting(now):
                self._flight = _Flight()
                threading.Thread(target=self._fetch, args=[self._flight], name="jwks", daemon=True).start()
        except RuntimeError:  # no thread is to be had: the next request tries again
            self._flight = None
        finally:
            self._lock.release()
        return self._flight

    def _resting(self, now: float) -> bool:
        # A pause that is longer than any pause is none: the clock was set back.
        return now < self._not_before <= now + COOL_DOWN[1]

    def _fetch(self, flight: _Flight) -> None:
        loaded, why = None, ""
        try:
            loaded = self._load()
        except (UnreachableError, UnfitError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for this thread for ever
            why = f"fault: {type(error).__name__}"
        with self._lock:
            now = self._clock()
            if loaded is not None:
                self._keep(loaded, now)
            else:
                self._failures, self._failed_at, self._trouble = self._failures + 1, now, why
            self._not_before = now + self._pause()
            self._flight = None
        flight.landed.set()
        self._notice(why)

    def _keep(self, loaded: Loaded[Keys], now: float) -> None:
        life = clamp_life(loaded.max_age)
        fresh_until = now + life
        self._held = _Held(
            loaded.keys, now + life * _jitter(*REFRESH_AFTER), fresh_until, fresh_until + self._stale_jwks
        )
        self._failures, self._trouble = 0, ""

    def _pause(self) -> float:
        """Seconds until the next fetch may begin: a back-off after failures, else the cool-down."""
        pause = _jitter(*COOL_DOWN)
        return min(pause, BACK_OFF * 2.0 ** min(self._failures - 1, 10)) if self._failures else pause


class RemoteJwks(RemoteSet[LookUp]):
    """A `KeySource`: the keys of an issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """As KeySource says. Waits only if there is no set in force, or if it does not know `kid`."""
        return self.find(
            lambda keys: keys.find(kid, algorithm), lambda keys: keys.unknown(kid, algorithm), now, kid=kid
        )

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return self.holds(lambda keys: thumbprint in keys.thumbprints)


def clamp_life(max_age: float | None) -> float:
    """Seconds to keep a document whose answer says `max_age`: honoured within bounds (RFC 9111 §5.2.2.1)."""
    return DEFAULT_LIFE if max_age is None else min(max(max_age, MIN_LIFE), MAX_LIFE)


def _jitter(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - it spreads load and protects nothing
