"""The functions of CEL over the values of one evaluation: arithmetic, conversions, texts, optionals, mathematics.

Each is found by its name and by the types of its arguments, as the library does. What grows with the data is charged
to the frame before it is done.
"""

from __future__ import annotations

import base64
import binascii
import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeVar

from sts.expressions.values import (
    MAX_INT,
    MAX_UINT,
    NONE,
    NOTHING,
    NUMBERS,
    Duration,
    Frame,
    Optional,
    Timestamp,
    TypeName,
    UInt,
    type_of,
    unsigned,
    whole,
)
from sts.expressions.words import FailedError, MismatchError, OutOfRangeError

Function = TypeVar("Function", bound=Callable[..., Any])
OVERLOADS: Final[dict[str, dict[tuple[type, ...], Callable[..., Any]]]] = {}
"""By name, and by the types of the arguments: a function of the frame and the arguments."""


def overload(name: str, *types: type) -> Callable[[Function], Function]:
    """Register a function for arguments of `types`."""

    def register(function: Function) -> Function:
        OVERLOADS.setdefault(name, {})[types] = function
        return function

    return register


_CHARACTERS_A_STEP: Final = 32
"""Characters of a text that are searched or copied in the time of one step."""


def _charge_text(frame: Frame, length: int) -> None:
    if length >= _CHARACTERS_A_STEP:
        frame.charge(length // _CHARACTERS_A_STEP)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _arithmetic(name: str, of_numbers: Callable[[Any, Any], Any]) -> None:
    overload(name, int, int)(lambda _, left, right: whole(of_numbers(left, right)))
    overload(name, UInt, UInt)(lambda _, left, right: unsigned(of_numbers(int(left), int(right))))
    overload(name, float, float)(lambda _, left, right: of_numbers(left, right))


_arithmetic("_+_", operator.add)
_arithmetic("_-_", operator.sub)
_arithmetic("_*_", operator.mul)


@overload("_/_", int, int)
def _divide(_: Frame, left: int, right: int) -> int:
    if right == 0:
        raise FailedError
    result = abs(left) // abs(right)
    return whole(result if (left < 0) == (right < 0) else -result)


@overload("_/_", UInt, UInt)
def _divide_unsigned(frame: Frame, left: int, right: int) -> UInt:
    return UInt(_quotient(frame, int(left), int(right)))


def _quotient(_: Frame, left: int, right: int) -> int:
    if right == 0:
        raise FailedError
    return left // right


@overload("_/_", float, float)
def _divide_double(_: Frame, left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


@overload("_%_", int, int)
def _remainder(frame: Frame, left: int, right: int) -> int:
    return left - _divide(frame, left, right) * right


@overload("_%_", UInt, UInt)
def _remainder_unsigned(_: Frame, left: int, right: int) -> UInt:
    if right == 0:
        raise FailedError
    return UInt(int(left) % int(right))


overload("-_", int)(lambda _, value: whole(-value))
overload("-_", float)(lambda _, value: -value)


@overload("_+_", str, str)
@overload("_+_", bytes, bytes)
def _concatenate(frame: Frame, left: Any, right: Any) -> Any:  # noqa: ANN401 - two texts, or two of bytes
    _charge_text(frame, len(left) + len(right))
    return left + right


@overload("_+_", list, list)
def _join_lists(frame: Frame, left: list[Any], right: list[Any]) -> list[Any]:
    frame.charge((len(left) + len(right)) // 8)
    return left + right


# --- conversions ------------------------------------------------------------------------------------------------------

_SPACE: Final = " \t\n\v\f\r"
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}")
_DOUBLE: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf|nan)")
_LONGEST_NUMBER: Final = 400
_BOOLS: Final = {
    **dict.fromkeys(("1", "t", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "false", "FALSE", "False"), False),
}


def _number(text: str) -> int:
    stripped = text[:_LONGEST_NUMBER].strip(_SPACE)
    if len(text) > _LONGEST_NUMBER or not _WHOLE.fullmatch(stripped):
        raise FailedError
    return int(stripped)


@overload("int", str)
def _int_of_text(_: Frame, text: str) -> int:
    number = _number(text)
    if not -MAX_INT - 1 <= number <= MAX_INT:
        raise FailedError
    return number


@overload("uint", str)
def _uint_of_text(_: Frame, text: str) -> UInt:
    number = _number(text)
    if not 0 <= number <= MAX_UINT or "-" in text:
        raise FailedError
    return UInt(number)


@overload("double", str)
def _double_of_text(_: Frame, text: str) -> float:
    stripped = text[:_LONGEST_NUMBER].strip(_SPACE)
    if len(text) > _LONGEST_NUMBER or not _DOUBLE.fullmatch(stripped):
        raise FailedError
    return float(stripped)


@overload("int", float)
def _int_of_double(_: Frame, value: float) -> int:
    if not -(2.0**63) < value < 2.0**63:  # the library leaves the least int out as well
        raise OutOfRangeError
    return int(value)


@overload("uint", float)
def _uint_of_double(_: Frame, value: float) -> UInt:
    if not 0 <= value < 2.0**64:
        raise OutOfRangeError
    return UInt(value)


@overload("bool", str)
def _bool_of_text(_: Frame, text: str) -> bool:
    if text not in _BOOLS:
        raise FailedError
    return _BOOLS[text]


@overload("string", bytes)
def _text_of_bytes(frame: Frame, value: bytes) -> str:
    _charge_text(frame, len(value))
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FailedError from None


@overload("string", float)
def _text_of_double(_: Frame, value: float) -> str:
    """The shortest digits that mean this number; beyond six before the point, or four zeros behind it, as 1e+06."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    sign, digits, _exponent = Decimal(repr(value)).normalize().as_tuple()
    exponent = Decimal(repr(value)).adjusted() if value else 0
    written = "".join(map(str, digits))
    minus = "-" if sign else ""
    if not value:
        return f"{minus}0"
    if not -5 < exponent < 6:
        point = "." if len(written) > 1 else ""
        return f"{minus}{written[0]}{point}{written[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{minus}0.{'0' * (-exponent - 1)}{written}"
    written = written.ljust(exponent + 1, "0")
    return f"{minus}{written[: exponent + 1]}{'.' if written[exponent + 1 :] else ''}{written[exponent + 1 :]}"


@overload("bytes", str)
def _bytes_of_text(frame: Frame, text: str) -> bytes:
    _charge_text(frame, len(text))
    return text.encode()


for _name, _same in {"int": int, "uint": UInt, "double": float, "string": str, "bytes": bytes, "bool": bool}.items():
    overload(_name, _same)(lambda _, value: value)
overload("int", UInt)(lambda _, value: whole(int(value)))
overload("int", bool)(lambda _, value: int(value))
overload("uint", int)(lambda _, value: unsigned(value))
overload("double", int)(lambda _, value: float(value))
overload("double", UInt)(lambda _, value: float(value))
overload("string", int)(lambda _, value: str(value))
overload("string", UInt)(lambda _, value: str(int(value)))
overload("string", bool)(lambda _, value: "true" if value else "false")
for _one in (type(None), bool, int, UInt, float, str, bytes, list, dict, Timestamp, Duration, Optional, TypeName):
    overload("type", _one)(lambda _, value: type_of(value))


# --- texts ------------------------------------------------------------------------------------------------------------

_LOWER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_UPPER: Final = {ord(letter.lower()): letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_WHITE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

overload("size", str)(lambda _, value: len(value))
overload("size", bytes)(lambda _, value: len(value))
overload("size", list)(lambda _, value: len(value))
overload("size", dict)(lambda _, value: len(value))


def _searching(name: str, function: Callable[[str, str], Any]) -> None:
    @overload(name, str, str)
    def run(frame: Frame, text: str, part: str) -> Any:  # noqa: ANN401 - a bool or a number
        _charge_text(frame, len(text) + len(part))
        return function(text, part)


_searching("contains", lambda text, part: part in text)
_searching("startsWith", str.startswith)
_searching("endsWith", str.endswith)
_searching("indexOf", str.find)
_searching("lastIndexOf", str.rfind)


@overload("indexOf", str, str, int)
def _index_of(frame: Frame, text: str, part: str, start: int) -> int:
    _charge_text(frame, len(text) + len(part))
    if not 0 <= start <= len(text):
        raise FailedError
    return text.find(part, start)


@overload("lastIndexOf", str, str, int)
def _last_index_of(frame: Frame, text: str, part: str, start: int) -> int:
    _charge_text(frame, len(text) + len(part))
    if not 0 <= start <= len(text):
        raise FailedError
    return text.rfind(part, 0, start + len(part))


def _mapped(name: str, of_ascii: Callable[[str], str], table: dict[int, str]) -> None:
    @overload(name, str)
    def run(frame: Frame, text: str) -> str:
        if text.isascii():
            _charge_text(frame, len(text))
            return of_ascii(text)
        frame.charge(len(text) // 2)
        return text.translate(table)


_mapped("lowerAscii", str.lower, _LOWER)
_mapped("upperAscii", str.upper, _UPPER)


@overload("trim", str)
def _trim(frame: Frame, text: str) -> str:
    _charge_text(frame, len(text))
    return text.strip(_WHITE)


@overload("reverse", str)
def _reverse(frame: Frame, text: str) -> str:
    _charge_text(frame, len(text))
    return text[::-1]


@overload("charAt", str, int)
def _char_at(_: Frame, text: str, place: int) -> str:
    if not 0 <= place <= len(text):
        raise FailedError
    return text[place : place + 1]


@overload("substring", str, int)
def _substring(frame: Frame, text: str, start: int) -> str:
    return _substring_to(frame, text, start, len(text))


@overload("substring", str, int, int)
def _substring_to(frame: Frame, text: str, start: int, end: int) -> str:
    if not 0 <= start <= end <= len(text):
        raise FailedError
    _charge_text(frame, end - start)
    return text[start:end]


@overload("split", str, str)
def _split(frame: Frame, text: str, separator: str) -> list[str]:
    return _split_to(frame, text, separator, -1)


@overload("split", str, str, int)
def _split_to(frame: Frame, text: str, separator: str, limit: int) -> list[str]:
    """Split into at most `limit` parts, as many as there are where it is negative."""
    _charge_text(frame, len(text))
    if limit in {0, 1}:
        return [text][:limit]
    if not separator:
        parts = len(text) if limit < 0 else min(limit, len(text))
        frame.charge(parts)
        return [*text[: parts - 1], text[parts - 1 :]] if text else [""]
    frame.charge(text.count(separator) + 1)
    return text.split(separator, limit - 1 if limit > 0 else -1)


@overload("replace", str, str, str)
def _replace(frame: Frame, text: str, old: str, new: str) -> str:
    return _replace_some(frame, text, old, new, -1)


@overload("replace", str, str, str, int)
def _replace_some(frame: Frame, text: str, old: str, new: str, limit: int) -> str:
    _charge_text(frame, len(text))
    times = text.count(old)
    if limit >= 0:
        times = min(times, limit)
    _charge_text(frame, times * len(new))
    frame.charge(times // 4)
    return text.replace(old, new, times)


@overload("join", list)
def _join(frame: Frame, parts: list[Any]) -> str:
    return _join_with(frame, parts, "")


@overload("join", list, str)
def _join_with(frame: Frame, parts: list[Any], separator: str) -> str:
    frame.charge(len(parts))
    if not all(type(part) is str for part in parts):
        raise MismatchError
    _charge_text(frame, sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


@overload("base64.encode", bytes)
def _encode(frame: Frame, value: bytes) -> str:
    _charge_text(frame, len(value))
    return base64.b64encode(value).decode()


@overload("base64.decode", str)
def _decode(frame: Frame, text: str) -> bytes:
    """Padding may be left out, and white space stands anywhere."""
    _charge_text(frame, len(text))
    packed = "".join(text.split()) if any(space in text for space in _SPACE) else text
    missing = -len(packed) % 4
    try:
        if missing and "=" in packed:
            raise FailedError
        return base64.b64decode(packed.encode() + b"=" * missing, validate=True)
    except (binascii.Error, ValueError):
        raise FailedError from None


# --- optionals --------------------------------------------------------------------------------------------------------

_ANY: Final = (type(None), bool, int, UInt, float, str, bytes, list, dict, Timestamp, Duration, Optional, TypeName)
_ZEROS: Final[tuple[object, ...]] = ("", b"", 0, 0.0, False, None, [], {}, Timestamp(0), Duration(0))

OVERLOADS["optional.none"] = {(): lambda _: NONE}
for _one in _ANY:
    overload("optional.of", _one)(lambda _, value: Optional(value))
    overload("optional.ofNonZeroValue", _one)(lambda _, value: NONE if value in _ZEROS else Optional(value))
overload("hasValue", Optional)(lambda _, held: held.value is not NOTHING)


@overload("value", Optional)
def _value(_: Frame, held: Optional) -> Any:  # noqa: ANN401 - any value of CEL
    if held.value is NOTHING:
        raise FailedError
    return held.value


overload("first", list)(lambda _, elements: Optional(elements[0]) if elements else NONE)
overload("last", list)(lambda _, elements: Optional(elements[-1]) if elements else NONE)


# --- mathematics ------------------------------------------------------------------------------------------------------


def _extreme(name: str, beats: Callable[[Any, Any], bool]) -> None:
    def of_two(left: Any, right: Any) -> Any:  # noqa: ANN401 - numbers
        return right if beats(right, left) else left

    for one in NUMBERS:
        overload(name, one)(lambda _, value: value)
        for other in NUMBERS:
            overload(name, one, other)(lambda _, left, right: of_two(left, right))

    @overload(name, list)
    def of_list(frame: Frame, numbers: list[Any]) -> Any:  # noqa: ANN401 - a number
        frame.charge(len(numbers))
        if not numbers or not all(type(number) in NUMBERS for number in numbers):
            raise FailedError
        found = numbers[0]
        for number in numbers[1:]:
            found = of_two(found, number)
        return found


_extreme("math.@max", operator.gt)
_extreme("math.@min", operator.lt)


@overload("math.round", float)
def _round(_: Frame, value: float) -> float:
    """The next whole number, halves away from zero."""
    return math.copysign(math.floor(abs(value) + 0.5), value) if abs(value) < 2.0**52 else value


def _rounding(name: str, function: Callable[[float], int]) -> None:
    @overload(name, float)
    def run(_: Frame, value: float) -> float:
        return math.copysign(float(function(value)), value) if math.isfinite(value) else value


_rounding("math.ceil", math.ceil)
_rounding("math.floor", math.floor)
_rounding("math.trunc", math.trunc)


@overload("math.abs", int)
def _absolute(_: Frame, value: int) -> int:
    if value == -MAX_INT - 1:
        raise FailedError
    return abs(value)


overload("math.abs", UInt)(lambda _, value: value)
overload("math.abs", float)(lambda _, value: abs(value))
overload("math.sign", int)(lambda _, value: (value > 0) - (value < 0))
overload("math.sign", UInt)(lambda _, value: UInt(value > 0))
overload("math.sign", float)(lambda _, value: value if math.isnan(value) else float((value > 0) - (value < 0)))
overload("math.isNaN", float)(lambda _, value: math.isnan(value))
overload("math.isInf", float)(lambda _, value: math.isinf(value))
overload("math.isFinite", float)(lambda _, value: math.isfinite(value))
for _one in NUMBERS:
    overload("math.sqrt", _one)(lambda _, value: math.sqrt(value) if value >= 0 else math.nan)
