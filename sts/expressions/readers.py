"""Typed readers of what a mapping gave: each takes what the design allows and refuses the rest. Pure."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from sts.expressions.faults import EMPTY, NOT_A_SCOPE, TOO_LONG, TYPE_MISMATCH, EvaluationError

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
