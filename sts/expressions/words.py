"""What goes wrong with an expression: in words for its author, or as a class of fault that names no data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import ClassVar, Final

from sts.errors import StsError

FUNCTIONS: Final = frozenset(
    {
        "base64.decode",
        "base64.encode",
        "contains",
        "endsWith",
        "exists",
        "filter",
        "first",
        "getDayOfWeek",
        "getHours",
        "hasValue",
        "ip_in",
        "join",
        "last",
        "lookup",
        "lowerAscii",
        "matches",
        "optMap",
        "optional.none",
        "orValue",
        "replace",
        "size",
        "split",
        "startsWith",
        "string",
        "substring",
        "timestamp",
        "trim",
        "upperAscii",
    }
)
"""What rules call; a misspelt name is compared with it."""
_OTHERWISE: Final = {
    "any": "exists",
    "b64decode": "base64.decode",
    "cidr": "ip_in",
    "coalesce": "orValue",
    "default": "orValue",
    "len": "size",
    "length": "size",
    "lower": "lowerAscii",
    "lowercase": "lowerAscii",
    "orelse": "orValue",
    "regex": "matches",
    "strip": "trim",
    "tolower": "lowerAscii",
    "tolowercase": "lowerAscii",
    "toupper": "upperAscii",
    "touppercase": "upperAscii",
    "upper": "upperAscii",
    "uppercase": "upperAscii",
}
"""What other languages call them, without capitals and underscores."""

_POSITION: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_UNKNOWN: Final = re.compile(r"undeclared reference to '(.*?)'")
_OVERLOAD: Final = re.compile(r"found no matching overload for '(.*?)' applied to '(.*?)'")
_UNREAD: Final = re.compile(
    r"(?:token recognition error at: |(?:mismatched|extraneous) input )'(.*?)\s*'(?= expecting <EOF>|$)"
)
_MEANT: Final = {"=": "==", "&": "&&", "|": "||", "and": "&&", "or": "||"}
"""What other languages write, and CEL's own word for it."""
_LONGEST: Final = 200


def readable(message: str, variables: frozenset[str]) -> str:
    """One line out of the library's report: where, and what is wrong."""
    if "recursion" in message:
        return "it is nested too deeply"
    found = _POSITION.search(message)
    if found is None:
        what = message.partition("\n")[0].partition(": ")[2] or "it cannot be compiled"
        return " ".join(what.removeprefix("ERROR: ").rpartition(" [")[0].split())[:_LONGEST]
    line, column, what = found.groups()
    where = f"column {column}" if line == "1" else f"line {line}, column {column}"
    return f"{where}: {_what(what, variables)}"[:_LONGEST]


def offer(name: str, known: Iterable[str]) -> str:
    """Near misses of `name`, else all that is known."""
    near = difflib.get_close_matches(name, sorted(known), n=2, cutoff=0.7)
    return _ask(near) if near else "there is " + (", ".join(f"`{one}`" for one in sorted(known)) or "nothing to read")


def _what(what: str, variables: frozenset[str]) -> str:
    unknown = _UNKNOWN.match(what)
    if unknown and unknown[1] in FUNCTIONS:  # the library knows no function by its name alone
        return f"`{unknown[1]}` is not called like this: it takes other arguments"
    if unknown:
        return f"unknown name or function `{unknown[1].partition('.')[0]}`; {_offer_any(unknown[1], variables)}"
    overload = _OVERLOAD.match(what)
    if overload:
        return f"`{overload[1].strip('@').replace('_', '') or overload[1]}` does not take {overload[2]}"
    if "'<EOF>'" in what:
        return "it ends too early"
    unread = _UNREAD.match(what)
    if unread:
        meant = _MEANT.get(unread[1])
        return f"`{unread[1]}` has no place here" + (f"; did you mean `{meant}`?" if meant else "")
    return " ".join(what.partition(" expecting {")[0].split())


def _offer_any(name: str, variables: frozenset[str]) -> str:
    """What may be meant by a name that is neither a variable nor a function: `claim.sub`, `lower`, `base64.decod`.

    The functions are too many to name them all.
    """
    root, plain = name.partition(".")[0], name.lower()
    other = _OTHERWISE.get(plain.replace("_", ""))
    if other is not None:
        return _ask([other])
    if difflib.get_close_matches(root, variables, cutoff=0.7):
        return offer(root, variables)
    by_plain = {one.lower(): one for one in FUNCTIONS}
    near = [one for one in sorted(by_plain) if one.startswith(f"{plain}.")]  # `base64.decod` is told as `base64`
    near = near or difflib.get_close_matches(plain, sorted(by_plain), n=2, cutoff=0.75)
    return _ask(by_plain[one] for one in near) if near else offer(root, variables)


def _ask(meant: Iterable[str]) -> str:
    return "did you mean " + " or ".join(f"`{one}`" for one in meant) + "?"


# --- what goes wrong when a rule is evaluated -------------------------------------------------------------------------

ABSENT_KEY: Final = "absent key"
ABSENT_VARIABLE: Final = "absent variable"
TYPE_MISMATCH: Final = "type mismatch"
OVERFLOW: Final = "overflow"
BUDGET: Final = "budget"
TOO_DEEP: Final = "too deep"
TOO_LONG: Final = "too long"
EMPTY: Final = "empty"
NOT_AN_ADDRESS: Final = "not an address"
UNSAFE_TEXT: Final = "unsafe text"
NOT_A_SCOPE: Final = "not a scope"
OTHER: Final = "other"


class ExpressionError(StsError, ValueError):
    """An expression is faulty; the text is one line for the operator who wrote it."""


class EvaluationError(StsError):
    """An expression gave no usable result. `why` is a class of fault, never a value of the data.

    Nothing within an expression makes up for it: an outage, a forged address or a spent budget refuses, whatever the
    rule says beside it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class BudgetError(EvaluationError):
    """The evaluation would take more steps than it may."""

    def __init__(self) -> None:
        super().__init__(BUDGET)


class CelError(EvaluationError):
    """An error of the language, which `&&`, `||`, `all` and `exists` absorb where the rest decides.

    Only its subclasses are raised.
    """

    WHY: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(self.WHY)


class AbsentKeyError(CelError):
    """A map has no such key."""

    WHY = ABSENT_KEY


class AbsentVariableError(CelError):
    """The expression reads a variable that the request does not have."""

    WHY = ABSENT_VARIABLE


class MismatchError(CelError):
    """No function or operator of this name takes values of these types."""

    WHY = TYPE_MISMATCH


class OutOfRangeError(CelError):
    """A number, timestamp or duration is larger than its type can hold."""

    WHY = OVERFLOW


class FailedError(CelError):
    """A function does not take this value: an index that is too large, a text that is no number."""

    WHY = OTHER


class RowsWanted(StsError):  # noqa: N818 - no fault: it says what is missing
    """An expression cannot be evaluated before these rows, (table, key), are at hand; its result says nothing yet.

    No EvaluationError, so that nothing on the way takes it for one and decides.
    """

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        super().__init__("rows are wanted")
        self.pairs = pairs
