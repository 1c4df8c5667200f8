"""Delegation: who acts for the subject (RFC 8693 §4.1, §4.4)."""

from __future__ import annotations

from typing import Any, Final

from sts.errors import ACTOR_REFUSED, Refusal
from sts.model import NOT_APPLICABLE, Ask, Client, NotApplicable, Principal

DEEPEST: Final = 4
"""How many actors a minted token names at most, the present one included."""


def no_actor_token(ask: Ask) -> None:
    """Refuse an actor token as long as none can be proven: it must never be dropped silently (RFC 8693 §1.1)."""
    if ask.actor_present:
        raise Refusal(ACTOR_REFUSED, why="actor tokens are not supported yet")


def actor_chain(principal: Principal, client: Client, issuer: str) -> dict[str, Any]:
    """The `act` of the minted token: the client, and below it whoever acted before.

    Nested actors are history, reduced to `iss` and `sub` (RFC 8693 §4.1 allows identity only); no rule reads them.
    Raises ACTOR_REFUSED for a chain that is too deep or malformed, and where `may_act` names somebody else.
    """
    _may_act(principal, client, issuer)
    earlier = [] if principal.act in (None, NOT_APPLICABLE) else _earlier(principal.act)
    chain: dict[str, Any] = {}
    for one in reversed([{"sub": client.id, "iss": issuer}, *earlier]):
        chain = {**one, "act": chain} if chain else one
    return chain


def _earlier(act: object) -> list[dict[str, Any]]:
    """Unfold an inbound `act`, newest first."""
    found: list[dict[str, Any]] = []
    while act is not None:
        if len(found) == DEEPEST - 1:
            raise Refusal(ACTOR_REFUSED, why="the chain of actors is too deep")
        if not isinstance(act, dict) or not _name(act.get("sub")) or not _name(act.get("iss", "absent")):
            raise Refusal(ACTOR_REFUSED, why="the credential's `act` is malformed")
        found.append({name: act[name] for name in ("sub", "iss") if name in act})
        act = act.get("act")
    return found


def _may_act(principal: Principal, client: Client, issuer: str) -> None:
    """Hold a credential that names who may act for its subject to it, as (iss, sub), at every door.

    Without an actor token the actor is the client, (our issuer, client id). A `may_act` without `iss` names a subject
    of the credential's own issuer.
    """
    may_act = principal.may_act
    if may_act is None or isinstance(may_act, NotApplicable):
        return
    if not isinstance(may_act, dict):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` is malformed")
    if (may_act.get("iss", principal.issuer), may_act.get("sub")) != (issuer, client.id):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` does not name this client")


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
