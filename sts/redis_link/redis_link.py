"""A guarded connection to Redis: every command has a time limit, and a dead server does not delay each request."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sts.errors import StartError, StsError
from sts.redis_link.open_redis import Bounds, UnsuitableError, open_client
from sts.redis_link.settings import RedisSettings
from sts.resilience.breaker import Breaker, BreakerOpenError

Result = TypeVar("Result")

PROMPT: Final = Bounds(connect=0.25, answer=0.2)
"""For commands that a request waits for."""
PATIENT: Final = Bounds(connect=2.0, answer=2.0)
"""For the command line, and for work in the background."""

_MIN_VERSION: Final = 7
_MESSAGES: Final = {
    "TimeoutError": "it did not answer in time",
    "AuthenticationError": "it refused the user or the password",
    "AuthenticationWrongNumberOfArgsError": "it refused the user or the password",
    "AuthorizationError": "it refused the user or the password",
    "NoPermissionError": "the user may not run a command that is needed",
    "ReadOnlyError": "it is a replica and takes no writes",
    "OutOfMemoryError": "its memory is full",
    "BusyLoadingError": "it is still loading its data",
    "MasterNotFoundError": "no Sentinel has a reachable primary of that name",
    "MaxConnectionsError": "all connections to it are in use",
    "ClusterDownError": "the cluster is down",
    "SlotNotCoveredError": "the cluster is down",
    "RedisClusterException": "no node of the cluster can be reached",
}
"""The message for an error, by its class: the server's own text may repeat what was sent to it."""


class RedisUnavailableError(StsError):
    """A command failed. If only the answer was lost, the server may have executed the command.

    The text is the reason, without any data that was sent or stored. `unsuitable` is true if the server must not be
    used as it is configured; a retry cannot help then.
    """

    def __init__(self, text: str, *, unsuitable: bool = False) -> None:
        super().__init__(text)
        self.unsuitable = unsuitable


class RedisLink:
    """One process's connections to a server, opened by the first command. Threads may share it. Create it after a fork.

    `keeps` is true if the stored data must not be lost: then each new connection refuses a server that evicts keys. So
    a server that a failover leads to is checked too.
    """

    def __init__(
        self,
        settings: RedisSettings,
        bounds: Bounds = PROMPT,
        *,
        keeps: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._bounds = bounds
        self._keeps = keeps
        self._breaker = Breaker(monotonic)
        self._opening = threading.Lock()
        self._client: Any = None
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the last command failed, "" if it succeeded: for /readyz and the log."""
        return self._trouble

    def run(self, use: Callable[[Any], Result], *, again: bool = False) -> Result:
        """Call `use` with the client of redis-py. There is no retry, unless `again` allows one more attempt.

        Set `again` only for commands that may run twice with the same result, such as an idempotent write whose reply
        was lost (the library's own retry cannot know that). On open connections each attempt takes at most the bounds.
        Raises RedisUnavailableError; at once while the server is known to be down.
        """
        try:
            self._breaker.admit()
        except BreakerOpenError:
            raise RedisUnavailableError(self._trouble) from None
        try:
            result = self._attempt(use, again=again)
        except ResponseError as error:  # the server answers, so it is not down; but the command failed
            self._breaker.succeeded()
            raise self._failed(error) from None
        except (RedisError, RedisClusterException, OSError) as error:
            self._breaker.failed()
            raise self._failed(error) from None
        self._breaker.succeeded()
        self._trouble = ""
        return result

    def check(self) -> None:
        """Check that the server can be used: its version, and that it does not evict keys.

        Raises StartError, whose text is what the operator must set, or RedisUnavailableError if the server does not
        answer.
        """
        try:
            found = self.run(lambda client: client.execute_command("INFO", "server", **_one_node(client)))
        except RedisUnavailableError as error:
            if error.unsuitable:
                raise StartError(str(error)) from None
            raise
        version = str(found.get("redis_version", "") if isinstance(found, dict) else "")
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < _MIN_VERSION:
            raise StartError(f"the Redis server has version {version[:20]}; {_MIN_VERSION} or newer is required")

    def close(self) -> None:
        """Close every idle connection; the next command opens new ones."""
        with self._opening:
            client, self._client = self._client, None
        if client is None:
            return
        client.close()
        pool = getattr(client, "connection_pool", None)
        if pool is not None:  # the library does not close a pool that it did not create
            pool.disconnect(inuse_connections=False)

    def _attempt(self, use: Callable[[Any], Result], *, again: bool) -> Result:
        try:
            return use(self._opened())
        except UnsuitableError:
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError):
            if not again:
                raise
        return use(self._opened())

    def _opened(self) -> Any:  # noqa: ANN401 - one of redis-py's clients
        if self._client is None:
            with self._opening:
                if self._client is None:
                    self._client = open_client(self._settings, self._bounds, keeps=self._keeps)
        return self._client

    def _failed(self, error: BaseException) -> RedisUnavailableError:
        if isinstance(error, RedisClusterException) and isinstance(error.__cause__, RedisError):
            error = error.__cause__  # the error of the last node
        self._trouble = f"Redis: {_why(error)}"
        return RedisUnavailableError(self._trouble, unsuitable=isinstance(error, UnsuitableError))


def _one_node(client: Any) -> dict[str, Any]:  # noqa: ANN401 - one of redis-py's clients
    """In a cluster, a command without a key is sent to one node."""
    return {"target_nodes": client.get_random_node()} if hasattr(client, "get_random_node") else {}


def _why(error: BaseException) -> str:
    """Return why a command failed, in our own words, without any text of the server."""
    if isinstance(error, UnsuitableError):
        return str(error)
    for kind in type(error).__mro__:
        if kind.__name__ in _MESSAGES:
            return _MESSAGES[kind.__name__]
    if str(error).startswith("MISCONF"):  # the library has no class for this error
        return "it cannot save to its disk and takes no writes"
    if isinstance(error, RedisConnectionError | OSError):
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        detail = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else None
        detail = detail or (cause.strerror if isinstance(cause, OSError) else None)
        return f"it cannot be reached: {detail}" if detail else "the connection was lost"
    return f"it answered with an error ({type(error).__name__})"


__all__ = ["PATIENT", "PROMPT", "Bounds", "RedisLink", "RedisUnavailableError"]
