"""Files of API keys that were made elsewhere: CSV with a header line, or one JSON object a line."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any, Final

from sts.cli import common
from sts.settings import Settings
from sts.state.api_keys import ApiKey
from sts.state.key_text import digest, imported_id, is_ours

MAX_TEXT: Final = 256
COLUMNS: Final = frozenset({"key", "sha256", "owner", "tenant", "scopes", "audiences", "tier", "expires_at"})


def rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file with their numbers. Ends the command where they cannot be read."""
    try:
        if text.lstrip().startswith("{"):
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    row = json.loads(line)
                    yield number, row if isinstance(row, dict) else {}
        else:
            reader = csv.DictReader(io.StringIO(text), strict=True)
            for row in reader:
                yield reader.line_num, dict(row)
    except (ValueError, csv.Error) as error:
        common.fail(f"the file cannot be read: {type(error).__name__}")


def imported(settings: Settings, source: str, prefix: str, row: dict[str, Any]) -> ApiKey:
    """One key of a file. Raises ValueError with what is wrong, and never with the key."""
    unknown = [str(name) for name in row if name not in COLUMNS]
    if unknown:
        raise ValueError(f"unknown column {unknown[0]}")
    hashed = _digest(prefix, row)
    audiences = tuple(_words(row.get("audiences")))
    missing = [one for one in audiences if one not in settings.audiences]
    if missing:
        raise ValueError(f"there is no audience {missing[0]}")
    try:
        expires = int(row["expires_at"]) if row.get("expires_at") else None
    except (TypeError, ValueError):
        raise ValueError("`expires_at` is Unix seconds") from None
    return ApiKey(
        id=imported_id(hashed),
        source=source,
        owner=checked_text("owner", row.get("owner")),
        digest=hashed,
        created_at=int(time.time()),
        tenant=checked_text("tenant", row["tenant"]) if row.get("tenant") else None,
        scopes=tuple(dict.fromkeys(_words(row.get("scopes")))),
        audiences=audiences,
        tier=checked_text("tier", row["tier"]) if row.get("tier") else None,
        expires_at=expires,
        imported=True,
    )


def _digest(prefix: str, row: dict[str, Any]) -> str:
    text, hashed = str(row.get("key") or ""), str(row.get("sha256") or "").lower()
    if bool(text) == bool(hashed):
        raise ValueError("write either `key` or `sha256`")
    if text:
        return digest(_importable(prefix, text))
    if len(hashed) != 64 or not set(hashed) <= set("0123456789abcdef"):
        raise ValueError("`sha256` is 64 hex digits")
    return hashed


def _importable(prefix: str, text: str) -> str:
    if not text.startswith(prefix):
        raise ValueError(f"the key does not begin with {prefix}")
    if is_ours(prefix, text):
        raise ValueError("the key has the shape of those made here, whose last characters are a checksum")
    if len(text) > MAX_TEXT or not text.isascii() or not text.isprintable() or " " in text or "," in text:
        raise ValueError(f"a key is at most {MAX_TEXT} visible ASCII characters without comma")
    if len(text) - len(prefix) < 8:
        raise ValueError("the key is too short behind its prefix")
    return text


def _words(value: object) -> list[str]:
    return [checked_text("list", one) for one in (value if isinstance(value, list) else str(value or "").split())]


def checked_text(name: str, value: object) -> str:
    """`value` where it is a printable text of bounded length. Raises ValueError."""
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError(f"`{name}` is a printable text of at most {MAX_TEXT} characters")
    return value
