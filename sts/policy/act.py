"""Delegation: who acts for the subject (RFC 8693 §4.1, §4.4)."""

from __future__ import annotations

from typing import Any, Final

from sts.errors import ACTOR_REFUSED, Refusal
from sts.model import NOT_APPLICABLE, Actor, Admitted, Client, Identity, NotApplicable
from sts.policy.rules import ALL

DEEPEST: Final = 4
"""How many actors a minted token names at most, the present one included."""


def delegate(client: Client, subject: Admitted, actor: Admitted, identity: Identity, issuer: str) -> Admitted:
    """Let `actor`, whose mapped `identity` is known, act for `subject`: what is minted ends with either of them.

    The actor is known by its raw identity, as `may_act` would name it; where its kind has no issuer, by the mapped one
    under our own `issuer`. Raises ACTOR_REFUSED for an actor that is itself acted for: whose doing it would be, no
    chain could say; and where neither the subject's credential says who may act (`may_act`, which `actor_chain` holds
    against it) nor the client's settings let credentials of the actor's source act for others.
    """
    principal = actor.principal
    said = subject.principal.may_act not in (None, NOT_APPLICABLE)
    if not said and client.actors.isdisjoint({ALL, principal.source}):
        why = "the subject has no `may_act`, and the client's `actors` does not list the actor's source"
        raise Refusal(ACTOR_REFUSED, why=why, source=principal.source)
    if principal.act not in (None, NOT_APPLICABLE):
        raise Refusal(ACTOR_REFUSED, why="the actor token has an `act` of its own")
    source = principal.source if principal.reach is NOT_APPLICABLE else None
    if isinstance(principal.issuer, NotApplicable) or not principal.subject:
        found = Actor(issuer, identity.subject, source, identity.attributes)
    else:
        found = Actor(principal.issuer, principal.subject, source, identity.attributes)
    return Admitted(
        subject.principal,
        min(subject.not_after, actor.not_after),
        min(subject.fresh_until, actor.fresh_until),
        found,
        min(subject.since, actor.since),
    )


def actor_chain(admitted: Admitted, client: Client, issuer: str) -> dict[str, Any]:
    """The `act` of the minted token: the proven actor, else the client; and below whoever acted before.

    Nested actors are history, reduced to `iss` and `sub` (RFC 8693 §4.1 allows identity only); no rule reads them.
    Raises ACTOR_REFUSED for a chain that is too deep or malformed, and where `may_act` names somebody else.
    """
    actor = admitted.actor or Actor(issuer, client.id)
    _may_act(admitted, actor)
    act = admitted.principal.act
    earlier = [] if act in (None, NOT_APPLICABLE) else _earlier(act)
    chain: dict[str, Any] = {}
    for one in reversed([{"sub": actor.subject, "iss": actor.issuer}, *earlier]):
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


def _may_act(admitted: Admitted, actor: Actor) -> None:
    """Hold a credential that names who may act for its subject to it, as (iss, sub), at every door.

    Without an actor token the actor is the client, (our issuer, client id). A `may_act` without `iss` names a subject
    of the credential's own issuer.
    """
    may_act = admitted.principal.may_act
    if may_act is None or isinstance(may_act, NotApplicable):
        return
    if not isinstance(may_act, dict):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` is malformed")
    if (may_act.get("iss", admitted.principal.issuer), may_act.get("sub")) != (actor.issuer, actor.subject):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` does not name who acts")


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
