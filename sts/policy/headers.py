"""The allowed values and names of identity headers in a forward-auth answer.

An identity header identifies the user to a backend. A value that another parser could read differently is refused and
not repaired: a repair would make two identities look alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

ABSENT: Final = "-"
"""Means "no such header": every answer contains every identity header, so that a forged one is overwritten."""

# Printable ASCII without a space at either end: receivers remove such spaces, and " alice" is not "alice".
_TEXT: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NAME: Final = re.compile(r"X-[A-Za-z0-9-]{1,64}")
_RESERVED: Final = frozenset({"x-gateway-secret", "x-request-id", "x-auth-reason", "x-token-expires-at"})
_RESERVED_PREFIXES: Final = ("x-accel-", "x-forwarded-", "x-original-")


def header_value(value: object) -> str:
    """Format a mapped value as one header value; `ABSENT` for None, "" and an empty list.

    A text is unchanged, an integer is decimal, a boolean `true` or `false`, a list is joined with `,`. Raises
    ValueError for a value that equals `ABSENT`, an empty element or one with a comma, a control or non-ASCII character,
    a space at an end, and any other type. The error's text never contains the value.
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
    """Check a configured name of an identity header. Raises ValueError with the reason.

    Names with a meaning for gateways or for this service are reserved. The token header is reserved too, but its name
    is configured: the checks of the whole configuration compare with it.
    """
    if not _NAME.fullmatch(name):
        raise ValueError('the name of an identity header is "X-" and letters, digits or "-"')
    lower = name.lower()
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise ValueError(f"{name} is a reserved name: identity headers cannot use it")
    return name


def _text(value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ValueError("not printable ASCII, or a space at an end")
    return value


def _element(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a list element is not a text")  # noqa: TRY004 - one error to catch
    if "," in value:
        raise ValueError("a comma inside a list element")
    return _text(value)
