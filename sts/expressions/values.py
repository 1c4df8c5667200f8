"""The values of CEL as Python objects, how they compare, and what their evaluation may cost.

null, bool, int, double, string, bytes, list and map are Python's own; the rest are the classes below. An int of Python
beyond 2^63 that the data hold is a uint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sts.expressions.words import (
    TYPE_MISMATCH,
    AbsentKeyError,
    BudgetError,
    CelError,
    EvaluationError,
    MismatchError,
    OutOfRangeError,
)

MAX_STEPS: Final = 50_000
"""Steps of one evaluation of one expression: about 4 ms."""
MAX_STEPS_OF_SCOPE: Final = 4 * MAX_STEPS
"""Steps of all evaluations over the variables of one request."""
ABSORBED: Final = 20
"""Steps that a failure costs where `&&`, `||` or a loop goes on after it."""

MAX_INT: Final = 2**63 - 1
MAX_UINT: Final = 2**64 - 1


class UInt(int):
    """An unsigned integer of 64 bits."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A moment, in nanoseconds since 1970-01-01T00:00:00Z."""

    nanoseconds: int


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time in nanoseconds, negative ones included."""

    nanoseconds: int


@dataclass(frozen=True, slots=True)
class TypeName:
    """A type as a value: what `type(x)` gives."""

    name: str


class Optional:
    """What `.?` and `[?…]` give: a value or none."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:  # noqa: ANN401 - any value of CEL
        self.value = value


class _Nothing:
    """The type of what `optional.none()` holds: null is a value."""


NOTHING: Final = _Nothing()
NONE: Final = Optional(NOTHING)
"""`optional.none()`."""


class BoolKey:
    """`true` or `false` as a key: for a dict of Python, `True` and `1` are the same key."""

    __slots__ = ("value",)

    def __init__(self, *, value: bool) -> None:
        self.value = value


_BOOL_KEYS: Final = {True: BoolKey(value=True), False: BoolKey(value=False)}


class Frame:
    """One evaluation: the variables, the rows at hand, the loop variables, and the steps that are left."""

    __slots__ = ("left", "loops", "rows", "values")

    def __init__(self, values: Mapping[str, Any], rows: Any, loops: int, left: int) -> None:  # noqa: ANN401
        self.values = values
        self.rows = rows
        self.loops: list[Any] = [None] * loops
        self.left = left

    def charge(self, steps: int) -> None:
        """Take `steps` from the budget, before the work is done. Raises BudgetError where fewer are left."""
        self.left -= steps
        if self.left < 0:
            raise BudgetError

    def absorb(self, error: CelError) -> type[CelError]:
        """Charge for a failure that an operator goes on after; return its class, to raise it again if it counts."""
        self.charge(ABSORBED)
        return type(error)


_STEPS_OF_EQUAL: Final = 3
NUMBERS: Final = frozenset({int, UInt, float})
_ORDERED: Final = frozenset({str, bytes, bool, Timestamp, Duration})
_NAMES: Final[Mapping[type, str]] = {
    type(None): "null_type",
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    Optional: "optional_type",
    TypeName: "type",
}
TYPES: Final = {name: TypeName(name) for name in _NAMES.values()}
"""The types that an expression may name."""


def kind(value: object) -> type:
    """The type of a value, with `UInt` for an int of the data that only a uint can hold."""
    found = type(value)
    return UInt if found is int and value > MAX_INT else found  # type: ignore[operator]


def type_of(value: object) -> TypeName:
    """What `type(value)` gives."""
    return TYPES[_NAMES[kind(value)]]


def whole(value: int) -> int:
    """`value`, if an int can hold it. Raises OutOfRangeError."""
    if -MAX_INT - 1 <= value <= MAX_INT:
        return value
    raise OutOfRangeError


def unsigned(value: int) -> UInt:
    """`value` as a uint. Raises OutOfRangeError."""
    if 0 <= value <= MAX_UINT:
        return UInt(value)
    raise OutOfRangeError


def equal(frame: Frame, left: Any, right: Any) -> bool:  # noqa: ANN401 - any values of CEL
    """Whether two values are equal: numbers by their value whatever their type; what differs in type never is."""
    one, other = type(left), type(right)
    if one is not other:
        return one in NUMBERS and other in NUMBERS and left == right
    if one is list or one is dict:
        if len(left) != len(right):
            return False
        frame.charge(_STEPS_OF_EQUAL * len(left))
        if one is list:
            return all(equal(frame, *pair) for pair in zip(left, right, strict=True))
        return all(key in right and equal(frame, held, right[key]) for key, held in left.items())
    if one is Optional:
        left, right = left.value, right.value
        return left is right if left is NOTHING or right is NOTHING else equal(frame, left, right)
    if one is str or one is bytes:
        frame.charge(len(left) >> 8)
    return bool(left == right)


def order(left: Any, right: Any) -> None:  # noqa: ANN401 - any values of CEL
    """Raise MismatchError for two values that have no order."""
    one, other = type(left), type(right)
    if (one is not other or one not in _ORDERED) and not (one in NUMBERS and other in NUMBERS):
        raise MismatchError


def contains(frame: Frame, value: Any, container: Any) -> bool:  # noqa: ANN401 - any values of CEL
    """`value in container`, a list or the keys of a map."""
    held = type(container)
    if held is dict:
        if type(value) not in _KEYS:
            raise MismatchError
        return key_of(value) in container
    if held is not list:
        raise MismatchError
    if type(value) is str:  # equals no value of another type, in Python as in CEL
        frame.charge(len(container) >> 2)
        return value in container
    frame.charge(_STEPS_OF_EQUAL * len(container))
    return any(equal(frame, value, element) for element in container)


_KEYS: Final = frozenset({str, bool, int, UInt, float})


def key_of(value: Any) -> Any:  # noqa: ANN401 - any value of CEL
    """What a value is as a key of a map of Python: what is looked up. The value is one of `_KEYS`."""
    found = type(value)
    if found is bool:
        return _BOOL_KEYS[value]
    if found is float:
        return int(value) if value.is_integer() else NOTHING
    return value


def value_of_key(key: Any) -> Any:  # noqa: ANN401 - any key of a map
    """A key of a map as a value of CEL."""
    return key.value if type(key) is BoolKey else key


def is_key(value: object) -> bool:
    """Whether a map may be asked for `value`."""
    return type(value) in _KEYS


def member(held: Any, name: str) -> Any:  # noqa: ANN401 - any values of CEL
    """`held.name`. Raises AbsentKeyError, MismatchError for what has no members."""
    if type(held) is dict:
        if name in held:
            return held[name]
        raise AbsentKeyError
    if type(held) is Optional:
        if held.value is not NOTHING and type(held.value) is not dict:
            raise EvaluationError(TYPE_MISMATCH)  # the library lets nothing absorb this one
        return optional_member(held, name)
    raise MismatchError


def optional_member(held: Any, name: Any) -> Optional:  # noqa: ANN401 - any values of CEL
    """`held.?name` and `held[?name]` of a map, or of an optional that holds one. Raises MismatchError."""
    if type(held) is Optional:
        if held.value is NOTHING:
            return NONE
        held = held.value
    if type(held) is not dict:
        raise MismatchError
    key = key_of(name) if is_key(name) else NOTHING
    return Optional(held[key]) if key in held else NONE
