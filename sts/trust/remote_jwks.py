"""Keys of an issuer or a backend over HTTP: fresh enough, never waited for without need, never replaced by a failure.

What goes wrong elsewhere, and is ruled out here: a failed refresh that empties the set (PyJWT #1162); a fetch for
every random `kid` (hydra #2535); a revoked key that stays since its `kid` is known (svelte-langgraph #284); a slow
issuer that takes all threads with it.
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
"""Keys that are tried for one token: each costs a verification, and an attacker chooses the token."""


class KeySource(Protocol):
    """The keys of one issuer."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """The keys that may have signed a token with this header: at least one, at most MAX_TRIES. May wait.

        Raises UNKNOWN_KEY, BAD_ALGORITHM if the key with this `kid` may not verify `algorithm`, or SOURCE_UNREACHABLE.
        """

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:
        """Whether `keys_for` would answer without waiting, and with keys that verify quickly."""

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
        self._unfit = keys.skipped_kids

    def find(self, kid: str | None, algorithm: str) -> tuple[VerifyKey, ...]:
        """The fitting keys: those with exactly this `kid`, or all for a token without one; () if there is none.

        Raises BAD_ALGORITHM if `kid` is there but not for `algorithm`, so that no fetch is made for it; UNKNOWN_KEY if
        it is that of a key which cannot be used, or if more than MAX_TRIES would fit.
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
        """Whether this set alone decides, and quickly: it has keys that verify quickly, or it refuses."""
        try:
            found = self.find(kid, algorithm)
        except Refusal:
            return True
        return bool(found) and all(key.is_quick for key in found)

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

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:  # noqa: ARG002 - as KeySource says
        """As KeySource says."""
        return self._keys.settles(kid, algorithm)

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return thumbprint in self._keys.thumbprints


MIN_LIFE: Final = 60.0
MAX_LIFE: Final = 3600.0
DEFAULT_LIFE: Final = 300.0
"""Seconds for which a set is in force: what its answer says within the first two, else the third."""
REFRESH_AFTER: Final = (0.75, 0.85)
"""The share of a set's life after which it is refreshed in the background; jittered, so that replicas spread."""
COOL_DOWN: Final = (1.0, 4.5)
"""Seconds from one fetch for an unknown `kid` to the next: the first, doubled while such fetches go on, up to the
second. With the fetch itself a new key is found within 5 s, however many made-up ones are asked for."""
QUIET: Final = 30.0
"""Seconds without a fetch for an unknown `kid` after which the cool-down begins with its first value again."""
BACK_OFF: Final = (1.0, 2.0, 30.0)
"""Seconds before the second attempt after a failure; doubled with each further one, up to the second value while keys
are missing, up to the third while there are some and only a refresh fails."""
FAILURES: Final = 3
"""Failures in a row after which no request waits for the next attempt."""
FAILURE_IS_NEWS: Final = 60.0
"""Seconds for which a failed attempt is reason enough to use a stale set without waiting for the next attempt."""
GRACE: Final = 0.5
"""Seconds that a request waits without a place of its own for a fetch that has not proved slow."""
PATIENCE: Final = 6.0
"""Seconds that a request waits for the keys at most."""
LACKS: Final = "the issuer's set lacks it and is fetched again in a moment"
"""Why a token is refused whose key may be new, while it is too soon to fetch the set again."""
WARM_UP: Final = 2.0
"""Seconds that a worker waits at most for the first sets of all issuers before it takes requests."""
MAX_MISSED: Final = 1000
_AT_ONCE: Final = 32


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


class _Need(enum.Enum):
    """What a fetch is for: a set in force that should be renewed, any set at all, or a key that the set lacks."""

    REFRESH = enum.auto()
    SET = enum.auto()
    KEY = enum.auto()


@dataclass(slots=True)
class _Flight:
    """The one fetch under way; `slow` once a request has waited for it in vain for GRACE seconds."""

    landed: Future[None] = field(default_factory=Future)
    slow: bool = False

    def wait(self, seconds: float) -> bool:
        """Whether it has landed, after `seconds` at most."""
        return bool(wait([self.landed], seconds).done)


