"""The ring in Redis or Valkey, for the replicas of several machines; what they say of themselves in a hash beside it.

Both keys lie in one slot of a cluster. Redis keeps what it is told without knowing what it is: the ring is sealed and
authentic as in a file, and `witness` notices an older one. A failover may forget the last write, since Redis replicates
behind its answers; that is noticed as a rollback, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from redis.exceptions import RedisError

from keys.errors import Conflict, RingMissing, StoreUnauthentic, StoreUnavailable
from keys.record import Ring
from keys.seal import MAX_BYTES, Sealer
from keys.sighting import Sighting

Result = TypeVar("Result")

NAME: Final = "sts:keys"

_NOTE: Final = "replica"
_MOST_REPLICAS: Final = 4096
# The whole value is compared, not a version: the script needs not know what it keeps. A write that is sent once more
# because its answer was lost finds its own value, and is told that it is done.
_SWAP: Final = """
local found = redis.call('GET', KEYS[1]) or ''
if found == ARGV[2] then return 1 end
if found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
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
            if self._run(lambda client: client.eval(_SWAP, 1, self._ring_key, before, after), again=True):
                return
        raise Conflict(f"{self._place} was changed by somebody else: it does not hold version {expected or 'none'} now")

    def report(self, sighting: Sighting) -> None:
        """Keep what a replica says, under its name (see `Store`)."""
        said = self._sealer.write_note(_NOTE, sighting.facts())
        self._run(lambda client: client.hset(self._said_key, sighting.replica, said), again=True)

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

    def close(self) -> None:
        """Nothing is held here; whoever opened the client closes it (see `Store`)."""

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


def _bytes(value: bytes | str) -> bytes:
    """A client may decode what it gets."""
    return value.encode() if isinstance(value, str) else value
