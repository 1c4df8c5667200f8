"""Compiled expressions: what `sts check` says of a faulty one, and how a good one is evaluated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from cel_expr_python import cel

from sts.expressions.functions import OWN, Watch
from sts.expressions.patterns import MAX_MATCHED
from sts.expressions.scope import Scope, bind, environment, longest_text, safe
from sts.expressions.tree import judge, places, reads
from sts.expressions.words import (
    ABSENT_KEY,
    ABSENT_VARIABLE,
    TOO_LONG,
    TYPE_MISMATCH,
    UNSAFE_TEXT,
    EvaluationError,
    ExpressionError,
    classify,
    offer,
    readable,
)

MAX_TEXT: Final = 4096
"""Characters of one expression. The library itself stops at 32 levels of nesting and about 10 000 iterations."""

Value: TypeAlias = "str | int | float | bool | list[Any] | dict[Any, Any]"
"""What a mapping may give before a reader narrows it. Elements of a list or map may also be None."""


class Absent(Enum):
    """The type of `ABSENT`, so that a type checker tells it from a value."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""The expression read a key that is not there, or came to `null` or `optional.none()`: the three ways in which an
issuer or a rule says "no value". A subject or a scope is then missing, an optional attribute left out."""

_PLAIN_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled expression. It may be shared between threads and survives a fork.

    `reads` holds the paths that it reads, two levels deep: `identity.tenant`, `now`; a variable alone (`identity`)
    where it is read as a whole or by index, so any of it may be read. `result` is the type that the compiler found:
    `BOOL`, `STRING`, …; `DYN` where only the data decides. `lookups` are the tables that it looks rows up in, each with
    the column that it reads of a row, "" for the whole row.
    """

    text: str
    reads: frozenset[str]
    result: str
    lookups: frozenset[tuple[str, str]]
    _variables: frozenset[str] = field(repr=False, compare=False)
    _calls: frozenset[str] = field(repr=False, compare=False)
    _path: tuple[str, ...] = field(repr=False, compare=False)
    _program: cel.Expression = field(repr=False, compare=False)
    _unwrapped: cel.Expression | None = field(repr=False, compare=False)

    def places(self) -> frozenset[tuple[str, ...]] | None:
        """The whole paths that it reads, None where it reaches data in another way as well: see `tree.places`."""
        return places(self._program.serialize(), self._variables)

    def holds(self, variables: Mapping[str, object] | Scope) -> bool:
        """Whether the result is exactly `true`. Raises EvaluationError unless it is `true` or `false`.

        Raises RowsWanted, here and in `value`, where it looks up a row that is not at hand.
        """
        found = self._found(variables)
        if isinstance(found, bool):
            return found
        raise EvaluationError(ABSENT_KEY if found is ABSENT else TYPE_MISMATCH)

    def value(self, variables: Mapping[str, object] | Scope) -> Value | Absent:
        """The result as plain Python, or `ABSENT`. Raises EvaluationError for every failure but an absent key."""
        found = self._found(variables)
        return ABSENT if found is None else cast("Value | Absent", found)

    def _found(self, variables: Mapping[str, object] | Scope) -> Any:  # noqa: ANN401 - a JSON value, or ABSENT
        scope = variables if isinstance(variables, Scope) else bind(variables)
        if self._path:
            return _follow(self._path, scope.values)
        if "matches" in self._calls and longest_text(scope) > MAX_MATCHED:
            raise EvaluationError(TOO_LONG)
        if OWN.isdisjoint(self._calls):
            return self._evaluate(scope)
        failure, found = None, None
        with Watch(scope.rows, safe) as watch:
            try:
                found = self._evaluate(scope)
            except EvaluationError as error:
                failure = error.why
        watch.check()  # a failure of our own functions counts, whatever the expression made of it
        if failure is not None:
            raise EvaluationError(failure)
        return found

    def _evaluate(self, scope: Scope) -> Any:  # noqa: ANN401 - a JSON value, or ABSENT
        try:
            found = self._program.eval(scope.activation())
            try:
                return _plain(found)
            except TypeError:  # an optional, which the library has no Python value for
                if self._unwrapped is None:
                    raise
                return _plain(self._unwrapped.eval(scope.activation()))
        except EvaluationError:
            raise
        except TypeError:
            raise EvaluationError(TYPE_MISMATCH) from None
        except Exception as error:  # noqa: BLE001 - bindings raise what they like; its text may quote data
            raise EvaluationError(classify(str(error))) from None


