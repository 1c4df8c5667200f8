"""Rules on trial (`shadow`): evaluated beside the decision, told in the audit, and never part of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sts.expressions import Expression, Scope
from sts.model import Trial
from sts.policy.rules import AudienceRules


def judge(audiences: Iterable[AudienceRules], scope: Scope) -> dict[str, Trial]:
    """What the rule on trial of each audience that has one would have done, by the audience's name.

    Never raises: an error in a rule is what came of its trial, and would refuse if it were the audience's `allow`.
    """
    return {
        one.name: Trial(_outcome(one.shadow, scope), lasts="now" not in one.shadow.reads)
        for one in audiences
        if one.shadow is not None
    }


def _outcome(rule: Expression, scope: Scope) -> Literal["allow", "deny", "error"]:
    try:
        return "allow" if rule.holds(scope) else "deny"
    except Exception:  # noqa: BLE001 - an EvaluationError or a fault of ours: a rule on trial decides nothing
        return "error"
