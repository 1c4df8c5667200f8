"""The stores of the state with patience for a busy machine; the service's own gives up within half a second."""

from sts.redis_link import Bounds, RedisLink
from sts.state.redis_state import RedisState
from sts.state.sqlite import FILE, SqliteState

PATIENCE_S = 1.0
BOUNDS = Bounds(connect=PATIENCE_S, answer=PATIENCE_S)


def open_patiently(redis, var, clock):
    """The store in Redis, or without the settings of one that in `var`."""
    if redis is None:
        return SqliteState(var / FILE, clock, PATIENCE_S)
    return RedisState(RedisLink(redis, BOUNDS), RedisLink(redis, BOUNDS), clock)
