"""What the `state` section holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sts.options import Duration, Section

Outage = Literal["deny", "allow"]


class OnOutage(Section):
    """What becomes of requests while the store cannot be used."""

    replay: Outage = "deny"
    """Credentials that may be used once: `deny` refuses them with 503; `allow` takes them, even a second time."""
    revocation: Outage = "deny"
    """Everything, once the list of revocations is older than `max_stale`: `deny` refuses with 503; `allow` goes on with
    the list as it was last seen."""


class StateSettings(Section):
    """The `state` section."""

    store: Literal["sqlite", "redis"] = "sqlite"
    """Where marks, revocations and API keys live: `sqlite` is `state.db` in `var`, for the workers of one machine;
    `redis` for several."""
    on_outage: OnOutage = OnOutage()
    """What becomes of requests while the store cannot be used."""
    max_stale: Annotated[Duration, Field(ge=2)] = 300.0
    """How old the list of revocations may be; an older one counts as an outage."""
