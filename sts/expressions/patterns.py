r"""Regular expressions: RE2, whose time is linear in the text whatever the pattern.

The pattern is a literal, so that no caller brings one, and is compiled at load. It is bounded, since an automaton that
does not fit RE2's memory falls back to one step per state and byte (measured: five times `.{0,900}` over 60 KB, 6 s).
So is the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

from sts.expressions.values import Frame
from sts.expressions.words import TOO_LONG, EvaluationError, MismatchError

MAX_PATTERN: Final = 512
"""Characters of a pattern."""
MAX_MATCHED: Final = 65_536
"""Characters of a text that is matched."""
MAX_WEIGHT: Final = 2000
"""Atoms of a pattern, as often as they are repeated; `\\p` counts for many."""
_CHARACTERS_A_STEP: Final = 16

_TOKEN: Final = re.compile(
    r"""
    (?P<property> \\[pP](?:\{[^}]*\}|.) )
  | (?P<quoted> \\Q.*?(?:\\E|\Z) )
  | (?P<escaped> \\x\{[^}]*\} | \\. )
  | (?P<class> \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\] )
  | (?P<open> \((?:\?(?:P?<\w+>|[A-Za-z]*-?[A-Za-z]*:))? )
  | (?P<close> \) )
  | \{(?P<least>\d+)(?P<most>,\d*)?\}
  | (?P<free> [*+?|^$] )
  | (?P<any> \. )
  | (?P<plain> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_PROPERTY: Final = re.compile(r"\\[pP]")
_PROPERTY_WEIGHT: Final = 1000  # hundreds of ranges of characters
_ANY_WEIGHT: Final = 4  # every first byte of UTF-8


def check_pattern(pattern: str) -> None:
    """Raise ValueError, saying why, for what is no regular expression (RE2 syntax) or might take too long."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    try:
        _compiled(pattern)
    except re2.error as error:
        told = error.args[0] if error.args else "RE2 does not take it"
        why = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        raise ValueError(f"a pattern is no regular expression of RE2: {why}") from None
    if weight(pattern) > MAX_WEIGHT:
        raise ValueError("a pattern is too costly: repeat less in it, and leave out \\p")


def matcher(pattern: str) -> Callable[[Frame, Any], bool]:
    """A function that says whether a part of a text matches `pattern`, which `check_pattern` has taken."""
    search = _compiled(pattern).search

    def find(frame: Frame, text: object) -> bool:
        if not isinstance(text, str):
            raise MismatchError
        if len(text) > MAX_MATCHED:
            raise EvaluationError(TOO_LONG)
        frame.charge(len(text) // _CHARACTERS_A_STEP)
        return search(text.encode()) is not None  # of bytes no offsets are counted

    return find


def weight(pattern: str) -> int:
    """What a valid pattern costs: its atoms, as often as they are repeated."""
    totals, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        kind, text = token.lastgroup, token[0]
        if kind == "open":
            totals.append(0)
            continue
        if kind == "close" and len(totals) > 1:
            last = totals.pop()
        elif kind in {"least", "most"}:
            times = int((token["most"] or "").strip(",") or token["least"]) + (token["most"] == ",")
            totals[-1] += last * (times - 1)
            last *= times
            continue
        elif kind == "free":
            continue
        else:
            last = _atom(kind or "", text)
        totals[-1] += last
    return sum(totals)


def _atom(kind: str, text: str) -> int:
    if kind == "property":
        return _PROPERTY_WEIGHT
    if kind == "any":
        return _ANY_WEIGHT
    if kind == "class":
        wide = _ANY_WEIGHT if text[1] == "^" else 1
        return wide + len(text) // 8 + _PROPERTY_WEIGHT * len(_PROPERTY.findall(text))
    return len(text) if kind == "quoted" else 1


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:  # noqa: ANN401 - the module has no types
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern, options)
