"""Make texts safe for the audit log: one line, limited length, and anything that looks like a token masked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from sts.telemetry import mask

_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TEXT: Final = 256
_ITEMS: Final = 16


def bounded_facts(facts: Mapping[str, object]) -> dict[str, object]:
    """Return the facts of a refusal for the audit log: scalars and short texts, with tokens masked."""
    return {name: _fact(value) for name, value in [*facts.items()][:_ITEMS]}


def correlation(name: str) -> str | None:
    """Return the caller's correlation id, None if it is invalid or looks like a token."""
    return name if _CORRELATION_ID.fullmatch(name) and mask(name) == name else None


def bounded_text(text: str) -> str:
    """Return a text that a caller may have chosen, as one ASCII line of limited length with tokens masked."""
    text = mask(text[: 4 * _TEXT]).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _TEXT else text[:_TEXT] + "..."


def bounded_texts(texts: Iterable[str]) -> list[str]:
    """Return texts that a caller may have chosen, limited in number and each as by `bounded_text`."""
    return [bounded_text(text) for text in list(texts)[:_ITEMS]]


def _fact(value: object) -> object:
    """Return a JSON scalar. A list of texts becomes one text; any other value is replaced by its type's name."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "<int>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return bounded_text(value)
    if isinstance(value, set | frozenset):
        value = sorted(map(str, value)) if all(isinstance(item, str) for item in value) else object()
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return bounded_text(" ".join(value))
    return f"<{type(value).__name__}>"
