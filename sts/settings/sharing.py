"""What replicas share through Redis: whoever says `redis` needs the section, and all replicas the same secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sts.options import file_faults
from sts.redis_link.settings import read_ca
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, Trail, dotted

REDIS: Final = "redis"
_STATE: Final[Trail] = ("state", "store")
_SHARED: Final[tuple[Trail, ...]] = (("keys", "store"), ("cache", "shared"))
_USERS: Final = (*_SHARED, _STATE)


def users(written: Mapping[str, Any]) -> list[Trail]:
    """Where the configuration, as written, asks for Redis: `keys.store`, `state.store`, `cache.shared`, a table."""
    found = [path for path in _USERS if _asks(_at(written, path))]
    tables = written.get("tables")
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and REDIS in table:
            found.append(("tables", name, REDIS))
    return found


def _asks(value: object) -> bool:
    """By name, or as a server of its own (`cache.shared`)."""
    return value == REDIS or isinstance(value, dict)


def _at(written: Mapping[str, Any], path: Trail) -> object:
    section, key = path
    inner = written.get(str(section))
    return inner.get(key) if isinstance(inner, dict) else None


def redis(parts: Parts) -> Iterator[Finding]:
    """Where something says `redis`, there is a server; its CA file can be used."""
    own = ("cache", "shared")  # may bring a server of its own
    asking = [path for path in users(parts.written) if path != own or _at(parts.written, own) == REDIS]
    if asking and parts.written.get(REDIS) is None:
        hint = "such as `redis: {url: rediss://redis.example.internal:6379/0}`"
        yield Finding((REDIS,), f"`redis` is missing: {dotted(asking[0])} asks for it", hint)
    for key, problem in file_faults("ca_file", parts.redis.ca_file if parts.redis else None, read_ca):
        yield Finding((REDIS, key), problem)


def shared_secret(parts: Parts) -> Iterator[Finding]:
    """Replicas that meet in Redis need one secret: one that each machine makes by itself would part them."""
    using = users(parts.written)
    if using and parts.written.get("secret") is None:
        hint = "write `secret: {file: PATH}` or {env: NAME}, on every machine the same one"
        yield Finding(("secret",), f"`secret` is missing: {dotted(using[0])} uses Redis", hint)


def one_state(parts: Parts) -> Iterator[Finding]:
    """Machines that share keys or a cache must share marks and revocations too, or each would take what others refuse.

    That there are several machines shows in nothing else.
    """
    store = _at(parts.written, _STATE)
    seen = [path for path in users(parts.written) if path in _SHARED]
    if store in (None, "sqlite") and seen:
        problem = f"sqlite is for one machine, and {dotted(seen[0])} is for several: a revocation would reach only one"
        yield Finding(_STATE, problem, "write `state: {store: redis}`")


CHECKS: Final[tuple[Check, ...]] = (redis, shared_secret, one_state)
"""The checks of this module."""
