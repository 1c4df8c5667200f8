"""How an API key is written: the source's prefix, an id, the secret, a checksum.

The prefix tells people and scanners whose it is; the id is no secret and names the key in lists and the audit; the
checksum tells a mistyped key from an unknown one. Letters and digits only, so that a double click takes all of it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import Final

ID_CHARS: Final = 12
"""71 random bits: two keys of one deployment never share an id."""
SECRET_CHARS: Final = 32
"""190 random bits."""
CHECK_CHARS: Final = 6
MAX_CHARS: Final = 256
"""Characters of a key at most, imported ones included."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY: Final = ID_CHARS + SECRET_CHARS + CHECK_CHARS
_OURS: Final = re.compile(rf"[0-9A-Za-z]{{{_BODY}}}")
_IMPORTED: Final = re.compile(r"[!-+\--~]{8,}")  # visible ASCII but the comma, which joins doubled headers


def make(prefix: str) -> tuple[str, str]:
    """Make a key that begins with `prefix`; returns its id and the whole text, which nobody can make again."""
    key_id, secret = _random(ID_CHARS), _random(SECRET_CHARS)
    return key_id, f"{prefix}{key_id}{secret}{_checksum(prefix + key_id + secret)}"


def id_of(prefix: str, text: str) -> str:
    """The id of a key that begins with `prefix`, made here or imported; "" for what cannot be a key.

    What has the shape of our own keys must have their checksum. An imported key's id is made of its hash.
    """
    body = text[len(prefix) :]
    if _OURS.fullmatch(body):
        return body[:ID_CHARS] if body[-CHECK_CHARS:] == _checksum(text[:-CHECK_CHARS]) else ""
    return imported_id(digest(text)) if len(text) <= MAX_CHARS and _IMPORTED.fullmatch(body) else ""


def is_ours(prefix: str, text: str) -> bool:
    """Whether a text has the shape of a key that was made here."""
    return text.startswith(prefix) and _OURS.fullmatch(text[len(prefix) :]) is not None


def digest(text: str) -> str:
    """What is kept of a key: its SHA-256, in hex. Enough only for keys of high entropy."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def imported_id(key_digest: str) -> str:
    """The id of a key that was made elsewhere; `-` keeps it apart from our own ids."""
    return f"i-{key_digest[:20]}"


def _random(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _checksum(text: str) -> str:
    """CRC-32 in base 62: no proof of anything, since anybody can compute it."""
    value, written = zlib.crc32(text.encode("ascii", "replace")), ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(_ALPHABET))
        written = _ALPHABET[digit] + written
    return written
