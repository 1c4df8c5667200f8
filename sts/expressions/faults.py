"""What goes wrong with an expression: in words for its author, or as a class of fault that names no data."""

from __future__ import annotations

import re
from typing import Final

from sts.errors import StsError


class ExpressionError(StsError, ValueError):
    """An expression is faulty; the text is one line for the operator who wrote it."""


class EvaluationError(StsError):
    """An expression gave no usable result. `why` is a class of fault, never a value of the data."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RowsWanted(StsError):  # noqa: N818 - no fault: it says what is missing
    """An expression cannot be evaluated before these rows, (table, key), are at hand; its result says nothing yet.

    No EvaluationError, so that nothing on the way takes it for one and decides.
    """

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        super().__init__("rows are wanted")
        self.pairs = pairs


ABSENT_KEY: Final = "absent key"
ABSENT_VARIABLE: Final = "absent variable"
TYPE_MISMATCH: Final = "type mismatch"
OVERFLOW: Final = "overflow"
BUDGET: Final = "budget"
TOO_DEEP: Final = "too deep"
TOO_LONG: Final = "too long"
EMPTY: Final = "empty"
NOT_AN_ADDRESS: Final = "not an address"
UNSAFE_TEXT: Final = "unsafe text"
NOT_A_SCOPE: Final = "not a scope"
OTHER: Final = "other"

_FAULTS: Final = (
    (re.compile(r"NOT_FOUND:"), ABSENT_KEY),
    (re.compile(r"OUT_OF_RANGE:"), OVERFLOW),
    (re.compile(r"INTERNAL: Iteration budget exceeded"), BUDGET),
    (re.compile(r"UNKNOWN: No value with name"), ABSENT_VARIABLE),
    (
        re.compile(r"UNKNOWN: (No matching overloads|Index error: expected)|INVALID_ARGUMENT: Applying SELECT"),
        TYPE_MISMATCH,
    ),
)


def classify(message: str) -> str:
    """The class of a failure, by the beginning of the library's message; the rest may quote data and is dropped."""
    return next((fault for pattern, fault in _FAULTS if pattern.match(message)), OTHER)
