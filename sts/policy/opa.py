"""OPA's say: a step that only narrows, after the audience's own rules have allowed (docs/policy.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sts.errors import NOT_ALLOWED, SOURCE_UNREACHABLE, Refusal
from sts.lookups.opa import Said


class Opa(Protocol):
    """Whoever is asked."""

    def ask(self, question: Mapping[str, Any]) -> Said:
        """What OPA says to this `input`. May wait. Raises SOURCE_UNREACHABLE."""


def fresh_until(opa: Opa | None, question: Mapping[str, Any], now: float) -> float:
    """Until when OPA's consent may be kept: as long as its answer says, and not at all where it does not say.

    Counted from `now`, before the question. Raises NOT_ALLOWED unless `result` is exactly `true`: an absent one is
    OPA's word for "undefined". Raises SOURCE_UNREACHABLE where there is no decision, or nobody to ask.
    """
    if opa is None:
        raise Refusal(SOURCE_UNREACHABLE, why="no `opa` is configured")
    said = opa.ask(question)
    if said.document.get("result") is not True:
        raise Refusal(NOT_ALLOWED, why=_why(said.document), audience=question["audience"])
    return now if said.max_age is None else now + said.max_age


def _why(document: Mapping[str, Any]) -> str:
    """For the operator; what OPA said stays with OPA, since it may hold anything."""
    if "result" not in document:
        return "OPA: the rule is undefined: there is no `result`"
    if document["result"] is False:
        return "OPA: the rule is false"
    return "OPA: `result` is neither true nor false: `opa.url` must name the rule itself"
