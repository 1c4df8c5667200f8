"""What the costliest data make of rules of the cookbook: a token of 16 KB, an introspection answer of 64 KB."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from sts.expressions import EvaluationError, bind, compile_rule
from sts.expressions.values import MAX_STEPS_OF_SCOPE

_TIMES: Final = 5
_SIZES: Final = {"16 KB token": 12_000, "64 KB answer": 64_000}  # base64 leaves three quarters of a token
_RULES: Final = (
    "claims.groups.split(',').map(g, g.trim()).filter(g, g != '')",
    "claims.groups.filter(g, g.startsWith('app-orders-')).map(g, g.substring(11))",
)


def rules() -> Iterator[tuple[str, str, int, float]]:
    """Yield for each rule and size: the rule, the size, its steps and the seconds of the worst data."""
    for text in _RULES:
        rule = compile_rule(text, frozenset({"claims"}))
        for size, length in _SIZES.items():
            found = []
            for groups in ("," * length, "a," * (length // 2), ["app-orders-"] * (length // 14), [""] * (length // 3)):
                for share in (1, 2, 4, 8):  # what is just within the budget costs most
                    claims = {"claims": {"groups": groups[: len(groups) // share]}}
                    scope, seconds = bind(claims), []
                    for _ in range(_TIMES):
                        scope.left = MAX_STEPS_OF_SCOPE
                        started = time.thread_time()
                        with contextlib.suppress(EvaluationError):
                            rule.value(scope)
                        seconds.append(time.thread_time() - started)
                    found.append((min(seconds), MAX_STEPS_OF_SCOPE - scope.left))
            worst, steps = max(found)
            yield text, size, steps, worst
