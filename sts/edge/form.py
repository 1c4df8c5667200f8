"""The strict reader of `application/x-www-form-urlencoded` requests (RFC 6749 Appendix B, RFC 8693 §2.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from sts.errors import MALFORMED, TOO_LARGE, Refusal
from sts.model import Incoming

MAX_BODY_BYTES: Final = 64 * 1024
MAX_PARAMETERS: Final = 64

# The same reasons as ever, where HTTP has a status of its own for them.
METHOD_NOT_ALLOWED: Final = replace(MALFORMED, token_status=405)
UNSUPPORTED_MEDIA_TYPE: Final = replace(MALFORMED, token_status=415)
BODY_TOO_LARGE: Final = replace(TOO_LARGE, token_status=413)

_MEDIA_TYPE: Final = re.compile(
    r'application/x-www-form-urlencoded[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE
)
_PRINTABLE: Final = bytes(range(0x21, 0x7F))
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters of a request by name. A parameter without a value is as good as absent (RFC 6749 §3.2)."""

    values: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str | None:
        """The value of a parameter that may stand once, None if it is absent."""
        found = self.values.get(name)
        return found[0] if found else None

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a parameter that may be repeated, in order."""
        return self.values.get(name, ())


def read_form(incoming: Incoming, repeatable: frozenset[str] = frozenset()) -> Form:
    """Read the form of a POST request; only parameters in `repeatable` may stand more than once.

    Raises MALFORMED or TOO_LARGE, with the HTTP status 405, 413 or 415 where that is the matter. A query string is
    refused, not skipped: what stands there stands in logs too (RFC 6749 §2.3.1, RFC 9700 §4.3.2).
    """
    if incoming.method != "POST":
        raise Refusal(METHOD_NOT_ALLOWED, why="not POST")
    if incoming.target.partition("?")[2]:
        raise Refusal(MALFORMED, why="a query string")
    if not _MEDIA_TYPE.fullmatch(incoming.headers.get("content-type", "")):
        raise Refusal(UNSUPPORTED_MEDIA_TYPE, why="not a form in UTF-8")
    if incoming.fault == "too_large" or len(incoming.body) > MAX_BODY_BYTES:
        raise Refusal(BODY_TOO_LARGE, why="the body", max_bytes=MAX_BODY_BYTES)
    if incoming.fault:
        raise Refusal(MALFORMED, why="the body does not arrive whole")
    return parse(incoming.body, repeatable)


def parse(body: bytes, repeatable: frozenset[str] = frozenset()) -> Form:
    """Parse a form body. Raises MALFORMED or TOO_LARGE.

    Everything that the encoding does not produce is refused: raw spaces, controls and non-ASCII, a `%` without two
    digits, escapes that are no UTF-8. A repeated parameter is refused even where one of the two is empty.
    """
    if body.translate(None, delete=_PRINTABLE):
        raise Refusal(MALFORMED, why="the form is not encoded rightly")
    pairs = [piece.partition("=") for piece in body.decode("ascii").split("&") if piece]
    if len(pairs) > MAX_PARAMETERS:
        raise Refusal(BODY_TOO_LARGE, why="too many parameters", max_parameters=MAX_PARAMETERS)
    values: dict[str, tuple[str, ...]] = {}
    for encoded_name, _, encoded_value in pairs:
        name, value = _decode(encoded_name), _decode(encoded_value)
        before = values.get(name)
        if before is not None and name not in repeatable:
            raise Refusal(MALFORMED, why="a repeated parameter")
        values[name] = (before or ()) + ((value,) if value else ())
    return Form(values)


def _decode(text: str) -> str:
    spaced = text.replace("+", " ")
    if "%" not in spaced:
        return spaced
    if _LONE_PERCENT.search(spaced):
        raise Refusal(MALFORMED, why="the form is not encoded rightly")
    try:
        return unquote_to_bytes(spaced).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(MALFORMED, why="the form is not UTF-8") from None
