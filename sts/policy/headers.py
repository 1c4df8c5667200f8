"""What may stand in an identity header of a forward-auth answer, and under which name.

An identity header tells a backend who calls, so a value that another parser could read differently is refused and
never repaired: repairing it would make two identities look alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

ABSENT: Final = "-"
"""Stands for "no such header": an answer always carries every identity header, so that nothing forged survives."""

# Printable ASCII without a space at either end: receivers strip those, and " alice" is not "alice".
_TEXT: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NAME: Final = re.compile(r"X-[A-Za-z0-9-]{1,64}")
_RESERVED: Final = frozenset({"x-gateway-secret", "x-request-id", "x-auth-reason", "x-token-expires-at"})
_RESERVED_PREFIXES: Final = ("x-accel-", "x-forwarded-", "x-original-")


def header_value(value: object) -> str:
    """Write a mapped value as one header value; `ABSENT` for None, "" and an empty list.

    A text stands for itself, an integer in decimal, a boolean as `true` or `false`, a list joined with `,`. Raises
    ValueError, whose text never holds the value, for a value that equals `ABSENT`, an empty element or one with a
    comma, any control or non-ASCII character, a space at an end, and any other type.
    """
    if value is None or value in ("", [], ()):
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        written = _text(value)
    elif isinstance(value, Sequence):
        written = ",".join([_element(element) for element in value])
    else:
        raise ValueError("neither text, integer, boolean nor a list of texts")  # noqa: TRY004 - one error to catch
    if written == ABSENT:
        raise ValueError("equals the mark for an absent header")
    return written


def header_name(name: str) -> str:
    """Check the name of an identity header as the configuration writes it. Raises ValueError with what is wrong.

    The names that gateways and this service give a meaning of their own are not to be had. The token
    header is one of them too, but it is configured: whoever assembles the configuration compares with that one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError('an identity header is named "X-" and letters, digits or "-"')
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise ValueError(f"{name} has another meaning: identity headers cannot be called that")
    return name


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ValueError("not printable ASCII, or a space at an end")
    return value


def _element(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a list element is no text")  # noqa: TRY004 - one error to catch
    if "," in value:
        raise ValueError("a comma inside a list element")
    return _text(value)
