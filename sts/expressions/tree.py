"""What an expression reads and calls, exactly, from the checked syntax tree that the library gives out.

It decides which facts of a request belong to the key of the token cache, so it fails closed: what is not understood is
refused at load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sts.expressions.functions import IP_IN, LOOKUP, check_range
from sts.expressions.patterns import check_pattern
from sts.expressions.words import ExpressionError

# Field numbers of cel/expr/syntax.proto and checked.proto (github.com/google/cel-spec), which never change.
_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4
_ID, _CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = range(2, 10)
_IDENT_NAME: Final = 1
_SELECT_OPERAND, _SELECT_FIELD = 1, 2
_CALL_TARGET, _CALL_FUNCTION, _CALL_ARGUMENTS = 1, 2, 3
_CONST_STRING: Final = 6
_STRUCT_ENTRY: Final = 2
_LOOP_VARIABLES: Final = (1, 3, 8)
# Which fields of a kind of node, or of an entry of a struct, are expressions themselves.
_CHILDREN: Final[dict[int, tuple[int, ...]]] = {
    _ID: (),
    _CONST: (),
    _IDENT: (),
    _SELECT: (_SELECT_OPERAND,),
    _CALL: (_CALL_TARGET, _CALL_ARGUMENTS),
    _LIST: (1,),
    _STRUCT: (),  # they stand in its entries
    _COMPREHENSION: (2, 4, 5, 6, 7),  # range, initial value, condition, step, result
}
_ENTRY_CHILDREN: Final = (3, 4)  # key and value
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function within an expression.

    `texts` are its arguments, a method's target first: what stands there as a literal text, None for all else, and a
    tuple of such for a literal list. `read` is the member that is read of the result at once (`f(x).read`), "" if none
    is. `in_loop` says that it may be evaluated many times, `data` of each argument whether it is read from a variable
    or a row as it stands there.
    """

    function: str
    texts: tuple[str | tuple[str | None, ...] | None, ...]
    read: str
    in_loop: bool
    data: tuple[bool, ...]


def reads(serialized: bytes, variables: frozenset[str]) -> frozenset[str]:
    """The paths that a checked expression reads, two levels deep, or a variable's name where it is read otherwise.

    `serialized` is what the library's `serialize` gives: a CheckedExpr within a google.protobuf.Any. Raises
    ExpressionError for a loop variable that hides one of `variables`, and for what this code does not understand.
    """
    return frozenset(_reads(_one(_one(serialized, _ANY_VALUE), _CHECKED_EXPR), variables))


def calls(serialized: bytes, variables: frozenset[str]) -> tuple[Call, ...]:
    """Every call of a function in a checked expression, operators included, outermost first."""
    return tuple(_calls(_one(_one(serialized, _ANY_VALUE), _CHECKED_EXPR), variables, "", in_loop=False))


def _calls(node: bytes, variables: frozenset[str], read: str, *, in_loop: bool) -> Iterator[Call]:
    member = ""
    for kind, body in _fields(node):
        if kind == _CALL:
            arguments = [*_all(body, _CALL_TARGET), *_all(body, _CALL_ARGUMENTS)]
            name, texts = _text(body, _CALL_FUNCTION), tuple(map(_literal, arguments))
            yield Call(name, texts, read, in_loop, tuple(_is_data(one, variables) for one in arguments))
            if name in {"_?._", "_[_]", "_[?_]"} and isinstance(texts[1], str):
                member = texts[1]
        elif kind == _SELECT:
            member = _text(body, _SELECT_FIELD)
        in_loop = in_loop or kind == _COMPREHENSION
    for child in _children(node, frozenset()):
        yield from _calls(child, variables, member, in_loop=in_loop)


def places(serialized: bytes, variables: frozenset[str]) -> frozenset[tuple[str, ...]] | None:
    """The whole paths that an expression reads: `claims.a.b` is ("claims", "a", "b").

    None where data are reached in another way as well, by loops or numbers, so that paths do not say what they are.
    """
    found: set[tuple[str, ...]] = set()
    return frozenset(found) if _places(_one(_one(serialized, _ANY_VALUE), _CHECKED_EXPR), variables, found) else None


def _places(node: bytes, variables: frozenset[str], found: set[tuple[str, ...]]) -> bool:
    """Gather the paths below `node`; whether that is all that it reads."""
    path = _whole_path(node, variables)
    if path:
        found.add(path)
        return True
    for kind, body in _fields(node):
        if kind == _COMPREHENSION or (kind == _IDENT and _text(body, _IDENT_NAME) not in variables):
            return False
        if kind == _CALL and _text(body, _CALL_FUNCTION) in {"_[_]", "_[?_]"}:
            return False
        if kind == _SELECT and not _is_data(node, variables):  # a member of what the expression made
            return False
    return all(_places(child, variables, found) for child in _children(node, variables))


