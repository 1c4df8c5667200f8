r"""What a regular expression may cost, judged at load.

CEL's `matches` is RE2: its time is linear in the text, whatever the pattern. But the library compiles the pattern anew
with every call (measured: `[\pL]{10}` 10 ms, `.{500}` 1 ms), and a pattern whose automaton does not fit RE2's memory
falls back to one step per state and byte (measured: five times `.{0,900}` over 60 KB, 6 s). So a pattern is a literal,
so that no caller brings one, and it is bounded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from cel_expr_python import cel

MAX_PATTERN: Final = 512
"""Characters of a pattern."""
MAX_MATCHED: Final = 65_536
"""Characters of the longest text among the variables of an expression that matches."""
MAX_WEIGHT: Final = 2000
"""About microseconds that one call takes to compile the pattern."""
MAX_WEIGHT_IN_LOOP: Final = 200
"""The same within a macro such as `exists`, which calls it for every element."""

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


def check_pattern(pattern: str, *, in_loop: bool) -> None:
    """Raise ValueError, saying why, for what is no regular expression (RE2 syntax) or might take too long."""
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    program = _matcher()
    found = program.eval(_environment().Activation({"text": "", "pattern": pattern}))
    if found.type().name() != "BOOL":
        why = str(found.value()).partition("regular expression: ")[2] or "RE2 does not take it"
        raise ValueError(f"a pattern is no regular expression of RE2: {why}")
    if weight(pattern) > (MAX_WEIGHT_IN_LOOP if in_loop else MAX_WEIGHT):
        where = " for every element of a list" if in_loop else ""
        raise ValueError(f"a pattern is too costly{where}: repeat less in it, and leave out \\p")


def weight(pattern: str) -> int:
    """What a valid pattern costs to compile, roughly in microseconds: its atoms, as often as they are repeated."""
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


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    """A language of its own for one question: whether RE2 takes a pattern."""
    return cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING})


@lru_cache(maxsize=1)
def _matcher() -> cel.Expression:
    return _environment().compile("text.matches(pattern)")
