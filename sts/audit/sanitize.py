"""How texts stand in the audit: one line, bounded, and masked where they look like a token."""

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
    """The facts of a refusal as they are written down: scalars and short texts, in which tokens are masked."""
    return {name: _fact(value) for name, value in [*facts.items()][:_ITEMS]}


def correlation(name: str) -> str | None:
    """The caller's own name for the request, None where it is none that can be written down, or looks like a token."""
    return name if _CORRELATION_ID.fullmatch(name) and mask(name) == name else None


def bounded_text(text: str) -> str:
    """A text that a caller may have chosen: what looks like a token is masked; one line, bounded, plain ASCII."""
    text = mask(text[: 4 * _TEXT]).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= _TEXT else text[:_TEXT] + "..."


def bounded_texts(texts: Iterable[str]) -> list[str]:
    """Texts that a caller may have chosen, as they are written down."""
    return [bounded_text(text) for text in list(texts)[:_ITEMS]]


def _fact(value: object) -> object:
    """A scalar, as JSON takes it. Lists of texts become one text; of anything else only its type is told."""
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
