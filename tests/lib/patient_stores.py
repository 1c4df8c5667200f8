"""The stores of the state with patience for a busy machine; the service's own gives up within half a second."""

from sts.redis_link import Bounds, RedisLink
from sts.state.redis_state import RedisState
from sts.state.sqlite import FILE, SqliteState

PATIENCE_S = 60.0
"""For a store that answers, however busy the machine is."""
QUICK_S = 1.0
"""For a store that never answers."""


def open_patiently(redis, var, clock, patience=PATIENCE_S):
    """The store in Redis, or without the settings of one that in `var`; `patience` in seconds."""
    if redis is None:
        return SqliteState(var / FILE, clock, patience)
    bounds = Bounds(connect=patience, answer=patience)
    return RedisState(RedisLink(redis, bounds), RedisLink(redis, bounds), clock, urgent={"revocations"})
