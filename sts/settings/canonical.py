"""A canonical form of settings, so that two of them can be told apart by a hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, SecretStr


def digest(*values: object) -> str:
    """SHA-256, in hex, over a canonical form of `values` in which secrets stand as they are.

    It is kept in memory only: whoever has the digest of a short secret could guess it.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")
