"""Creates clients of redis-py: single server, Sentinel, Cluster; with or without TLS; checks each new connection.

The library does not retry here: a retry would send a write again whose reply was lost, and wait ten times as long.
Time-outs limit each write and each read. Name resolution takes extra time, because Python cannot interrupt it.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from sts.redis_link.settings import RedisSettings, is_loopback, read_ca

_MAX_CONNECTIONS: Final = 1100
"""Connections per process and server: more than a worker has threads."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds to connect, and for each answer."""

    connect: float
    answer: float


MAX_IDLE: Final = 30.0
"""Idle seconds after which a connection is not used again: load balancers drop idle connections silently."""
TRUSTED_FOR: Final = 1.0
"""Seconds after its last answer for which a connection is used without a PING."""


class UnsuitableError(RedisConnectionError):
    """The server answers but must not be used; the text is for the operator: what to set."""


class _Lasting:
    """Checks a kept connection before its next use, so that a dead connection costs no command.

    The pool calls `connect` each time it hands out a connection. A command on a dead connection is lost, and a write
    must not be sent twice; a PING may be. It has half of the time of an answer. If a connection proves dead, all
    connections that were last used no later than it are reopened without a check.
    """

    dead_until = float("-inf")  # shared by all connections of one client: each client has its own subclass
    _sock: Any
    _used_at = float("-inf")

    def connect(self) -> Any:  # noqa: ANN401 - redis-py's
        if self._sock is not None and not self._is_alive():
            self.disconnect()  # type: ignore[attr-defined]  # redis-py's
        result = super().connect()  # type: ignore[misc]  # redis-py's
        self._used_at = time.monotonic()
        return result

    def read_response(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's
        result = super().read_response(*arguments, **options)  # type: ignore[misc]  # redis-py's
        self._used_at = time.monotonic()
        return result

    def _is_alive(self) -> bool:
        used_at, idle = self._used_at, time.monotonic() - self._used_at
        if idle > MAX_IDLE or used_at <= type(self).dead_until:
            return False
        if idle < TRUSTED_FOR:
            return True
        try:
            self.send_command("PING", check_health=False)  # type: ignore[attr-defined]  # redis-py's
            self.read_response(timeout=self.socket_timeout / 2)  # type: ignore[attr-defined]  # redis-py's
        except ResponseError:  # the user may not run PING, but the server answered
            return True
        except (RedisError, OSError):
            type(self).dead_until = max(type(self).dead_until, used_at)
            return False
        return True


class _PlainConnection(Connection):
    """A connection without TLS: only to this machine, even if a Sentinel or a cluster node refers to another one."""

    def _connect(self) -> Any:  # noqa: ANN401 - redis-py's
        if not is_loopback(str(self.host)):
            raise UnsuitableError("it refers to another machine, which needs TLS: write rediss://")
        return super()._connect()  # type: ignore[no-untyped-call]


def open_client(settings: RedisSettings, bounds: Bounds, *, keeps: bool) -> Any:  # noqa: ANN401 - three classes, one use
    """Create a client; only a cluster's client connects at once. `keeps`: see RedisLink. Raises errors of redis-py."""
    target = settings.target
    secret = None if settings.password is None else settings.password.get_secret_value()
    options: dict[str, Any] = {
        "username": target.user,
        "password": secret,
        "socket_connect_timeout": bounds.connect,
        "socket_timeout": bounds.answer,
        "max_connections": _MAX_CONNECTIONS,
        "protocol": 2,  # no push messages are needed, and a new connection needs no HELLO
        "driver_info": None,  # saves two round trips that would report the library's name
    }
    if keeps:
        options["redis_connect_func"] = _check_no_eviction
    plain = _connection_class(settings)
    lasting = _lasting(plain)
    if settings.mode == "sentinel":
        return _behind_sentinels(settings, plain, {**options, "db": target.database})
    if settings.mode == "cluster":
        return _cluster(settings, lasting, options)
    where = {"path": target.path} if target.path else {"host": target.host, "port": target.port}
    return Redis(connection_pool=_pool(lasting, {**options, **where, "db": target.database}))


def _never() -> Retry:
    return Retry(NoBackoff(), 0)


def _pool(kind: type[Any], options: dict[str, Any]) -> ConnectionPool:
    return ConnectionPool(connection_class=kind, retry=_never(), **options)


def _lasting(*kinds: type[Any]) -> type[Any]:
    return type("_LastingConnection", (_Lasting, *kinds), {})


def _connection_class(settings: RedisSettings) -> type[Any]:
    """Return the connection class. With TLS and `ca_file`, it trusts only the CAs of `ca_file`.

    The library would trust the system's CAs too, and load all of them again for each connection.
    """
    if settings.target.path:
        return UnixDomainSocketConnection
    if not settings.target.tls:
        return _PlainConnection
    if settings.ca_file is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=read_ca(settings.ca_file))

    class _TlsConnection(SSLConnection):
        def _wrap_socket_with_ssl(self, sock: Any) -> ssl.SSLSocket:  # noqa: ANN401 - redis-py's
            return context.wrap_socket(sock, server_hostname=self.host)

    return _TlsConnection


