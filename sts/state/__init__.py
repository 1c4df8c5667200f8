"""What must not be lost: once-only marks, revocations, API keys. In SQLite for one machine, in Redis for several."""

from sts.state.at_work import StateAtWork
from sts.state.follower import Follower
from sts.state.once import OnceOnly
from sts.state.opening import open_state
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
