"""The checked syntax tree of an expression, and what it reads and calls, exactly.

The library parses and checks; this module reads the tree that it gives out. What a rule reads decides which facts of a
request belong to the key of the token cache, so this fails closed: what is not understood is refused at load.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sts.expressions.functions import IP_IN, LOOKUP, check_range
from sts.expressions.moments import zone
from sts.expressions.patterns import check_pattern
from sts.expressions.values import UInt
from sts.expressions.words import EvaluationError, ExpressionError


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, a loop variable or a type."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.member`; with `test`, `has(operand.member)`."""

    operand: Node
    member: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function or an operator; a method's target is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list that stands there; `optional` has the places that are written `?x`."""

    elements: tuple[Node, ...]
    optional: frozenset[int]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map that stands there: (key, value, whether it is written `?key: value`)."""

    entries: tuple[tuple[Node, Node, bool], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What the library makes of a macro such as `filter`: a loop with a value that each turn replaces."""

    variable: str
    over: Node
    result_name: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = Const | Name | Select | Call | ListOf | MapOf | Loop


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a function within an expression.

    `read` is the member that is read of the result at once (`f(x).read`), "" if none is. `in_loop` says that it may be
    evaluated many times.
    """

    call: Call
    read: str
    in_loop: bool


_MATCHES: Final = "matches"
_NOT_SUPPORTED: Final = "it holds a construct that is not supported here"
_INDEXING: Final = frozenset({"_?._", "_[_]", "_[?_]"})

# Field numbers of cel/expr/syntax.proto and checked.proto (github.com/google/cel-spec), which never change.
_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4
_ID: Final = 2


def decode(serialized: bytes, variables: frozenset[str]) -> Node:
    """Read what the library's `serialize` gives: a CheckedExpr within a google.protobuf.Any.

    Raises ExpressionError for a loop variable that hides one of `variables`, and for what this code does not
    understand.
    """
    try:
        root = _node(_one(_fields(_one(_fields(serialized), _ANY_VALUE)), _CHECKED_EXPR))
    except (IndexError, struct.error, TypeError, UnicodeDecodeError):
        raise ExpressionError(_NOT_SUPPORTED) from None
    for node in walk(root):
        if isinstance(node, Loop):
            for name in (node.variable, node.result_name):
                if name in variables:  # two things of one name mislead those who read the rule, and `reads`
                    hidden = f"the loop variable `{name}` hides the variable of that name; call it something else"
                    raise ExpressionError(hidden)
    return root


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below a node."""
    if isinstance(node, Select):
        return (node.operand,)
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, ListOf):
        return node.elements
    if isinstance(node, MapOf):
        return tuple(part for key, value, _ in node.entries for part in (key, value))
    if isinstance(node, Loop):
        return (node.over, node.start, node.condition, node.step, node.result)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and every node below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def uses(node: Node, read: str = "", *, in_loop: bool = False) -> Iterator[Use]:
    """Yield every call of a function, operators included, outermost first."""
    member = ""
    if isinstance(node, Call):
        yield Use(node, read, in_loop)
        if node.function in _INDEXING:
            index = node.arguments[1]
            member = index.value if isinstance(index, Const) and isinstance(index.value, str) else ""
    elif isinstance(node, Select):
        member = node.member
    for child in children(node):
        yield from uses(child, member, in_loop=in_loop or isinstance(node, Loop))


def reads(node: Node, variables: frozenset[str]) -> frozenset[str]:
    """The paths that an expression reads, two levels deep, or a variable's name where it is read otherwise."""
    return frozenset(_reads(node, variables))


def places(node: Node, variables: frozenset[str]) -> frozenset[tuple[str, ...]] | None:
    """The whole paths that an expression reads: `claims.a.b` is ("claims", "a", "b").

    None where data are reached in another way as well, by loops or numbers, so that paths do not say what they are.
    """
    found: set[tuple[str, ...]] = set()
    return frozenset(found) if _places(node, variables, found) else None