def _whole_path(node: bytes, variables: frozenset[str]) -> tuple[str, ...]:
    name = _variable(node, variables)
    if name:
        return (name,)
    for kind, body in _fields(node):
        operand, member = b"", ""
        if kind == _SELECT:
            operand, member = _one(body, _SELECT_OPERAND), _text(body, _SELECT_FIELD)
        elif kind == _CALL and _text(body, _CALL_FUNCTION) in {"_?._", "_[_]", "_[?_]"}:
            operand, index = _all(body, _CALL_ARGUMENTS)
            literal = _literal(index)
            member = literal if isinstance(literal, str) else ""
        above = _whole_path(operand, variables) if member else ()
        if above:
            return (*above, member)
    return ()


def _literal(node: bytes) -> str | tuple[str | None, ...] | None:
    """What stands there as a literal text or list of them; None for all else."""
    for kind, body in _fields(node):
        if kind == _CONST:
            return next((found.decode() for found in _all(body, _CONST_STRING)), None)
        if kind == _LIST:
            found = map(_literal, _all(body, 1))
            return tuple(one if isinstance(one, str) else None for one in found)
    return None


def _is_data(node: bytes, variables: frozenset[str]) -> bool:
    """Whether `node` is `v`, `v.a.b`, `v['a']` or the same of a row: JSON data, nothing that the expression made."""
    for kind, body in _fields(node):
        if kind == _IDENT:
            return _text(body, _IDENT_NAME) in variables
        if kind == _SELECT:
            return _is_data(_one(body, _SELECT_OPERAND), variables)
        if kind == _CALL:
            arguments, function = _all(body, _CALL_ARGUMENTS), _text(body, _CALL_FUNCTION)
            return function == "lookup" or (function == "_[_]" and _is_data(arguments[0], variables))
    return False


def _reads(node: bytes, variables: frozenset[str]) -> Iterator[str]:
    path = _path(node, variables)
    if path:
        yield path
        return
    for child in _children(node, variables):
        yield from _reads(child, variables)


def _path(node: bytes, variables: frozenset[str]) -> str:
    """The path that `node` itself is: `v`, `v.field`, `has(v.field)` or `v.?field`, else ""."""
    name = _variable(node, variables)
    if name:
        return name
    for kind, body in _fields(node):
        if kind == _SELECT:
            name = _variable(_one(body, _SELECT_OPERAND), variables)
            return f"{name}.{_text(body, _SELECT_FIELD)}" if name else ""
        if kind == _CALL and _text(body, _CALL_FUNCTION) == "_?._":
            operand, constant = _all(body, _CALL_ARGUMENTS)
            name = _variable(operand, variables)
            return f"{name}.{_text(_one(constant, _CONST), _CONST_STRING)}" if name else ""
    return ""


def _variable(node: bytes, variables: frozenset[str]) -> str:
    """The name of the variable that `node` is, or "" if it is something else."""
    name = "".join(_text(body, _IDENT_NAME) for body in _all(node, _IDENT))
    return name if name in variables else ""


def _children(node: bytes, variables: frozenset[str]) -> Iterator[bytes]:
    for kind, body in _fields(node):
        if kind not in _CHILDREN:
            raise ExpressionError("it holds a construct that is not supported here")
        if kind == _COMPREHENSION:
            _check_loop(body, variables)
        for number in _CHILDREN[kind]:
            yield from _all(body, number)
        if kind == _STRUCT:
            for entry in _all(body, _STRUCT_ENTRY):
                for number in _ENTRY_CHILDREN:
                    yield from _all(entry, number)


def _check_loop(body: bytes, variables: frozenset[str]) -> None:
    """Two things of one name in one expression mislead its readers, and would mislead `_variable`."""
    for number in _LOOP_VARIABLES:
        name = "".join(value.decode() for value in _all(body, number))
        if name in variables:
            raise ExpressionError(f"the loop variable `{name}` hides the variable of that name; call it something else")


def _one(message: bytes, number: int) -> bytes:
    found = _all(message, number)
    if len(found) != 1:
        raise ExpressionError("it holds a construct that is not supported here")
    return found[0]


def _text(message: bytes, number: int) -> str:
    return _one(message, number).decode()


def _all(message: bytes, number: int) -> list[bytes]:
    return [value for found, value in _fields(message) if found == number]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield field number and content of a protocol-buffers message; a number's content is left out."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire, length = tag & 7, 0
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ExpressionError("it holds a construct that is not supported here")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


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
