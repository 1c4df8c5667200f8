"""The one place that opens Redis or Valkey: TLS, password, time-outs, Sentinel, Cluster, circuit breaker.

`RedisSettings` is the shape of a `redis` section, `RedisLink` what stores and caches talk through. No other part opens
a connection of its own.
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
