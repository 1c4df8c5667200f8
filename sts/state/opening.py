"""From the settings to a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sts.errors import StartError
from sts.redis_link import PATIENT, RedisLink, RedisSettings
from sts.state.redis_state import RedisState
from sts.state.settings import StateSettings
from sts.state.sqlite import FILE, SqliteState
from sts.state.state import State


def open_state(settings: StateSettings, redis: RedisSettings | None, var: Path, clock: Callable[[], float]) -> State:
    """The store that the settings name; nothing is opened or made before it is used or checked. Raises StartError."""
    if settings.store == "sqlite":
        return SqliteState(var / FILE, clock)
    if redis is None:
        raise StartError("state.store: redis needs the section `redis`")
    return RedisState(RedisLink(redis), RedisLink(redis, PATIENT), clock)
