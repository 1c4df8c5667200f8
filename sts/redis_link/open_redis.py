"""Opens clients of redis-py: one server, Sentinel, Cluster; with TLS or without, and a look at each new connection.

The library tries nothing twice here: a retry would send a write again whose reply was lost, and wait ten times as long.
Time-outs bound each write and each read. The resolver's time comes on top, since Python cannot interrupt it.
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
"""Per process and server: more than a worker has threads."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds to connect, and for each answer."""

    connect: float
    answer: float


MAX_IDLE: Final = 30.0
"""Seconds without use after which a connection is not used again: load balancers forget idle ones without a word."""
TRUSTED_FOR: Final = 1.0
"""Seconds after its last answer for which a connection is used without asking whether it still leads anywhere."""


class UnsuitableError(RedisConnectionError):
    """The server answers but may not be used; the text says what to set."""


class _Lasting:
    """A kept connection is looked at before it is used again, so that a dead one costs no command.

    The pool calls `connect` each time it hands a connection out. What is sent on a dead connection is lost, and a write
    must not be sent twice; a PING may. It has half of the time of an answer. All connections that were used no later
    than one which proved dead are opened anew without a look.
    """

    dead_until = float("-inf")  # of all connections of one client: of its own class
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
        except ResponseError:  # the user may not ask that, which is an answer
            return True
        except (RedisError, OSError):
            type(self).dead_until = max(type(self).dead_until, used_at)
            return False
        return True


class _PlainConnection(Connection):
    """Without TLS: to this machine only, wherever a Sentinel or a cluster's node may send us."""

    def _connect(self) -> Any:  # noqa: ANN401 - redis-py's
        if not is_loopback(str(self.host)):
            raise UnsuitableError("it leads to another machine, and without TLS that is not gone to: write rediss://")
        return super()._connect()  # type: ignore[no-untyped-call]


def open_client(settings: RedisSettings, bounds: Bounds, *, keeps: bool) -> Any:  # noqa: ANN401 - three classes, one use
    """Open a client; only for a cluster anything is sent yet. `keeps`: see RedisLink. Raises what redis-py raises."""
    target = settings.target
    secret = None if settings.password is None else settings.password.get_secret_value()
    options: dict[str, Any] = {
        "username": target.user,
        "password": secret,
        "socket_connect_timeout": bounds.connect,
        "socket_timeout": bounds.answer,
        "max_connections": _MAX_CONNECTIONS,
        "protocol": 2,  # nothing is pushed to us, and a new connection needs no HELLO
        "driver_info": None,  # nor two round trips to say which library this is
    }
    if keeps:
        options["redis_connect_func"] = _look
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
    """The kind of connection; with TLS one that believes the CA of `ca_file` alone, where that is given.

    The library would add it to the CAs of the system, and read all of them anew for each connection.
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
        # Some protect their Sentinels with the same password, some not at all; which, only asking tells.
        for secret in dict.fromkeys((settings.password and asked["password"], None)):
            kwargs = {**asked, "password": secret, "host": host, "port": port}
            sentinels.sentinels.append(Redis(connection_pool=_pool(_lasting(plain), kwargs)))
    options = {**options, "connection_class": managed, "retry": _never()}
    return sentinels.master_for(settings.master or "", **options)  # type: ignore[no-untyped-call]


def _cluster(settings: RedisSettings, plain: type[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    nodes = [ClusterNode(*address) for address in settings.addresses]  # type: ignore[no-untyped-call]
    # Only with a URL does the library take a connection class; ours says all that this URL would.
    host, port = settings.addresses[0]
    url = f"redis://[{host}]:{port}" if ":" in host else f"redis://{host}:{port}"
    return RedisCluster(url=url, startup_nodes=nodes, retry=_never(), connection_class=plain, **options)


def _look(connection: Any) -> None:  # noqa: ANN401 - redis-py's
    """At each new connection: the server must evict nothing. Raises UnsuitableError."""
    connection.on_connect()
    policy = _policy(connection)
    if policy != "noeviction":
        raise UnsuitableError(
            f"the server may throw away what it keeps (maxmemory-policy {policy}): set `maxmemory-policy noeviction`, "
            "or use a server of its own for the state"
        )


def _policy(connection: Any) -> str:  # noqa: ANN401 - redis-py's
    """`maxmemory-policy`, from CONFIG, or from INFO where CONFIG is not allowed."""
    found = _asked(connection, "CONFIG", "GET", "maxmemory-policy")
    if isinstance(found, dict):
        found = [part for pair in found.items() for part in pair]
    if isinstance(found, list) and len(found) == 2:
        return _text(found[1])
    for line in _text(_asked(connection, "INFO", "memory") or b"").splitlines():
        name, _, value = line.partition(":")
        if name == "maxmemory_policy":
            return value.strip()[:40]
    raise UnsuitableError("the user may ask neither CONFIG GET maxmemory-policy nor INFO: allow one of them")


def _asked(connection: Any, *command: str) -> Any:  # noqa: ANN401 - redis-py's
    connection.send_command(*command)
    try:
        return connection.read_response()
    except ResponseError:
        return None


def _text(value: Any) -> str:  # noqa: ANN401 - redis-py's
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
