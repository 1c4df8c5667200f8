"""The state in Redis or Valkey, shared by machines.

A mark is one key with an expiry. The records of a namespace are four keys in one slot of a cluster, which only the
scripts below change, each atomically. A write whose response was lost is sent again with the same random stamp, and
finds its own stamp: it is neither a replay nor a conflict.

The script that reads declares `no-writes`: the server enforces that, and also runs it when it accepts no writes because
its memory or its disk is full.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from sts.redis_link import RedisLink, RedisUnavailableError
from sts.state.state import (
    ABSENT,
    FOREVER,
    KEEP_DELETED_S,
    PAGE,
    AlreadyMarkedError,
    Changes,
    ConflictError,
    Cursor,
    Record,
    StateUnavailableError,
    Write,
    read_all,
)

Result = TypeVar("Result")

_MARK: Final = b"sts:once:"
_SWEEP: Final = 20
_NEVER: Final = "inf"

# A record is kept as "<version> <until> <stamp> <+ or -><value>"; - says that it was deleted.
# KEYS: about the namespace (epoch, sequence, forgotten), records, order of changes, ends.
# ARGV: now, a fresh epoch, how many ended records to drop; then for each record: key, expected version or "", until,
# stamp, + or -, value. Returns the version of each, -1 for a conflict.
_PUT: Final = """#!lua flags=
local now = tonumber(ARGV[1])
local versions = {}
local function put(key, expected, ends, stamp, sign, value)
  local found = redis.call('HGET', KEYS[2], key)
  local version = '0'
  if found then
    local v, over, s, kept = string.match(found, '^(%d+) (%S+) (%S+) ([+-])')
    if s == stamp then return tonumber(v) end
    if kept == '+' and (over == 'inf' or tonumber(over) > now) then version = v end
  end
  if expected ~= '' and expected ~= version then return -1 end
  if sign == '-' and version == '0' then return 0 end
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  redis.call('HSET', KEYS[2], key, sequence .. ' ' .. ends .. ' ' .. stamp .. ' ' .. sign .. value)
  redis.call('ZADD', KEYS[3], sequence, key)
  redis.call('ZREM', KEYS[4], key)
  if ends ~= 'inf' then redis.call('ZADD', KEYS[4], ends, key) end
  return sequence
