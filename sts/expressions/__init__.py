"""The one seam to CEL: rules and mappings compiled at load, evaluated over a request's variables.

The library parses and checks what the operator wrote; our own closures evaluate it, within a budget of steps. A rule
holds only if it is exactly `true`; a mapping gives a plain value, `ABSENT`, or an `EvaluationError`. No error names a
value of the data.
"""

from sts.expressions.functions import Rows
from sts.expressions.program import (
    ABSENT,
    Absent,
    Expression,
    Value,
    check_condition,
    check_reads,
    compile_rule,
)
from sts.expressions.scope import Attribute, Scope, as_attribute, as_scopes, as_subject, bind
from sts.expressions.trial import check_use
from sts.expressions.words import EvaluationError, ExpressionError, RowsWanted

__all__ = [
    "ABSENT",
    "Absent",
    "Attribute",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "Rows",
    "RowsWanted",
    "Scope",
    "Value",
    "as_attribute",
    "as_scopes",
    "as_subject",
    "bind",
    "check_condition",
    "check_reads",
    "check_use",
    "compile_rule",
]
