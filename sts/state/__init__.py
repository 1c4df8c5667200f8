"""Data that must not be lost: replay marks, revocations, API keys. SQLite for one machine, Redis for several."""

from sts.state.change_feed import Follower
from sts.state.replay import OnceOnly
from sts.state.settings import OnOutage, StateSettings
from sts.state.state import (
    AlreadyMarkedError,
    Changes,
    ConflictError,
    Cursor,
    Record,
    State,
    StateUnavailableError,
    decode,
    encode,
)
from sts.state.worker_state import StateAtWork, open_state

__all__ = [
    "AlreadyMarkedError",
    "Changes",
    "ConflictError",
    "Cursor",
    "Follower",
    "OnOutage",
    "OnceOnly",
    "Record",
    "State",
    "StateAtWork",
    "StateSettings",
    "StateUnavailableError",
    "decode",
    "encode",
    "open_state",
]
