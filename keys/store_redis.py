"""The ring in Redis or Valkey, for the replicas of several machines; what they say of themselves in a hash beside it.

Both keys lie in one slot of a cluster. Redis keeps what it is told without knowing what it is: the ring is sealed and
authentic as in a file, and `witness` notices an older one. A failover may forget the last write, since Redis replicates
behind its answers; that is noticed as a rollback, too.

Each write is told on a channel, so that replicas need not wait for their next poll. Anybody who may publish there can
wake them, and no more than that: what is heard says nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from threading import Event
from typing import Any, Final, Protocol, TypeVar

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from keys.errors import Conflict, RingMissing, StoreUnauthentic, StoreUnavailable
from keys.record import Ring
from keys.replica_report import Sighting
from keys.seal import MAX_BYTES, Sealer

Result = TypeVar("Result")

NAME: Final = "sts:keys"

_NOTE: Final = "replica"
_MOST_REPLICAS: Final = 4096
_SLICE_S: Final = 0.5
_SILENCE_S: Final = 10.0
_ANSWER_S: Final = 2.0
_MOST_AT_ONCE: Final = 1000
# The whole value is compared, not a version: the script needs not know what it keeps. A write that is sent once more
# because its answer was lost finds its own value, and is told that it is done. A user who may not publish has written
# all the same, hence pcall. A server without room takes a ring and a replica's word too (`allow-oom`): they are few and
# small, and without them no key could be revoked, and the JWKS would end.
_SWAP: Final = """#!lua flags=allow-oom
local found = redis.call('GET', KEYS[1]) or ''
if found == ARGV[2] then return 1 end
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.pcall('PUBLISH', ARGV[3], '')
return 1
"""
_SAY: Final = """#!lua flags=allow-oom
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""


class Run(Protocol):
    """How a command is run: `use` is called with a client of redis-py, up to twice where `again` allows that.

    Raises StoreUnavailable where it cannot be, or nobody knows whether it was.
    """

    def __call__(self, use: Callable[[Any], Result], *, again: bool) -> Result:
        """Run `use`; see above."""


def over(client: Any) -> Run:  # noqa: ANN401 - one of redis-py's clients
    """Run commands on an opened client as it is; its time-outs are its own."""

    def run(use: Callable[[Any], Result], *, again: bool) -> Result:  # noqa: ARG001 - the client tries again by itself
        try:
            return use(client)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the key store in Redis cannot be used: {type(error).__name__}") from None

    return run


