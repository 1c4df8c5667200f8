"""Base64url and JSON with one possible reading: a text that two parsers would read differently is refused."""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 32
"""Maximum nesting of arrays and objects. A claims set needs a few levels; a stack overflow needs a thousand."""

ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""The characters of base64url (RFC 4648 §5); padding is not among them (RFC 7515 §2)."""

_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_LAST: Final = {0: ALPHABET, 1: b"AEIMQUYcgkosw048", 2: b"AQgw", 3: b""}  # last character by missing padding
# An unterminated string matches to the end of the text, so that the search stays linear.
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class UnfitError(ValueError):
    """A document, token part or key cannot be used; the text is a sentence without any of its content."""


def decode_base64url(part: bytes) -> bytes:
    """Decode `part`; the caller has checked its characters against ALPHABET. Raises UnfitError.

    Unused bits must be zero. Otherwise several texts would mean the same bytes, and a token that was refused or revoked
    by its text could come back as another text.
    """
    missing = -len(part) % 4
    if part and part[-1] not in _LAST[missing]:
        raise UnfitError("it is not strict base64url")
    return a2b_base64(part.translate(_TO_STANDARD) + b"==="[:missing])


def encode_base64url(data: bytes) -> bytes:
    """Encode without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def strict_json(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse JSON: UTF-8 without BOM, no duplicate member at any depth, finite numbers, limited nesting.

    No text may contain NUL or half a surrogate pair, so that every parsed value can be written again
    (RFC 8725 §3.7, RFC 8259 §8, RFC 7493 §2). Raises UnfitError.
    """
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        value = _DECODER.decode(text)
    except UnfitError:
        raise
    except ValueError:  # not UTF-8, not JSON, or a number with more digits than Python parses
        raise UnfitError("it is not JSON in UTF-8") from None
    if "\\u" in text:  # only escapes can give NUL and lone surrogates: raw ones are refused above
        _check_texts(value)
    return value


def write_json(value: object) -> bytes:
    """Write JSON without white space. Raises ValueError for NaN and infinity, TypeError for other values than JSON."""
    return _ENCODER.encode(value).encode("ascii")


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:  # an upper bound of the depth, almost always sufficient
        return
    depth = 0
    for found in _STRUCTURE.finditer(text):
        first = found[0][0]
        if first != '"':
            depth += 1 if first in "[{" else -1
        if depth > MAX_DEPTH:
            raise UnfitError("it is nested too deeply")


def _check_texts(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise UnfitError("a text holds NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_texts(name)
            _check_texts(member)
    elif isinstance(value, list):
        for member in value:
            _check_texts(member)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnfitError("a member is there twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400
        raise UnfitError("a number is not finite")
    return number


def _not_a_number(_text: str) -> NoReturn:
    raise UnfitError("a number is not finite")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_not_a_number)
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
