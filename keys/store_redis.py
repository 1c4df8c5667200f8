"""The ring in Redis or Valkey, for replicas on several machines; a hash beside it keeps the reports of the replicas.

Both keys are in one slot of a cluster. Redis is not trusted: the ring is sealed and authentic as in a file, and
`rollback_guard` detects an older one. A failover may lose the last write, because Redis replicates asynchronously; the
guard detects that as a rollback, too.

Each write publishes a notice on a channel, so that replicas need not wait for their next poll. A client that may
publish on the channel can wake the replicas, but no more: the notice has no content.
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
# The script compares the whole value, not a version, so it need not parse the value. A write that is repeated because
# its response was lost finds its own value and succeeds. `pcall`: the write succeeds also for a user who may not
# publish. `allow-oom`: a server at its memory limit accepts the ring and the reports. They are few and small, and
# without them no key could be revoked, and the JWKS would expire.
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
    """Runs a command: calls `use` with a redis-py client, up to twice if `again` is true.

    Raises StoreUnavailable if the command failed, or if it is unknown whether it was executed.
    """

    def __call__(self, use: Callable[[Any], Result], *, again: bool) -> Result:
        """Run `use` and return its result."""


def over(client: Any) -> Run:  # noqa: ANN401 - one of redis-py's clients
    """Return a `Run` that uses an open client, with the client's own timeouts."""

    def run(use: Callable[[Any], Result], *, again: bool) -> Result:  # noqa: ARG001 - the client tries again by itself
        try:
            return use(client)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the key store in Redis cannot be used: {type(error).__name__}") from None

    return run


class RedisStore:
    """A store under the keys that begin with `name`; `place` is the server for messages, without a password."""

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
        """The server, and the prefix of the keys."""
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
        raise Conflict(f"{self._place} was changed by another writer: it does not contain version {expected or 'none'}")

    def report(self, sighting: Sighting) -> None:
        """Store the report of a replica under its name (see `Store`)."""
        said = self._sealer.write_note(_NOTE, sighting.facts())
        self._run(lambda client: client.eval(_SAY, 1, self._said_key, sighting.replica, said), again=True)

    def forget(self, replica: str) -> None:
        """Delete the report of a replica (see `Store`)."""
        self._run(lambda client: client.hdel(self._said_key, replica), again=True)

    def sightings(self) -> list[Sighting]:
        """Return the last report of each replica (see `Store`)."""
        if self._run(lambda client: client.hlen(self._said_key), again=True) > _MOST_REPLICAS:
            raise StoreUnavailable(f"{self._place} contains the reports of more than {_MOST_REPLICAS} replicas")
        found = []
        for said in self._run(lambda client: client.hvals(self._said_key), again=True):
            try:
                found.append(Sighting.of(self._sealer.read_note(_NOTE, _bytes(said))))
            except (StoreUnauthentic, KeyError):
                continue
        return found

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Subscribe on a dedicated connection, and call `heard` for each notice (see `Store`).

        A silent connection is tested with PING, because a connection may die without a message.
        """
        try:
            subscription = self._run(self._subscribe, again=False)
        except StoreUnavailable as error:
            raise StoreUnavailable(f"SUBSCRIBE {self._channel.decode()} failed: {error}") from None
        try:
            heard()  # for a write before the subscription
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
                    raise StoreUnavailable(f"{self._place} no longer answers on the connection for change notices")
                if silence > _SILENCE_S and not asked:
                    subscription.ping()
                    asked = True
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._place} no longer sends change notices: {type(error).__name__}") from None
        finally:
            with contextlib.suppress(RedisError, OSError):
                subscription.close()

    def close(self) -> None:
        """Do nothing: the code that opened the client closes it (see `Store`)."""

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
        if length > MAX_BYTES:  # checked before the value is fetched
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
    """Read the pending messages; returns whether one of them is a notice, and not only the answer to our PING."""
    told = False
    for _ in range(_MOST_AT_ONCE):
        if message is None:
            break
        told = told or message["type"] != "pong"
        message = subscription.get_message()
    return told


def _bytes(value: bytes | str) -> bytes:
    """Return bytes also for a client that decodes responses."""
    return value.encode() if isinstance(value, str) else value
