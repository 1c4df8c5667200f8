"""Compiled expressions: what `sts check` says of a faulty one, and how a good one is evaluated.

The library parses and checks at load. Nothing of it runs when a request is judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from cel_expr_python import cel

from sts.expressions.evaluate import Maker, weigh
from sts.expressions.operators import Run
from sts.expressions.scope import Scope, bind, environment
from sts.expressions.tree import Node, decode, judge, places, reads
from sts.expressions.values import MAX_STEPS, NOTHING, Frame, Optional, value_of_key
from sts.expressions.words import (
    ABSENT_KEY,
    ABSENT_VARIABLE,
    TYPE_MISMATCH,
    UNSAFE_TEXT,
    AbsentKeyError,
    EvaluationError,
    ExpressionError,
    offer,
    readable,
)

MAX_TEXT: Final = 4096
"""Characters of one expression. The library itself stops at 32 levels of nesting."""

_STEPS_OF_PLAIN: Final = 3
"""Steps for each element of a list or map that an expression gives."""

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
    _path: tuple[str, ...] = field(repr=False, compare=False)
    _tree: Node = field(repr=False, compare=False)
    _run: Run = field(repr=False, compare=False)
    _loops: int = field(repr=False, compare=False)
    _weight: int = field(repr=False, compare=False)

    def places(self) -> frozenset[tuple[str, ...]] | None:
        """The whole paths that it reads, None where it reaches data in another way as well: see `tree.places`."""
        return places(self._tree, self._variables)

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
        return self._evaluate(scope, min(MAX_STEPS, scope.left))

    def _evaluate(self, scope: Scope, budget: int) -> Any:  # noqa: ANN401 - a JSON value, or ABSENT
        frame = Frame(scope.values, scope.rows, self._loops, budget)
        try:
            frame.charge(self._weight)
            found = self._run(frame)
            if type(found) is Optional:
                found = None if found.value is NOTHING else found.value
            return _plain(frame, found)
        except AbsentKeyError:
            return ABSENT
        finally:
            scope.left -= budget - max(frame.left, 0)


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
    path = tuple(text.strip().split(".")) if _PLAIN_PATH.fullmatch(text.strip()) else ()
    tree = decode(program.serialize(), variables)
    looked_up = judge(tree, variables)
    maker = Maker(variables)
    return Expression(
        text=text,
        reads=reads(tree, variables),
        result=result,
        lookups=looked_up,
        _variables=variables,
        _path=path if path and path[0] in variables else (),
        _tree=tree,
        _run=maker.make(tree),
        _loops=maker.loops,
        _weight=weigh(tree),
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
    """What the closures give for a plain member path, without their frame: a property test proves the two equal."""
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


def _plain(frame: Frame, found: Any) -> Any:  # noqa: ANN401 - a JSON value
    """Turn a value of CEL into plain Python. Raises EvaluationError for what has no place in a token."""
    kind = type(found)
    if kind is str:
        if "\0" in found:  # base64 can hold one, and others would cut the text there
            raise EvaluationError(UNSAFE_TEXT)
        return found
    if kind is bool or kind is int or kind is float or found is None:
        return found
    if kind is list:
        frame.charge(_STEPS_OF_PLAIN * (1 + len(found)))
        return [_plain(frame, element) for element in found]
    if kind is dict:
        frame.charge(_STEPS_OF_PLAIN * (1 + len(found)))
        return {value_of_key(key): _plain(frame, member) for key, member in found.items()}
    if isinstance(found, int):  # a uint
        return int(found)
    raise EvaluationError(TYPE_MISMATCH)  # bytes, timestamps, durations, types, and an optional within a list


def _compile(text: str, variables: frozenset[str]) -> cel.Expression:
    try:
        return environment(variables).compile(text)
    except TypeError:
        raise ExpressionError("it is not valid Unicode text") from None
    except Exception as error:  # noqa: BLE001 - bindings raise what they like
        raise ExpressionError(readable(str(error), variables)) from None