def _behind_sentinels(settings: RedisSettings, plain: type[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    managed = _lasting(SentinelManagedConnection, plain)
    sentinels = Sentinel([])  # type: ignore[no-untyped-call]
    asked = {name: value for name, value in options.items() if name not in {"redis_connect_func", "db", "username"}}
    for host, port in settings.addresses:
        # Some Sentinels require the same password, some have none; only an attempt shows which.
        for secret in dict.fromkeys((settings.password and asked["password"], None)):
            kwargs = {**asked, "password": secret, "host": host, "port": port}
            sentinels.sentinels.append(Redis(connection_pool=_pool(_lasting(plain), kwargs)))
    options = {**options, "connection_class": managed, "retry": _never()}
    return sentinels.master_for(settings.master or "", **options)  # type: ignore[no-untyped-call]


def _cluster(settings: RedisSettings, plain: type[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    nodes = [ClusterNode(*address) for address in settings.addresses]  # type: ignore[no-untyped-call]
    # The library accepts a connection class only together with a URL; our class already has the settings of the URL.
    host, port = settings.addresses[0]
    url = f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"
    return RedisCluster(url=url, startup_nodes=nodes, retry=_never(), connection_class=plain, **options)


def _check_no_eviction(connection: Any) -> None:  # noqa: ANN401 - redis-py's
    """Check at each new connection that the server does not evict keys. Raises UnsuitableError."""
    connection.on_connect()
    policy = _policy(connection)
    if policy != "noeviction":
        raise UnsuitableError(
            f"the server may evict keys (maxmemory-policy {policy}): set `maxmemory-policy noeviction`, "
            "or use a separate server for the state"
        )


def _policy(connection: Any) -> str:  # noqa: ANN401 - redis-py's
    """Return `maxmemory-policy`, from CONFIG, or from INFO if CONFIG is not allowed."""
    found = _run(connection, "CONFIG", "GET", "maxmemory-policy")
    if isinstance(found, dict):
        found = [part for pair in found.items() for part in pair]
    if isinstance(found, list) and len(found) == 2:
        return _text(found[1])
    for line in _text(_run(connection, "INFO", "memory") or b"").splitlines():
        name, _, value = line.partition(":")
        if name == "maxmemory_policy":
            return value.strip()[:40]
    raise UnsuitableError("the user may run neither CONFIG GET maxmemory-policy nor INFO: allow one of them")


def _run(connection: Any, *command: str) -> Any:  # noqa: ANN401 - redis-py's
    connection.send_command(*command)
    try:
        return connection.read_response()
    except ResponseError:
        return None


def _text(value: Any) -> str:  # noqa: ANN401 - redis-py's
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
