"""What an expression calls, judged at load: patterns, ranges of addresses, tables."""

from __future__ import annotations

from sts.expressions.faults import ExpressionError
from sts.expressions.functions import IP_IN, LOOKUP, check_range
from sts.expressions.patterns import check_pattern
from sts.expressions.tree import Call, calls

_MATCHES = "matches"


def judge(serialized: bytes, variables: frozenset[str]) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """The functions that a checked expression calls, and (table, column) of what it looks up; "" for the whole row.

    Raises ExpressionError for a pattern that is no literal, is none or is too costly, for ranges of addresses that are
    none or neither literal nor data, and for a table that is no literal.
    """
    called = calls(serialized, variables)
    for call in called:
        _judge(call)
    looked_up = ((str(call.texts[0]), call.read) for call in called if call.function == LOOKUP)
    return frozenset(call.function for call in called), frozenset(looked_up)


def _judge(call: Call) -> None:
    try:
        if call.function == _MATCHES:
            pattern = call.texts[1]
            if not isinstance(pattern, str):
                raise ExpressionError("the pattern of `matches` must stand there as a text, so that it can be checked")
            check_pattern(pattern, in_loop=call.in_loop)
        elif call.function == IP_IN:
            _judge_ranges(call)
    except ValueError as error:
        raise ExpressionError(str(error)) from None
    if call.function == LOOKUP and not isinstance(call.texts[0], str):
        raise ExpressionError("the table of `lookup` must stand there as a text: lookup('employees', …)")


def _judge_ranges(call: Call) -> None:
    """Take literals and data only: the library ends the process where it hands Python a list that holds an optional."""
    ranges = call.texts[1]
    written = ranges if isinstance(ranges, tuple) else (ranges,)
    for one in written:
        if one is not None:
            check_range(one)
    if None in written and not call.data[1]:
        raise ExpressionError("the ranges of `ip_in` must stand there as texts, or be read from a variable or a table")