end
local wrote = false
for at = 4, #ARGV, 6 do
  local version = put(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  if version > 0 then wrote = true end
  versions[#versions + 1] = version
end
if not wrote then return versions end
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
for _, key in ipairs(redis.call('ZRANGE', KEYS[4], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[3])) do
  local over = redis.call('HGET', KEYS[2], key)
  if over and string.match(over, '^%d+ %S+ %S+ %-') then
    local forgotten = tonumber(redis.call('HGET', KEYS[1], 'forgotten') or '0')
    local gone = tonumber(string.match(over, '^(%d+)'))
    if gone > forgotten then redis.call('HSET', KEYS[1], 'forgotten', gone) end
  end
  redis.call('HDEL', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
  redis.call('ZREM', KEYS[4], key)
end
return versions
"""
# A namespace without any write has no epoch yet: "".
_CHANGES: Final = """#!lua flags=no-writes
local about = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'forgotten')
local epoch = about[1] or ''
local last, forgotten, since = tonumber(about[2] or '0'), tonumber(about[3] or '0'), tonumber(ARGV[2])
local reset = 0
if (ARGV[1] ~= '' and ARGV[1] ~= epoch) or since < forgotten or since > last then reset, since = 1, 0 end
local keys = redis.call('ZRANGE', KEYS[3], '(' .. since, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[3])
local values = {}
if #keys > 0 then values = redis.call('HMGET', KEYS[2], unpack(keys)) end
return {epoch, last, reset, keys, values}
"""
_BEGIN: Final = """#!lua flags=allow-oom
return redis.call('HSETNX', KEYS[1], 'epoch', ARGV[1])
"""
_NOWHERE: Final = "-"
"""No epoch: reads from the beginning."""


class RedisState:
    """The `State` in Redis.

    Args:
        prompt: The connection for operations for which a request waits.
        patient: The connection for other operations.
        clock: Returns Unix seconds.
        urgent: Namespaces whose records are written also when the server's memory is full: a revocation must not wait
            until an operator has made room. These records are few and small, and outsiders cannot cause them.
    """

    def __init__(
        self,
        prompt: RedisLink,
        patient: RedisLink,
        clock: Callable[[], float],
        urgent: Collection[str] = (),
    ) -> None:
        self._prompt = prompt
        self._patient = patient
        self._clock = clock
        self._urgent = frozenset(urgent)

    def check(self) -> None:
        """Check that the server may be used. Raises StartError, StateUnavailableError."""
        try:
            self._patient.check()
        except RedisUnavailableError as error:
            raise StateUnavailableError(str(error)) from None

    def mark(self, key: bytes, until: float) -> None:
        """See State. The caller that finds its own random value has set the mark (LIB-R02)."""
        own = secrets.token_bytes(16)
        life = max(1, math.ceil(until - self._clock()))
        found = _run(self._prompt, lambda client: client.set(_MARK + key, own, nx=True, get=True, ex=life), again=True)
        if found not in (None, own):
            raise AlreadyMarkedError("this was used before")

    def get(self, namespace: str, key: str) -> Record | None:
        """See State."""
        found = _run(self._prompt, lambda client: client.hget(_keys(namespace)[1], key), again=True)
        record = None if found is None else _record(key, found)
        return record if record is not None and record.until > self._clock() and record.value is not None else None

    def put(self, namespace: str, key: str, value: bytes, *, expected: int | None, until: float = FOREVER) -> int:
        """See State."""
        return self._write(namespace, key, value, until, expected)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> None:
        """See State."""
        self._write(namespace, key, None, self._clock() + KEEP_DELETED_S, expected)

    def list(self, namespace: str) -> tuple[Record, ...]:
        """See State."""
        now = self._clock()
        found = read_all(self, namespace)
        return tuple(found[key] for key in sorted(found) if found[key].until > now)

    def changes(self, namespace: str, since: Cursor | None) -> Changes:
        """See State."""
        asked: list[Any] = [_NOWHERE, "0"] if since is None else [since.epoch, since.sequence]
        epoch, last, reset, keys, values = _run(
            self._patient,
            lambda client: client.eval(_CHANGES, 4, *_keys(namespace), *asked, PAGE),
            again=True,
        )
        records = tuple(
            _record(key.decode(), value) for key, value in zip(keys, values, strict=True) if value is not None
        )
        more = len(keys) == PAGE
        cursor = Cursor(epoch.decode(), records[-1].version if more and records else int(last))
        return Changes(cursor, records, bool(reset), more)

    def begin(self, namespace: str) -> None:
        """See State."""
        about, epoch = _keys(namespace)[0], secrets.token_hex(16)
        _run(self._patient, lambda client: client.eval(_BEGIN, 1, about, epoch), again=True)

    def close(self) -> None:
        """See State."""
        self._prompt.close()
        self._patient.close()

    def put_many(self, namespace: str, writes: Sequence[Write]) -> tuple[int | None, ...]:
        """See State: one script."""
        arguments: list[Any] = [repr(self._clock()), secrets.token_hex(16), _SWEEP]
        for write in writes:
            arguments += (
                write.key,
                "" if write.expected is None else write.expected,
                _NEVER if write.until == FOREVER else repr(write.until),
                secrets.token_hex(8),
                "-" if write.value is None else "+",
                b"" if write.value is None else write.value,
            )
        script = _PUT.replace("flags=", "flags=allow-oom", 1) if namespace in self._urgent else _PUT
        found = _run(self._patient, lambda client: client.eval(script, 4, *_keys(namespace), *arguments), again=True)
        return tuple(None if version < ABSENT else int(version) for version in found)

    def keys(self, namespace: str) -> tuple[str, ...]:
        """See State."""
        found = _run(self._patient, lambda client: client.hkeys(_keys(namespace)[1]), again=True)
        return tuple(sorted(key.decode() for key in found))

    def get_many(self, namespace: str, keys: Sequence[str]) -> tuple[Record, ...]:
        """See State."""
        if not keys:
            return ()
        now = self._clock()
        found = _run(self._patient, lambda client: client.hmget(_keys(namespace)[1], *keys), again=True)
        records = [_record(key, kept) for key, kept in zip(keys, found, strict=True) if kept is not None]
        return tuple(one for one in records if one.value is not None and one.until > now)

    def _write(self, namespace: str, key: str, value: bytes | None, until: float, expected: int | None) -> int:
        (version,) = self.put_many(namespace, (Write(key, value, expected, until),))
        if version is None:
            raise ConflictError("the record was changed by another process")
        return version


def _keys(namespace: str) -> list[str]:
    """Return the keys of a namespace; the braces keep them in one slot of a cluster."""
    return [f"{{sts:state:{namespace}}}:{part}" for part in ("about", "records", "changes", "ends")]


def _run(link: RedisLink, use: Callable[[Any], Result], *, again: bool) -> Result:
    try:
        return link.run(use, again=again)
    except RedisUnavailableError as error:
        raise StateUnavailableError(str(error)) from None


def _record(key: str, kept: bytes) -> Record:
    try:
        version, until, _, value = kept.split(b" ", 3)
        return Record(key, value[1:] if value[:1] == b"+" else None, int(version), float(until))
    except ValueError:
        raise StateUnavailableError("a record in the store is damaged") from None
