"""The settings of the `state` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sts.options import Duration, Section

Outage = Literal["deny", "allow"]


class OnOutage(Section):
    """The handling of requests while the store cannot be used."""

    replay: Outage = "deny"
    """One-time credentials: `deny` refuses them with 503; `allow` accepts them, even a second time."""
    revocation: Outage = "deny"
    """All requests, if the list of revocations is older than `max_stale`: `deny` refuses them with 503; `allow`
    continues with the last list."""


class StateSettings(Section):
    """The `state` section."""

    store: Literal["sqlite", "redis"] = "sqlite"
    """The store of replay marks, revocations and API keys: `sqlite` is `state.db` in `var`, for the workers of one
    machine; `redis` for several machines."""
    on_outage: OnOutage = OnOutage()
    """The handling of requests while the store cannot be used."""
    max_stale: Annotated[Duration, Field(ge=2)] = 300.0
    """The maximum age of the list of revocations; an older list counts as an outage."""
