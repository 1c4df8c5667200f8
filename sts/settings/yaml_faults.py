"""What the YAML parser says of a file that it cannot read, and what is most often wrong where it stopped."""

from __future__ import annotations

import itertools
import re
from typing import Final

import yaml

from sts.settings.faults import Fault

_BREAK: Final = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line for the parser, whose marks count them."""
_QUOTED: Final = re.compile(r"""[:-]\s+(?:'[^']*'|"[^"]*")\s+$""")
"""A line up to where a quoted value has ended, and something else follows."""
_QUOTE_ALL: Final = (
    "a value that begins with a quote ends with it: quote the whole, such as \"'staff' in identity.roles\""
)


def syntax_fault(shown: str, text: str, error: yaml.MarkedYAMLError) -> Fault:
    """Where the parser stopped in `text`, why, and what is most often wrong there."""
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    if mark is not None and _at_a_tab(text, mark):
        return Fault(shown, mark.line + 1, "", "is not valid YAML: a tab", "indent with spaces")
    context = f" ({error.context} in line {start.line + 1})" if error.context and start else ""
    problem = f"is not valid YAML: {error.problem or 'the parser gave no reason'}{context}"
    hint = _hint(text, error)
    return Fault(shown, mark.line + 1 if mark else 0, "", problem, hint)


def _hint(text: str, error: yaml.MarkedYAMLError) -> str:
    mark, block = error.problem_mark, "block" in (error.context or "")
    before = "" if mark is None else next(itertools.islice(_BREAK.split(text), mark.line, None), "")[: mark.column]
    if block and _QUOTED.search(before):
        return _QUOTE_ALL
    if block:
        return "look at the indentation of this line and the one above"
    if "mapping values" in (error.problem or ""):
        return "look at the indentation of this line and the one above; a text with a colon and a space needs quotes"
    return ""


def _at_a_tab(text: str, mark: yaml.Mark) -> bool:
    """Whether the parser stopped at a tab; libyaml does not say so."""
    line = next(itertools.islice(_BREAK.split(text), mark.line, None), "")
    return line[mark.column : mark.column + 1] == "\t"
