"""The operators and loops of CEL over closures: what takes its operands unevaluated, or values of any type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from sts.expressions.values import (
    MAX_INT,
    NONE,
    NOTHING,
    Frame,
    Optional,
    UInt,
    contains,
    equal,
    is_key,
    key_of,
    kind,
    optional_member,
    order,
    value_of_key,
)
from sts.expressions.words import AbsentKeyError, CelError, FailedError, MismatchError

Run: TypeAlias = Callable[[Frame], Any]
"""A node of an expression: takes an evaluation, gives a value of CEL or raises a CelError."""

_TOO_LARGE: Final = 2.0**63


def of_optional(value: Any) -> Any:  # noqa: ANN401 - any value of CEL
    """What an optional holds, `NOTHING` where it is none. Raises MismatchError for every other value."""
    if type(value) is not Optional:
        raise MismatchError
    return value.value


def _and_or(left: Run, right: Run, *, decides: bool) -> Run:
    """`&&` (decided by false) and `||` (by true): what decides wins over an error on the other side."""

    def run(frame: Frame) -> bool:
        failed: type[CelError] | None = None
        one: object = None
        other: object = None
        try:
            one = left(frame)
            if one is decides:
                return decides
        except CelError as error:
            failed = frame.absorb(error)
        try:
            other = right(frame)
        except CelError as error:
            raise (failed or type(error)) from None
        if other is decides:
            return decides
        if failed is not None or type(one) is not bool or type(other) is not bool:
            raise failed or MismatchError
        return not decides

    return run


def _ternary(condition: Run, then: Run, otherwise: Run) -> Run:
    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        chosen = condition(frame)
        if chosen is True:
            return then(frame)
        if chosen is False:
            return otherwise(frame)
        raise MismatchError

    return run


def _not(operand: Run) -> Run:
    def run(frame: Frame) -> bool:
        value = operand(frame)
        if type(value) is not bool:
            raise MismatchError
        return not value

    return run


def _equals(left: Run, right: Run) -> Run:
    return lambda frame: equal(frame, left(frame), right(frame))


def _differs(left: Run, right: Run) -> Run:
    return lambda frame: not equal(frame, left(frame), right(frame))


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[[Run, Run], Run]:
    def made(left: Run, right: Run) -> Run:
        def run(frame: Frame) -> bool:
            one, other = left(frame), right(frame)
            order(one, other)
            return holds(one, other)

        return run

    return made


def _in(left: Run, right: Run) -> Run:
    return lambda frame: contains(frame, left(frame), right(frame))


def _or_value(left: Run, right: Run) -> Run:
    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        value = of_optional(left(frame))
        return right(frame) if value is NOTHING else value

    return run


def _or_optional(left: Run, right: Run) -> Run:
    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        first = left(frame)
        if of_optional(first) is not NOTHING:
            return first
        second = right(frame)
        of_optional(second)
        return second

    return run


def _index(left: Run, right: Run) -> Run:
    def run(frame: Frame) -> Any:  # noqa: ANN401 - any value of CEL
        held, index = left(frame), right(frame)
        if type(held) is Optional:
            found = NOTHING if held.value is NOTHING else _find(held.value, index)
            return NONE if found is NOTHING else Optional(found)
        found = _find(held, index)
        if found is NOTHING:
            raise FailedError if type(held) is list else AbsentKeyError
        return found

    return run


def _find(held: Any, index: Any) -> Any:  # noqa: ANN401 - any values of CEL
    """What stands at `index` of a list or map, `NOTHING` if it has no such index or key."""
    if type(held) is list:
        if type(index) is float and index.is_integer() and abs(index) < _TOO_LARGE:
            index = int(index)
        if type(index) not in {int, UInt} or index > MAX_INT:
            raise MismatchError
        return held[index] if 0 <= index < len(held) else NOTHING
    if type(held) is not dict or not is_key(index):
        raise FailedError
    return held.get(key_of(index), NOTHING)


def _optional_index(left: Run, right: Run) -> Run:
    def run(frame: Frame) -> Optional:
        held, index = left(frame), right(frame)
        if type(held) is Optional:
            return NONE if held.value is NOTHING else _optional_at(held.value, index)
        return _optional_at(held, index)

    return run


def _optional_at(held: Any, index: Any) -> Optional:  # noqa: ANN401 - any values of CEL
    if type(held) is not list:
        return optional_member(held, index)
    if kind(index) is not int:
        raise MismatchError
    return Optional(held[index]) if 0 <= index < len(held) else NONE


def _optional_select(left: Run, right: Run) -> Run:
    return lambda frame: optional_member(left(frame), right(frame))


OPERATORS: Final[Mapping[str, Callable[..., Run]]] = {
    "_&&_": lambda left, right: _and_or(left, right, decides=False),
    "_||_": lambda left, right: _and_or(left, right, decides=True),
    "_?_:_": _ternary,
    "!_": _not,
    "_==_": _equals,
    "_!=_": _differs,
    "_<_": _compared(lambda one, other: one < other),
    "_<=_": _compared(lambda one, other: one <= other),
    "_>_": _compared(lambda one, other: one > other),
    "_>=_": _compared(lambda one, other: one >= other),
    "@in": _in,
    "_[_]": _index,
    "_[?_]": _optional_index,
    "_?._": _optional_select,
    "orValue": _or_value,
    "or": _or_optional,
    "dyn": lambda operand: operand,
}


# --- loops ------------------------------------------------------------------------------------------------------------


def _walked(frame: Frame, over: Any, weight: int) -> list[Any]:  # noqa: ANN401 - any value of CEL
    """What a loop walks: a list, or the keys of a map; every turn is charged before the first."""
    found = type(over)
    if found is dict:
        frame.charge(len(over) * weight)
        return [value_of_key(key) for key in over]
    if found is not list:
        raise MismatchError
    frame.charge(len(over) * weight)
    return over  # type: ignore[no-any-return]


def until(over: Run, place: int, body: Run, weight: int, *, stop: bool) -> Run:
    """`all` ends at the first false, `exists` at the first true; an error counts only where neither comes."""

    def run(frame: Frame) -> bool:
        loops = frame.loops
        failed: type[CelError] | None = None
        for loops[place] in _walked(frame, over(frame), weight):
            try:
                value = body(frame)
            except CelError as error:
                absorbed = frame.absorb(error)
                failed = failed or absorbed
                continue
            if value is stop:
                return bool(stop)
            if type(value) is not bool:
                failed = failed or MismatchError
        if failed is not None:
            raise failed
        return not stop

    return run


def exactly_one(over: Run, place: int, body: Run, weight: int) -> Run:
    """`exists_one`, which walks the whole list."""

    def run(frame: Frame) -> bool:
        loops, found = frame.loops, 0
        for loops[place] in _walked(frame, over(frame), weight):
            value = body(frame)
            if type(value) is not bool:
                raise MismatchError
            found += value
        return found == 1

    return run


def gather(over: Run, place: int, keep: Run | None, body: Run, weight: int) -> Run:
    """`filter` and `map`."""
    if keep is None:

        def run_all(frame: Frame) -> list[Any]:
            loops, made = frame.loops, []
            for loops[place] in _walked(frame, over(frame), weight):
                made.append(body(frame))
            return made

        return run_all

    def run(frame: Frame) -> list[Any]:
        loops, made = frame.loops, []
        for loops[place] in _walked(frame, over(frame), weight):
            kept = keep(frame)
            if kept is True:
                made.append(body(frame))
            elif kept is not False:
                raise MismatchError
        return made

    return run
