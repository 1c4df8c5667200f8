r"""The variables of one request, made safe before an expression reads them.

Others cut a text at NUL, so that "admin\0x" would become "admin"; nesting a few thousand levels deep overflows the
stack; CEL has no integer beyond 64 bits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from cel_expr_python import cel
from cel_expr_python.ext import ext_encoders, ext_math, ext_optional, ext_strings

from sts.expressions.functions import Rows, declarations
from sts.expressions.values import MAX_STEPS_OF_SCOPE
from sts.expressions.words import (
    EMPTY,
    NOT_A_SCOPE,
    OVERFLOW,
    TOO_DEEP,
    TOO_LONG,
    TYPE_MISMATCH,
    UNSAFE_TEXT,
    EvaluationError,
)

MAX_DEPTH: Final = 32
"""Levels of nesting in data; a few thousand overflow the stack."""

_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)


@lru_cache(maxsize=64)
def environment(variables: frozenset[str]) -> cel.Env:
    """The language over `variables`: maps of `dyn`, so that `has(identity.tenant)` works, and `now`, whole seconds."""
    return cel.NewEnv(
        variables={name: cel.Type.INT if name == "now" else _MAP for name in sorted(variables)},
        extensions=[
            ext_strings.ExtStrings(),
            ext_optional.ExtOptional(),
            ext_encoders.ExtEncoders(),
            ext_math.ExtMath(),
        ],
        functions=declarations(),
    )


class Scope:
    """The variables of one request, made safe once, however many expressions read them.

    `rows` are the rows at hand for what they look up; `left` the steps that all their evaluations may still take.
    """

    __slots__ = ("left", "rows", "values")

    def __init__(self, values: dict[str, Any], rows: Rows) -> None:
        self.values = values
        self.rows = _SafeRows(rows)
        self.left = MAX_STEPS_OF_SCOPE


class _SafeRows:
    """The rows at hand, each made safe once."""

    __slots__ = ("_rows", "_safe")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._safe: dict[tuple[str, str], tuple[Mapping[str, Any], dict[str, Any]]] = {}

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        """The values of the row (table, key), None if it is not at hand. Raises EvaluationError as `bind` does."""
        row = self._rows.get(pair)
        if row is None:
            return None
        found = self._safe.get(pair)
        if found is None or found[0] is not row:
            found = self._safe[pair] = (row, _safe_map(row, MAX_DEPTH))
        return found[1]


def bind(variables: Mapping[str, object], rows: Rows = MappingProxyType({})) -> Scope:
    """Make `variables` safe to evaluate over: `now` in Unix seconds, every other one a map of JSON values.

    `now` is handed in as whole seconds, like the NumericDate claims (RFC 7519 §2) that it is compared with;
    `timestamp(now)` gives a CEL timestamp. Integers beyond 64 bits become text, tuples lists, mappings dicts; nothing
    is copied that needs no change. Raises EvaluationError for a lone surrogate, NUL, a number that JSON cannot hold
    (RFC 8259 §6), nesting beyond `MAX_DEPTH`, and whatever is not a JSON value.
    """
    values: dict[str, Any] = {}
    for name, value in variables.items():
        if name == "now":
            values[name] = _seconds(value)
        elif isinstance(value, Mapping):
            values[name] = _safe_map(value, MAX_DEPTH)
        else:
            raise EvaluationError(TYPE_MISMATCH)
    return Scope(values, rows)


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(TYPE_MISMATCH)
    if not -(2.0**63) <= value < 2.0**63:
        raise EvaluationError(OVERFLOW)
    return math.floor(value)


def _safe(value: object, depth: int) -> object:
    """Return `value` itself where CEL can hold it as it stands, else what is handed in instead."""
    kind = type(value)
    if kind is str:
        return _safe_text(value)  # type: ignore[arg-type]
    if kind is bool or value is None:
        return value
    if kind is int:
        return _safe_integer(value)  # type: ignore[arg-type]
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise EvaluationError(OVERFLOW)
        return value
    if kind is list or kind is tuple:
        return _safe_list(value, depth - 1)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return _safe_map(value, depth - 1)
    raise EvaluationError(TYPE_MISMATCH)


def _safe_text(value: str) -> str:
    if "\0" in value:  # others would cut it there: another user's name
        raise EvaluationError(UNSAFE_TEXT)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EvaluationError(UNSAFE_TEXT) from None
    return value


def _safe_integer(value: int) -> int | str:
    if -(2**63) <= value < 2**64:  # CEL's int and uint
        return value
    try:
        return str(value)
    except ValueError:  # Python writes no more than 4 300 digits
        raise EvaluationError(OVERFLOW) from None


def _safe_list(value: list[object] | tuple[object, ...], depth: int) -> list[object]:
    if depth <= 0:
        raise EvaluationError(TOO_DEEP)
    changed = isinstance(value, tuple)
    safe = []
    for element in value:
        kept = _safe(element, depth)
        changed = changed or kept is not element
        safe.append(kept)
    return safe if changed else value  # type: ignore[return-value]


def _safe_map(value: Mapping[Any, object], depth: int) -> dict[str, object]:
    if depth <= 0:
        raise EvaluationError(TOO_DEEP)
    changed = type(value) is not dict
    safe: dict[str, object] = {}
    for key, member in value.items():
        if type(key) is not str:
            raise EvaluationError(TYPE_MISMATCH)
        kept = _safe(member, depth)
        changed = changed or kept is not member
        safe[_safe_text(key)] = kept
    return safe if changed else value  # type: ignore[return-value]


MAX_SUBJECT: Final = 1024
"""Characters of a subject."""

Attribute: TypeAlias = "str | int | bool | tuple[str, ...]"
"""What an attribute of an identity, or a claim beside the registered ones, may be."""

_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")


def as_subject(value: object) -> str:
    """Read a subject: a text of 1 to `MAX_SUBJECT` characters, never a number. Raises EvaluationError."""
    if not isinstance(value, str):
        raise EvaluationError(TYPE_MISMATCH)
    if not value:
        raise EvaluationError(EMPTY)
    if len(value) > MAX_SUBJECT:
        raise EvaluationError(TOO_LONG)
    return value


def as_scopes(value: object) -> tuple[str, ...]:
    """Read scopes: a list of scope tokens, or text of tokens between spaces (RFC 6749 §3.3). Raises EvaluationError.

    The order is kept, repeated tokens are dropped. An element of a list that holds a space is refused: it can be read
    as one scope or as two.
    """
    if isinstance(value, str):
        tokens: list[object] = [token for token in value.split(" ") if token]
    elif isinstance(value, list):
        tokens = value
    else:
        raise EvaluationError(TYPE_MISMATCH)
    scopes: dict[str, None] = {}
    for token in tokens:
        if not isinstance(token, str):
            raise EvaluationError(TYPE_MISMATCH)
        if not _SCOPE_TOKEN.fullmatch(token):
            raise EvaluationError(NOT_A_SCOPE)
        scopes[token] = None
    return tuple(scopes)


def as_attribute(value: object) -> Attribute:
    """Read a text, an integer, a boolean or a list of texts. Raises EvaluationError for floats, maps and the rest."""
    if isinstance(value, str | int):  # a bool is an int
        return value
    if isinstance(value, list) and all(isinstance(element, str) for element in value):
        return tuple(value)
    raise EvaluationError(TYPE_MISMATCH)