def is_data(node: Node, variables: frozenset[str]) -> bool:
    """Whether `node` is `v`, `v.a.b`, `v['a']` or the same of a row: JSON data, nothing that the expression made."""
    if isinstance(node, Name):
        return node.name in variables
    if isinstance(node, Select):
        return is_data(node.operand, variables)
    if isinstance(node, Call):
        return node.function == "lookup" or (node.function == "_[_]" and is_data(node.arguments[0], variables))
    return False


def _places(node: Node, variables: frozenset[str], found: set[tuple[str, ...]]) -> bool:
    """Gather the paths below `node`; whether that is all that it reads."""
    path = _whole_path(node, variables)
    if path:
        found.add(path)
        return True
    if isinstance(node, Loop) or (isinstance(node, Name) and node.name not in variables):
        return False
    if isinstance(node, Call) and node.function in {"_[_]", "_[?_]"}:
        return False
    if isinstance(node, Select) and not is_data(node, variables):  # a member of what the expression made
        return False
    return all(_places(child, variables, found) for child in children(node))


def _whole_path(node: Node, variables: frozenset[str]) -> tuple[str, ...]:
    if isinstance(node, Name):
        return (node.name,) if node.name in variables else ()
    operand, member = _member(node)
    above = _whole_path(operand, variables) if operand is not None else ()
    return (*above, member) if above else ()


def _member(node: Node) -> tuple[Node | None, str]:
    """`operand` and `member` of what is written `operand.member`, `.?member`, `['member']` or `[?'member']`."""
    if isinstance(node, Select):
        return node.operand, node.member
    if isinstance(node, Call) and node.function in _INDEXING:
        operand, index = node.arguments
        if isinstance(index, Const) and isinstance(index.value, str):
            return operand, index.value
    return None, ""


def _reads(node: Node, variables: frozenset[str]) -> Iterator[str]:
    path = _path(node, variables)
    if path:
        yield path
        return
    for child in children(node):
        yield from _reads(child, variables)


def _path(node: Node, variables: frozenset[str]) -> str:
    """The path that `node` itself is: `v`, `v.field`, `has(v.field)` or `v.?field`, else ""."""
    if isinstance(node, Name):
        return node.name if node.name in variables else ""
    if isinstance(node, Call) and node.function != "_?._":  # by index, any of it may be read
        return ""
    operand, member = _member(node)
    return f"{operand.name}.{member}" if isinstance(operand, Name) and operand.name in variables else ""


# --- what a rule calls, judged at load --------------------------------------------------------------------------------


def judge(root: Node, variables: frozenset[str]) -> frozenset[tuple[str, str]]:
    """(table, column) of what a checked expression looks up; "" for the whole row.

    Raises ExpressionError for a pattern that is no literal, is none or is too costly, for ranges of addresses that are
    none or neither literal nor data, for a time zone that there is not, and for a table that is no literal.
    """
    used = list(uses(root))
    for use in used:
        try:
            _judge(use.call, variables)
        except ValueError as error:
            raise ExpressionError(str(error)) from None
    looked_up = ((str(_literal(use.call.arguments[0])), use.read) for use in used if use.call.function == LOOKUP)
    return frozenset(looked_up)


def _judge(call: Call, variables: frozenset[str]) -> None:
    if call.function == _MATCHES:
        pattern = _literal(call.arguments[1])
        if pattern is None:
            raise ExpressionError("the pattern of `matches` must stand there as a text, so that it can be checked")
        check_pattern(pattern)
    elif call.function == IP_IN:
        _judge_ranges(call.arguments[1], variables)
    elif call.function == LOOKUP and _literal(call.arguments[0]) is None:
        raise ExpressionError("the table of `lookup` must stand there as a text: lookup('employees', …)")
    elif call.function.startswith("get") and len(call.arguments) == 2:
        _judge_zone(_literal(call.arguments[1]))


def _judge_ranges(ranges: Node, variables: frozenset[str]) -> None:
    """Take literals and data only, so that a range with a mistake in it is found at load."""
    written = ranges.elements if isinstance(ranges, ListOf) else (ranges,)
    literals = [_literal(one) for one in written]
    for one in literals:
        if one is not None:
            check_range(one)
    if None in literals and not is_data(ranges, variables):
        raise ExpressionError("the ranges of `ip_in` must stand there as texts, or be read from a variable or a table")


