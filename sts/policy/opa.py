"""The optional OPA check, which only narrows: it runs after the audience's own rules have allowed (docs/policy.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sts.errors import NOT_ALLOWED, SOURCE_UNREACHABLE, Refusal
from sts.lookups.opa import Said


class Opa(Protocol):
    """A client of a policy server."""

    def ask(self, question: Mapping[str, Any]) -> Said:
        """Send this `input` and return OPA's answer. May wait. Raises SOURCE_UNREACHABLE."""


def fresh_until(opa: Opa | None, question: Mapping[str, Any], now: float) -> float:
    """Return until when OPA's approval may be cached: for the `max-age` of its answer, else not at all.

    The time counts from `now`, before the request. Raises NOT_ALLOWED unless `result` is exactly `true`: OPA leaves out
    the result of an undefined rule. Raises SOURCE_UNREACHABLE if there is no decision, or no `opa` is configured.
    """
    if opa is None:
        raise Refusal(SOURCE_UNREACHABLE, why="no `opa` is configured")
    said = opa.ask(question)
    if said.document.get("result") is not True:
        raise Refusal(NOT_ALLOWED, why=_why(said.document), audience=question["audience"])
    return now if said.max_age is None else now + said.max_age


def _why(document: Mapping[str, Any]) -> str:
    """Return the reason for the operator. OPA's own text is not repeated, because it may contain anything."""
    if "result" not in document:
        return "OPA: the rule is undefined: there is no `result`"
    if document["result"] is False:
        return "OPA: the rule is false"
    return "OPA: `result` is neither true nor false: `opa.url` must name the rule itself"
