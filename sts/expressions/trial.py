"""Dry runs at load: an expression that can only fail, whatever the data, is found before traffic is.

It is tried on data of every type that could stand where it reads. Only what fails on all of them, and for its types
alone, is a fault; what reaches data by loops or numbers, or reads too much to try everything, is not judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from sts.expressions.functions import Rows
from sts.expressions.program import ABSENT, Absent, Expression, Value
from sts.expressions.scope import bind
from sts.expressions.words import TYPE_MISMATCH, EvaluationError, ExpressionError, RowsWanted

MAX_TRIALS: Final = 2000
"""Evaluations for one expression: about 20 ms, and only where it fails."""

_SOME: Final = "1234"  # reads as a number and as base64 too
_TEXT: Final = (_SOME,)
_TEXTS: Final = (["a"],)
_NUMBER: Final = (7,)
_ANY: Final[tuple[object, ...]] = (_SOME, ["a"], 7, True, 1.5, {"a": "a"}, False)
_ATTRIBUTE: Final[tuple[object, ...]] = (_SOME, ["a"], 7, True, False)
_TYPES: Final[Mapping[tuple[str, ...], tuple[object, ...]]] = {
    ("claims", "iss"): _TEXT,  # RFC 7519 §4.1
    ("claims", "sub"): _TEXT,
    ("claims", "jti"): _TEXT,
    ("claims", "exp"): _NUMBER,
    ("claims", "nbf"): _NUMBER,
    ("claims", "iat"): _NUMBER,
    ("claims", "auth_time"): _NUMBER,  # OpenID Connect Core §2
    ("claims", "scope"): ("a b", ["a"]),
    ("identity", "subject"): _TEXT,
    ("identity", "scopes"): _TEXTS,
    ("identity", "roles"): _TEXTS,
    ("identity",): _ATTRIBUTE,
    ("client",): _TEXT,
    ("request",): _TEXT,
    ("route",): _TEXT,
}
"""What may stand at a path, or at every member of a variable."""


def check_use(
    expression: Expression,
    read: Callable[[Value], object] | None,
    rows: Rows | None = None,
) -> None:
    """Raise ExpressionError if `expression` fails on data of every type; its value is handed to `read`.

    `read` raises EvaluationError for what is of no use; None says that it is a condition. `rows` has an example for
    each row that may be looked up; without it what looks rows up is not judged.
    """
    places = expression.places()
    if places is None or (expression.lookups and rows is None):
        return
    for number, data in enumerate(_examples(places)):
        if number == MAX_TRIALS or _works(expression, read, data, rows or {}):
            return
    named = ", ".join(f"`{'.'.join(place)}`" for place in sorted(places))
    if named:
        raise ExpressionError(f"it fails whatever {named} may be, since the types do not fit")
    raise ExpressionError("what it gives is of a type that cannot be used here")


def _works(
    expression: Expression,
    read: Callable[[Value], object] | None,
    data: Mapping[str, object],
    rows: Rows,
) -> bool:
    """Whether it may be right: it gives something, or fails for another reason than a type."""
    try:
        scope = bind(data, rows)
        found: Value | Absent = expression.holds(scope) if read is None else expression.value(scope)
        if read is not None and found is not ABSENT:
            read(found)
    except EvaluationError as error:
        return error.why != TYPE_MISMATCH
    except RowsWanted:
        return True
    return True


def _examples(places: frozenset[tuple[str, ...]]) -> Iterator[dict[str, object]]:
    """Data with something of every type in every place."""
    leaves = [one for one in sorted(places) if not any(one == other[: len(one)] and one != other for other in places)]
    for values in itertools.product(*map(_values, leaves)):
        data: dict[str, Any] = {}
        for leaf, value in zip(leaves, values, strict=True):
            here = data
            for name in leaf[:-1]:
                here = here.setdefault(name, {})
            here[leaf[-1]] = value
        yield data


def _values(place: tuple[str, ...]) -> tuple[object, ...]:
    if place == ("now",):
        return (1_700_000_000,)
    if len(place) == 1:
        return ({"a": "a"},)
    if place in _TYPES:
        return _TYPES[place]
    return _TYPES.get(place[:1], _ANY) if len(place) == 2 else _ANY