def _judge_zone(name: str | None) -> None:
    """Find a misspelt time zone, and read the list of all before a request brings a name."""
    try:
        zone("UTC" if name is None else name or "UTC")
    except EvaluationError:
        raise ExpressionError(f"there is no time zone `{name}`; write it like Europe/Berlin or +02:00") from None


def _literal(node: Node) -> str | None:
    """What stands there as a literal text; None for all else."""
    return node.value if isinstance(node, Const) and isinstance(node.value, str) else None


# --- the wire ---------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Field: TypeAlias = tuple[int, int | bytes]


def _node(message: bytes) -> Node:
    found = [(number, body) for number, body in _fields(message) if number != _ID]
    number, body = found[0] if len(found) == 1 else (0, 0)
    if number not in _READERS or not isinstance(body, bytes):
        raise ExpressionError(_NOT_SUPPORTED)
    return _READERS[number](_fields(body))


def _const(fields: list[_Field]) -> Node:
    if len(fields) != 1 or fields[0][0] not in _CONSTANTS:
        raise ExpressionError(_NOT_SUPPORTED)
    number, value = fields[0]
    return Const(_CONSTANTS[number](value))


def _name(fields: list[_Field]) -> Node:
    return Name(_text(fields, 1))


def _select(fields: list[_Field]) -> Node:
    return Select(_node(_one(fields, 1)), _text(fields, 2), test=bool(_all(fields, 3)))


def _call(fields: list[_Field]) -> Node:
    return Call(_text(fields, 2), tuple(_node(one) for one in (*_bodies(fields, 1), *_bodies(fields, 3))))


def _list(fields: list[_Field]) -> Node:
    optional = b"".join(_bodies(fields, 2))
    at, places = 0, set()
    while at < len(optional):
        place, at = _varint(optional, at)
        places.add(place)
    return ListOf(tuple(_node(one) for one in _bodies(fields, 1)), frozenset(places))


def _map(fields: list[_Field]) -> Node:
    if _all(fields, 1):
        message = _text(fields, 1)
        raise ExpressionError(f"messages such as `{message}{{…}}` are not supported here: write a map, `{{'key': x}}`")
    entries = [_fields(one) for one in _bodies(fields, 2)]
    return MapOf(tuple((_node(_one(one, 3)), _node(_one(one, 4)), bool(_all(one, 5))) for one in entries))


def _loop(fields: list[_Field]) -> Node:
    if _all(fields, 8):
        raise ExpressionError("macros with two loop variables are not supported here")
    parts = (_node(_one(fields, number)) for number in (2, 4, 5, 6, 7))
    over, start, condition, step, result = parts
    return Loop(_text(fields, 1), over, _text(fields, 3), start, condition, step, result)


_READERS: Final[Mapping[int, Callable[[list[_Field]], Node]]] = {
    3: _const,
    4: _name,
    5: _select,
    6: _call,
    7: _list,
    8: _map,
    9: _loop,
}
_CONSTANTS: Final[Mapping[int, Callable[[Any], Any]]] = {
    1: lambda _: None,
    2: bool,
    3: lambda value: value - 2**64 if value >= 2**63 else value,
    4: UInt,
    5: lambda value: struct.unpack("<d", value)[0],
    6: bytes.decode,
    7: bytes,
}


def _one(fields: list[_Field], number: int) -> bytes:
    found = _bodies(fields, number)
    if len(found) != 1:
        raise ExpressionError(_NOT_SUPPORTED)
    return found[0]


def _text(fields: list[_Field], number: int) -> str:
    return _one(fields, number).decode()


def _all(fields: list[_Field], number: int) -> list[int | bytes]:
    return [value for found, value in fields if found == number]


def _bodies(fields: list[_Field], number: int) -> list[bytes]:
    return [value for value in _all(fields, number) if isinstance(value, bytes)]


def _fields(message: bytes) -> list[_Field]:
    """Field numbers and contents of a protocol-buffers message."""
    found: list[_Field] = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire, length = tag & 7, 0
        if wire == _VARINT:
            value, at = _varint(message, at)
            found.append((tag >> 3, value))
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ExpressionError(_NOT_SUPPORTED)
        found.append((tag >> 3, message[at : at + length]))
        at += length
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