class RedisStore:
    """A store under the keys that begin with `name`; `place` names the server for an operator, without a password."""

    def __init__(self, run: Run, sealer: Sealer, place: str = "Redis", name: str = NAME) -> None:
        self._run = run
        self._sealer = sealer
        self._place = f"{place} ({name})"
        self._ring_key = f"{{{name}}}:ring".encode()
        self._said_key = f"{{{name}}}:replicas".encode()
        self._channel = f"{{{name}}}:changed".encode()
        self._last: tuple[bytes, Ring] | None = None

    @property
    def place(self) -> str:
        """The server, and the name there."""
        return self._place

    def load(self) -> Ring:
        """Read the ring (see `Store`)."""
        return self._read()[1]

    def compare_and_swap(self, expected: int | None, ring: Ring) -> None:
        """Replace the ring of version `expected` (see `Store`)."""
        if ring.version != (expected or 0) + 1:
            raise ValueError("the version of a ring grows by one with every write")
        before = b""
        found: int | None = None
        try:
            before, known = self._read()
            found = known.version
        except RingMissing:
            pass
        if found == expected:
            after = self._sealer.seal(ring)
            words = (_SWAP, 1, self._ring_key, before, after, self._channel)
            if self._run(lambda client: client.eval(*words), again=True):
                return
        raise Conflict(f"{self._place} was changed by somebody else: it does not hold version {expected or 'none'} now")

    def report(self, sighting: Sighting) -> None:
        """Keep what a replica says, under its name (see `Store`)."""
        said = self._sealer.write_note(_NOTE, sighting.facts())
        self._run(lambda client: client.eval(_SAY, 1, self._said_key, sighting.replica, said), again=True)

    def forget(self, replica: str) -> None:
        """Drop what a replica said (see `Store`)."""
        self._run(lambda client: client.hdel(self._said_key, replica), again=True)

    def sightings(self) -> list[Sighting]:
        """What all replicas said last (see `Store`)."""
        if self._run(lambda client: client.hlen(self._said_key), again=True) > _MOST_REPLICAS:
            raise StoreUnavailable(f"{self._place} holds the words of more than {_MOST_REPLICAS} replicas")
        found = []
        for said in self._run(lambda client: client.hvals(self._said_key), again=True):
            try:
                found.append(Sighting.of(self._sealer.read_note(_NOTE, _bytes(said))))
            except (StoreUnauthentic, KeyError):
                continue
        return found

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Subscribe on a connection of its own, and hear (see `Store`).

        One that says nothing is asked whether it is there: a connection may die without a word.
        """
        try:
            subscription = self._run(self._subscribe, again=False)
        except StoreUnavailable as error:
            raise StoreUnavailable(f"SUBSCRIBE {self._channel.decode()} failed: {error}") from None
        try:
            heard()  # of what was written before we listened
            spoke_at, asked = time.monotonic(), False
            while not stopping.is_set():
                message = subscription.get_message(timeout=_SLICE_S)
                if message is not None:
                    if _drain(subscription, message):
                        heard()
                    spoke_at, asked = time.monotonic(), False
                    continue
                silence = time.monotonic() - spoke_at
                if silence > _SILENCE_S + _ANSWER_S:
                    raise StoreUnavailable(f"{self._place} does not answer any more where it tells of changes")
                if silence > _SILENCE_S and not asked:
                    subscription.ping()
                    asked = True
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._place} tells of no changes any more: {type(error).__name__}") from None
        finally:
            with contextlib.suppress(RedisError, OSError):
                subscription.close()

    def close(self) -> None:
        """Nothing is held here; whoever opened the client closes it (see `Store`)."""

    def _subscribe(self, client: Any) -> Any:  # noqa: ANN401 - one of redis-py's clients, and its subscription
        subscription = client.pubsub()
        try:
            subscription.subscribe(self._channel)
            confirmed = subscription.get_message(timeout=_ANSWER_S)
        except BaseException:
            subscription.close()
            raise
        if confirmed is None:
            subscription.close()
            raise RedisTimeoutError
        return subscription

    def _read(self) -> tuple[bytes, Ring]:
        length = self._run(lambda client: client.strlen(self._ring_key), again=True)
        if length > MAX_BYTES:  # before it is fetched
            raise StoreUnauthentic(f"{self._place} holds more than {MAX_BYTES} bytes; that is no ring")
        data = self._run(lambda client: client.get(self._ring_key), again=True)
        if data is None:
            raise RingMissing(f"there is no key ring at {self._place}")
        data = _bytes(data)
        last = self._last
        if last is not None and last[0] == data:
            return last
        try:
            ring = self._sealer.open(data)
        except StoreUnauthentic as error:
            raise StoreUnauthentic(f"{self._place}: {error}") from None
        self._last = (data, ring)
        return self._last


def _drain(subscription: Any, message: dict[str, Any] | None) -> bool:  # noqa: ANN401 - redis-py's
    """Take what else is there; returns whether a notice is among it, and not only an answer to our question."""
    told = False
    for _ in range(_MOST_AT_ONCE):
        if message is None:
            break
        told = told or message["type"] != "pong"
        message = subscription.get_message()
    return told


def _bytes(value: bytes | str) -> bytes:
    """A client may decode what it gets."""
    return value.encode() if isinstance(value, str) else value
