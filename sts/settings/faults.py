"""Faults of a configuration: where a fault is, what is wrong, and what would be right."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sts.errors import StartError
from sts.options import Section, parse_duration, show_duration

Trail = tuple[str | int, ...]
"""A path into the configuration: keys and list positions."""

LATER: Final = "not supported yet"
_LATER_HINT: Final = "a later release builds it; leave it out until then"
_SHOWN: Final = 80
_WORDS: Final = 24
_SUBJECT: Final = re.compile(r"^(Input|String|Tuple|List|Dictionary|Value) should")
_KINDS: Final = {
    "model_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
_HINTS: Final = {
    "bool_type": "without quotes; yes, no, on and off are texts here (YAML 1.2)",
    "int_type": "without quotes",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value is written: the file as the user named it, the line (from 1), and the path."""

    file: str
    line: int
    path: Trail


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `file` and `line` (0: the whole file), the dotted `path`, the problem, and a hint."""

    file: str
    line: int
    path: str
    problem: str
    hint: str = ""

    @property
    def place(self) -> str:
        """`file:line`, the form that editors and terminals open."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        """Format the fault on one line."""
        words = "  ".join(part for part in (self.place, self.path, self.problem) if part)
        return printable(f"{words}; {self.hint}" if self.hint else words)


class SettingsError(StartError):
    """The configuration has faults: all that were found, in the order of files and lines."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line)))
        super().__init__("\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[SettingsError], tuple[tuple[Fault, ...]]]:
        """Support pickling, so that the error can be sent between processes."""
        return type(self), (self.faults,)


class OptionError(SettingsError):
    """The faults are in an option of the command line, not in the configuration."""


def printable(text: str) -> str:
    """Escape text from a file: control characters must not control the terminal, line breaks not fake a line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def dotted(path: Trail) -> str:
    """Format a path as `clients.edge.secrets[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def near(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word nearest to `word`, or with the known words if none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    shown = ", ".join(words[:_WORDS]) + (", …" if len(words) > _WORDS else "")
    return f"known here: {shown}" if words else "no names are known here"


def not_yet(name: str) -> tuple[str, str]:
    """Return problem and hint for a word of the documented contract that is not supported yet."""
    return f"`{name}` is {LATER}", _LATER_HINT


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault without file and line; `Document.fault` adds them."""

    path: Trail
    problem: str
    hint: str = ""


def findings(error: ValidationError, model: type[Section], base: Trail, at: Trail) -> Iterator[Finding]:
    """Translate pydantic's errors about the value at `at` within a `model` at `base` into our own messages.

    A message quotes a value only if the value cannot be a secret: names, keys and choices.
    """
    seen: set[Trail] = set()
    for detail in error.errors(include_url=False):
        loc = (*at, *detail["loc"])
        key = loc[-1:] == ("[key]",)
        path = loc if detail["type"] in {"extra_forbidden", "missing"} else _within(model, loc[:-1] if key else loc)
        if path in seen and not key and len(path) < len(loc):
            continue  # another branch of a union that is already reported
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # too short only because an invalid element, already reported, is missing
        seen.add(path)
        problem, hint = _describe(detail, model, path)
        yield Finding((*base, *path), problem, hint)


def _describe(detail: ErrorDetails, model: type[Section], path: Trail) -> tuple[str, str]:
    kind, value = detail["type"], detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    hint = described(model, path)
    if kind == "missing":
        problem = f"`{path[-1]}` is missing"
    elif kind == "extra_forbidden":
        problem, hint = unknown_key(str(path[-1]), _model_at(model, path[:-1]))
    elif kind == "value_error":
        problem, hint = str(context["error"]), ""
    elif kind == "literal_error":
        owner = _model_at(model, path[:-1])
        if owner is not None and isinstance(value, str) and value in owner.not_yet_values.get(str(path[-1]), ()):
            return not_yet(value)
        problem = f"{quote(value)} is not one of: {str(context['expected']).replace(' or ', ', ')}"
    elif kind == "string_pattern_mismatch":
        problem = f"{quote(value)} does not fit {context['pattern']}"
    elif kind in _BOUNDS and _is_duration(model, path):
        key, words = _BOUNDS[kind]
        problem = f"{words} {_show_bound(context[key])}"
    else:
        problem = _KINDS.get(kind) or _SUBJECT.sub("should", detail["msg"])
        hint = _HINTS.get(kind, hint)
    return problem, hint


def _is_duration(model: type[BaseModel], path: Trail) -> bool:
    field = _field_at(model, path)
    if field is None:
        return False
    inner = [part for part in typing.get_args(field.annotation) if typing.get_origin(part) is typing.Annotated]
    metadata = [*field.metadata, *(one for part in inner for one in typing.get_args(part)[1:])]
    return any(isinstance(one, BeforeValidator) and one.func is parse_duration for one in metadata)


def _show_bound(seconds: float) -> str:
    """Format a limit in seconds; a day as 24h."""
    return "24h" if seconds == 86400 else show_duration(seconds)


def unknown_key(name: str, model: type[BaseModel] | None) -> tuple[str, str]:
    """Return problem and hint for a key that `model` does not have."""
    if model is not None and issubclass(model, Section) and name in model.not_yet:
        return not_yet(name)
    return "unknown key", near(name, model.model_fields if model is not None else ())


def quote(value: object) -> str:
    """Quote a value for a message, shortened if it is long; of a list or a mapping only its type."""
    text = value if isinstance(value, str) else type(value).__name__ if isinstance(value, dict | list) else str(value)
    return f'"{text[:_SHOWN]}…"' if len(text) > _SHOWN else f'"{text}"'


def described(model: type[BaseModel], path: Trail) -> str:
    """Return the first sentence of the documentation of the setting at `path`."""
    for length in range(len(path), 0, -1):
        field = _field_at(model, path[:length])
        if field is not None and field.description:
            return " ".join(field.description.split()).split(". ")[0].rstrip(".")
    return ""


def _field_at(model: type[BaseModel], path: Trail) -> FieldInfo | None:
    owner = _model_at(model, path[:-1])
    return owner.model_fields.get(str(path[-1])) if owner is not None and path else None


def _model_at(model: type[BaseModel], path: Trail) -> type[Section] | None:
    """Return the section at `path` within `model`, or None if there is no section."""
    found = _type_at(model, path)
    sections = [part for part in _alternatives(found) if isinstance(part, type) and issubclass(part, Section)]
    return sections[0] if sections else None


def _within(model: type[BaseModel], loc: Trail) -> Trail:
    """Return the part of pydantic's `loc` that is a path in the configuration, without the names of union branches."""
    for length in range(len(loc), 0, -1):
        if _type_at(model, loc[:length]) is not None:
            return loc[:length]
    return ()


def _type_at(model: Any, path: Trail) -> Any:  # noqa: ANN401 - walks type expressions
    """Return the type expression at `path`, or None if the types do not lead there."""
    here: Any = model
    for part in path:
        here = next((found for option in _alternatives(here) if (found := _step(option, part)) is not None), None)
        if here is None:
            return None
    return here


def _step(option: Any, part: str | int) -> Any:  # noqa: ANN401 - see _type_at
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if isinstance(option, type) and issubclass(option, BaseModel):
        field = option.model_fields.get(str(part))
        return field.annotation if field is not None else None
    if origin in {dict, Mapping} and isinstance(part, str):
        return arguments[1]
    if origin in {tuple, list, frozenset, set} and isinstance(part, int):
        return arguments[0]
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - see _type_at
    """Unfold `Annotated`, `Optional` and unions."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in {typing.Union, types.UnionType}:
        for option in typing.get_args(annotation):
            yield from _alternatives(option)
    else:
        yield annotation
