"""Delegation: an actor that acts for the subject (RFC 8693 §4.1, §4.4)."""

from __future__ import annotations

from typing import Any, Final

from sts.errors import ACTOR_REFUSED, Refusal
from sts.model import NOT_APPLICABLE, Actor, Admitted, Client, Identity, NotApplicable
from sts.policy.rules import ALL

DEEPEST: Final = 4
"""Maximum number of actors in a minted token, the present one included."""


def delegate(client: Client, subject: Admitted, actor: Admitted, identity: Identity, issuer: str) -> Admitted:
    """Let `actor`, with its mapped `identity`, act for `subject`. The minted token ends with either credential.

    The actor is identified by its raw identity, as `may_act` would name it. If its kind has no issuer, it is identified
    by the mapped identity under our own `issuer`.

    Raises ACTOR_REFUSED for an actor that itself has an `act`: the chain could not show who is responsible. Also raises
    it if neither a `may_act` in the subject's credential (`actor_chain` checks that it names the actor) nor the
    client's `actors` (with the actor's source) permits the delegation.
    """
    principal = actor.principal
    has_may_act = subject.principal.may_act not in (None, NOT_APPLICABLE)
    if not has_may_act and client.actors.isdisjoint({ALL, principal.source}):
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
    """Return the `act` of the minted token: the proven actor, else the client; earlier actors are nested below.

    Nested actors are history, reduced to `iss` and `sub` (RFC 8693 §4.1 allows identity only); no rule reads them.
    Raises ACTOR_REFUSED for a chain that is too deep or malformed, and if `may_act` names another actor.
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
    """Return the actors of an inbound `act`, newest first."""
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
    """Check at every door that a credential's `may_act`, if present, names the actor as (iss, sub).

    Without an actor token the actor is the client, (our issuer, client id). A `may_act` without `iss` names a subject
    of the credential's own issuer.
    """
    may_act = admitted.principal.may_act
    if may_act is None or isinstance(may_act, NotApplicable):
        return
    if not isinstance(may_act, dict):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` is malformed")
    if (may_act.get("iss", admitted.principal.issuer), may_act.get("sub")) != (actor.issuer, actor.subject):
        raise Refusal(ACTOR_REFUSED, why="the credential's `may_act` does not name the actor")


def _name(value: object) -> bool:
    return isinstance(value, str) and bool(value)