def compile_rule(text: str, variables: frozenset[str]) -> Expression:
    """Compile `text` over `variables`, names such as `claims`, or `identity`, `client`, `request`, `route`, `now`.

    Raises ExpressionError. An attribute that no map has is not seen here: `check_reads` finds it.
    """
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"it is longer than {MAX_TEXT} characters")
    program = _compile(text, variables)
    result = program.return_type().name()
    if "optional_type" in result.removeprefix("optional_type"):
        raise ExpressionError(
            "a list or map holds an optional: write `[?x]` or `{?'key': x}`, or end it with `.orValue(…)`"
        )
    may_be_optional = result == "DYN" or result.startswith("optional_type")
    unwrapped = _compile(f"dyn({text}\n).orValue(null)", variables) if may_be_optional else None
    path = tuple(text.strip().split(".")) if _PLAIN_PATH.fullmatch(text.strip()) else ()
    serialized = program.serialize()
    called, looked_up = judge(serialized, variables)
    return Expression(
        text=text,
        reads=reads(serialized, variables),
        result=result,
        lookups=looked_up,
        _variables=variables,
        _calls=called,
        _path=path if path and path[0] in variables else (),
        _program=program,
        _unwrapped=unwrapped,
    )


def check_condition(expression: Expression) -> None:
    """Raise ExpressionError if `expression` can never be `true`, because it gives another type than a boolean."""
    if expression.result not in {"BOOL", "DYN"}:
        raise ExpressionError(f"a rule must come to true or false, this one is of the type {expression.result.lower()}")


def check_reads(expression: Expression, known: Mapping[str, frozenset[str]]) -> None:
    """Raise ExpressionError if `expression` reads an attribute that its map never has.

    `known` has the attributes of each variable whose attributes are known at load; other variables, such as `claims`,
    are left alone. A variable that is read as a whole or by index is not checked.
    """
    for path in sorted(expression.reads):
        variable, _, attribute = path.partition(".")
        if attribute and variable in known and attribute not in known[variable]:
            raise ExpressionError(f"`{variable}` has no `{attribute}`; {offer(attribute, known[variable])}")


def _follow(path: tuple[str, ...], values: dict[str, Any]) -> Any:  # noqa: ANN401 - a JSON value, or ABSENT
    """What CEL gives for a plain member path, without CEL: a property test proves the two equal."""
    if path[0] not in values:
        raise EvaluationError(ABSENT_VARIABLE)
    found: Any = values[path[0]]
    for name in path[1:]:
        if not isinstance(found, dict):
            raise EvaluationError(TYPE_MISMATCH)
        if name not in found:
            return ABSENT
        found = found[name]
    return found


def _plain(found: cel.Value) -> Any:  # noqa: ANN401 - a JSON value, or ABSENT
    """Read a CEL value as plain Python. Raises EvaluationError, TypeError for an optional.

    The library's own `plain_value` is not used: it ends the process on a map that holds an optional.
    """
    kind = found.type().name()
    if kind == "STRING":
        text = found.value()
        if "\0" in text:  # base64 can hold one, and others would cut the text there
            raise EvaluationError(UNSAFE_TEXT)
        return text
    if kind in {"BOOL", "INT", "UINT", "DOUBLE", "NULL"}:
        return found.value()
    if kind.startswith("LIST"):
        return [_plain(element) for element in found.value()]
    if kind.startswith("MAP"):
        return {key: _plain(member) for key, member in found.value().items()}
    if kind != "ERROR":
        raise EvaluationError(TYPE_MISMATCH)  # bytes, timestamps, durations and types have no place in a token
    fault = classify(found.value())
    if fault == ABSENT_KEY:
        return ABSENT
    raise EvaluationError(fault)


def _compile(text: str, variables: frozenset[str]) -> cel.Expression:
    try:
        return environment(variables).compile(text)
    except TypeError:
        raise ExpressionError("it is not valid Unicode text") from None
    except Exception as error:  # noqa: BLE001 - bindings raise what they like
        raise ExpressionError(readable(str(error), variables)) from None
