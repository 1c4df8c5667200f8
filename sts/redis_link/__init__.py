"""The only package that connects to Redis or Valkey: TLS, password, time-outs, Sentinel, Cluster, circuit breaker.

`RedisSettings` is the `redis` section, `RedisLink` the connection for stores and caches. No other part opens a
connection of its own.
"""

from sts.redis_link.redis_link import PATIENT, PROMPT, Bounds, RedisLink, RedisUnavailableError
from sts.redis_link.settings import RedisSettings

__all__ = [
    "PATIENT",
    "PROMPT",
    "Bounds",
    "RedisLink",
    "RedisSettings",
    "RedisUnavailableError",
]