class RemoteSet(Generic[Keys]):
    """Keys over `load`, which fetches the set, may take its time, and raises UnreachableError or UnfitError.

    Fetches run in a thread of their own, one at a time, none before the first use: it may be made before a fork.
    At most `max_waiters` requests wait for one, and only while `all_waiters`, which issuers share, has room; both are
    shared fairly by callers. The other requests are answered at once from what is there. `stale_jwks` is how many
    seconds the last good set serves after its life when no fetch succeeds. `notice` hears of every fetch: "" or why it
    failed.
    """

    _waits_for_none: ClassVar[bool] = True  # whether requests wait for a set that never came or failed to come

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
        # Written by the fetching thread under the lock, read without it: each is one reference.
        self._held: _Held[Keys] | None = None
        self._flight: _Flight | None = None
        self._failed_at = float("-inf")
        self._failures = 0
        self._trouble = ""
        self._key_fetch_at = float("-inf")
        self._cool_down = COOL_DOWN[0]
        self._missed: set[object] = set()  # what the last fetch was made for and did not bring

    @property
    def trouble(self) -> str:
        """Why the last attempt to get the keys failed, "" if it did not; for operators."""
        return self._trouble

    def begin(self) -> Future[None] | None:
        """Begin the first fetch; it is done when it has succeeded or failed. None where there is nothing to begin."""
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
        """What `look` finds in the set; `wanted` names it. Waits only if no set is in force, or it finds nothing there.

        Raises what `missing` says of a set that was fetched for this and has nothing, and SOURCE_UNREACHABLE, with
        `facts`, where no set can be had, or where it is too soon to fetch it again.
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
        # No newer set could be had: what is left of the last good one is better than an outage, for as long as allowed.
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
        """Whether there is a set in force and `look` says yes to it. Never waits.

        It sees to it that the set is refreshed even where only cached answers are asked for.
        """
        held = self._held
        if held is None:
            return False
        now = self._clock()
        if now >= held.refresh_at:
            self._fly(now, _Need.REFRESH, block=False)
        return look(held.keys) and self._in_force(held, now)

    def _in_force(self, held: _Held[Keys], now: float) -> bool:
        """Whether to use the set without waiting: it is fresh, or stale while the issuer is known to be down."""
        if now < held.fresh_until:
            return held.fresh_until - now <= MAX_LIFE  # else the clock was set back, and says nothing of the set's age
        return now - self._failed_at < FAILURE_IS_NEWS and now < held.stale_until

    def _wait(self, flight: _Flight, need: _Need) -> bool:
        """Wait for a fetch, where the request may; whether it has landed.

        While there is no set at all, every request waits a moment: a cold start must not refuse what comes at once.
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
        """Join the fetch under way, or begin one; None while it is too soon after the last."""
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
        except RuntimeError:  # no thread is to be had: the next request tries again
            self._flight = None
        finally:
            self._lock.release()
        return self._flight

    def _resting(self, now: float, need: _Need) -> bool:
        held, until = self._held, float("-inf")
        if held is not None and need is not _Need.KEY and self._in_force(held, now) and now < held.refresh_at:
            return True  # another fetch has brought it meanwhile
        if self._failures:
            longest = BACK_OFF[2] if need is _Need.REFRESH else BACK_OFF[1]
            until = self._failed_at + min(longest, BACK_OFF[0] * 2.0 ** min(self._failures - 1, 10))
        if need is _Need.KEY:  # the cool-down counts from its own kind alone: no other fetch may delay a new key
            until = max(until, self._key_fetch_at + self._cool_down)
        # A pause that is longer than any pause is none: the clock was set back.
        return now < until <= now + BACK_OFF[2]

    def _fetch(self, flight: _Flight) -> None:
        loaded, why = None, ""
        try:
            loaded = self._load()
        except (UnreachableError, UnfitError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, no request may wait for this thread for ever
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
    """Fetch the first set of each, some at a time, and wait until all have come or failed to, `seconds` at most."""
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
        """As KeySource says. Waits only if there is no set in force, or if it does not know `kid`."""
        return self.find(
            lambda keys: keys.find(kid, algorithm),
            lambda keys: keys.unknown(kid, algorithm),
            now,
            hash((kid, algorithm)),  # which is short, however long a made-up kid is
            kid=kid,
        )

    def at_hand(self, kid: str | None, algorithm: str, now: float) -> bool:  # noqa: ARG002 - as KeySource says
        """As KeySource says."""
        return self.holds(lambda keys: keys.settles(kid, algorithm))

    def current(self, thumbprint: str) -> bool:
        """As KeySource says."""
        return self.holds(lambda keys: thumbprint in keys.thumbprints)


class CallerJwks(RemoteJwks):
    """The keys of a caller, of which nothing is proven yet.

    No request waits for a set that never came or failed to come: the time of an answer would tell that there is such a
    caller.
    """

    _waits_for_none = False


def clamp_life(max_age: float | None) -> float:
    """Seconds to keep a document whose answer says `max_age`: honoured within bounds (RFC 9111 §5.2.2.1)."""
    return DEFAULT_LIFE if max_age is None else min(max(max_age, MIN_LIFE), MAX_LIFE)


def _jitter(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311 - it spreads load and protects nothing
