"""The configuration's files as plain values, each with its file and line.

The values are built from the parser's events, so a file cannot name a Python type. Plain scalars are read as in YAML
1.2 (`on`, `off`, `0o17` and `1:30` are texts). A repeated key is a fault: PyYAML would silently keep the last one
(LIB-Y01: a repeated audience would lose its `allow`). Anchors, aliases and merge keys are refused; `defaults` shares
settings instead. So a small file cannot become huge ("billion laughs"), and each entry means what is written there.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from sts.settings.faults import Fault, Mark, SettingsError, Trail, dotted

_BREAK: Final = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
"""Line breaks as the parser counts them in its marks."""
_QUOTED: Final = re.compile(r"""[:-]\s+(?:'[^']*'|"[^"]*")\s+$""")
"""A line in which text follows a quoted value."""
_QUOTE_ALL: Final = (
    "a value that begins with a quote must end with it: quote the whole, such as \"'staff' in identity.roles\""
)


def syntax_fault(shown: str, text: str, error: yaml.MarkedYAMLError) -> Fault:
    """Return where the parser stopped in `text`, the reason, and a hint about the usual mistake."""
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
    """Return whether the parser stopped at a tab; libyaml does not report that."""
    line = next(itertools.islice(_BREAK.split(text), mark.line, None), "")
    return line[mark.column : mark.column + 1] == "\t"


SECTIONS: Final = ("clients", "sources", "audiences", "routes", "tables")
"""The sections that an included file may contain."""

_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_DEPTH: Final = 32
_STRING_TAGS: Final = frozenset({"!", "tag:yaml.org,2002:str"})
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})\.[0-9]{1,18}")
_UNUSABLE: Final = re.compile("[\0\ud800-\udfff]")
_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Document:
    """A configuration as written: plain values, and the position of each."""

    value: dict[str, Any] = field(default_factory=dict)
    marks: dict[Trail, Mark] = field(default_factory=dict)

    def mark(self, path: Trail) -> Mark:
        """Return where `path` is written; for a missing path, the position of its innermost existing part."""
        for length in range(len(path), -1, -1):
            found = self.marks.get(path[:length])
            if found is not None:
                return found if length == len(path) else Mark(found.file, found.line, (*found.path, *path[length:]))
        return Mark("", 0, path)

    def fault(self, path: Trail, problem: str, hint: str = "") -> Fault:
        """Return the fault at `path`, with file and line."""
        mark = self.mark(path)
        return Fault(mark.file, mark.line, dotted(mark.path), problem, hint)

    def merge_defaults(self, kind: str, section: str) -> None:
        """Add the keys of `defaults.<kind>` to every entry of `section` that does not write them itself.

        Keys are not merged deeply. A fault in a default is reported where the default is written.
        """
        defaults, entries = self.value.get("defaults"), self.value.get(section)
        shared = defaults.get(kind) if isinstance(defaults, dict) else None
        if not isinstance(shared, dict) or not isinstance(entries, dict):
            return
        marks = [(path[2:], mark) for path, mark in self.marks.items() if path[:2] == ("defaults", kind)]
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                continue  # reported when the settings are validated
            entries[name] = {**shared, **entry}
            for path, mark in marks:
                if path and path[0] not in entry:
                    self.marks[(section, name, *path)] = mark


class _Unreadable(Exception):  # noqa: N818 - carries the fault that ends the reading of one file
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.problem)
        self.fault = fault


@dataclass(slots=True)
class _Builder:
    """Builds one file's values from its events; collects repeated keys and continues."""

    file: str
    events: Iterator[Any]
    marks: dict[Trail, Mark] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def document(self) -> Any:  # noqa: ANN401 - a file may contain any value
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        value = self.node(next(self.events), ())
        next(self.events)  # the document's end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.unreadable(after, (), "a second YAML document begins here", "one file holds one document")
        return value

    def node(self, event: Any, path: Trail) -> Any:  # noqa: ANN401 - PyYAML's events have no types in common
        self.marks.setdefault(path, Mark(self.file, event.start_mark.line + 1, path))
        if getattr(event, "anchor", None) is not None:
            hint = "write the value out, or share it through `defaults`"
            raise self.unreadable(event, path, "YAML anchors and aliases are not read", hint)
        if len(path) > _MAX_DEPTH:
            raise self.unreadable(event, path[:1], f"nested more than {_MAX_DEPTH} deep", "")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if event.tag not in {None, "!"}:
            raise self.unreadable(event, path, f"the YAML tag {event.tag} is not read", "write the plain value")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def sequence(self, path: Trail) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            values.append(self.node(event, (*path, len(values))))
        return values

    def mapping(self, path: Trail) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, path)
            line = event.start_mark.line + 1
            here = (*path, key)
            if key in values:
                first = self.marks[here]
                hint = f"the first one is in line {first.line}; keep one of them"
                self.faults.append(Fault(self.file, line, dotted(here), "written twice", hint))
                kept, self.marks = self.marks, {}
                self.node(next(self.events), here)
                self.marks = kept
                continue
            self.marks[here] = Mark(self.file, line, here)
            values[key] = self.node(next(self.events), here)
        return values

    def key(self, event: Any, path: Trail) -> str:  # noqa: ANN401 - see node
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            raise self.unreadable(event, path, "a key must be a plain text", "")
        if event.value == "<<" and event.implicit[0]:
            raise self.unreadable(event, path, "YAML merge keys are not read", "use `defaults`")
        if _UNUSABLE.search(event.value):
            raise self.unreadable(event, path, "a key holds a NUL or half of a surrogate pair", "")
        return str(event.value)  # a name is a text, even if it looks like a number or a boolean

    def scalar(self, event: Any, path: Trail) -> Any:  # noqa: ANN401 - see node
        plain, text = event.implicit[0], str(event.value)
        if event.tag is not None and event.tag not in _STRING_TAGS:
            raise self.unreadable(event, path, f"the YAML tag {event.tag} is not read", "write the plain value")
        if _UNUSABLE.search(text):  # an escape such as "\\0" in quotes
            raise self.unreadable(event, path, "holds a NUL or half of a surrogate pair", "no name or value has one")
        if not plain or event.tag is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def unreadable(self, event: Any, path: Trail, problem: str, hint: str) -> _Unreadable:  # noqa: ANN401 - see node
        return _Unreadable(Fault(self.file, event.start_mark.line + 1, dotted(path), problem, hint))


def _parse(file: Path, shown: str) -> tuple[Document, list[Fault]]:
    """Read one file. Raises _Unreadable if it cannot be read completely."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        hint = "`sts init` writes a first one" if isinstance(error, FileNotFoundError) else ""
        raise _Unreadable(Fault(shown, 0, "", f"cannot be read: {error.strerror or error}", hint)) from None
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _Unreadable(Fault(shown, line, "", "is not UTF-8 text", "save the file as UTF-8")) from None
    if len(raw) > _MAX_BYTES:
        raise _Unreadable(Fault(shown, 0, "", f"is larger than {_MAX_BYTES} bytes", "split it: `include`"))
    builder = _Builder(shown, iter(yaml.parse(text, Loader=_LOADER)))
    try:
        value = builder.document()
    except yaml.MarkedYAMLError as error:
        raise _Unreadable(syntax_fault(shown, text, error)) from None
    except yaml.YAMLError:
        raise _Unreadable(Fault(shown, 0, "", "holds a character that YAML does not allow", "")) from None
    builder.marks.setdefault((), Mark(shown, 1, ()))
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _Unreadable(Fault(shown, 1, "", "must be a mapping of sections, such as `clients:`", ""))
    return Document(value, builder.marks), builder.faults


def read_alone(path: Path) -> Document:
    """Read one file without its included files; of a repeated key the first is kept.

    Raises SettingsError if the file cannot be read completely.
    """
    try:
        return _parse(path, str(path))[0]
    except _Unreadable as unreadable:
        raise SettingsError([unreadable.fault]) from None


def read(path: Path) -> tuple[Document, list[Fault], bool]:
    """Read the configuration file and all included files into one document.

    Returns the document, the faults, and whether every file could be read completely. If not, the document must not be
    checked any further.
    """
    try:
        document, faults = _parse(path, str(path))
    except _Unreadable as unreadable:
        return Document(), [unreadable.fault], False
    whole = True
    for included in _included(path, document, faults):
        try:
            more, found = _parse(included, str(included))
        except _Unreadable as unreadable:
            faults.append(unreadable.fault)
            whole = False
            continue
        faults.extend(found)
        faults.extend(_add(document, more))
    return document, faults, whole


def _included(path: Path, document: Document, faults: list[Fault]) -> Iterator[Path]:
    """Yield the files that `include` names, each once, sorted by name within one pattern."""
    patterns = document.value.get("include") or []
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list):
        return  # reported when the settings are validated
    seen = {path.resolve()}
    for index, pattern in enumerate(patterns):
        if not isinstance(pattern, str) or not pattern:
            continue
        found = [Path(name) for name in sorted(glob.glob(str(path.parent / pattern)))]  # noqa: PTH207 - takes absolute patterns
        if not found and glob.has_magic(pattern):
            faults.extend(_nowhere(path.parent, pattern, document.mark(("include", index))))
        elif not found:
            hint = "the name counts from the configuration file; a pattern such as conf.d/*.yaml may match no file"
            faults.append(document.fault(("include", index), f"there is no file {path.parent / pattern}", hint))
        for file in found:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _nowhere(directory: Path, pattern: str, mark: Mark) -> Iterator[Fault]:
    """Yield a fault if a pattern's directory is missing. No match is valid, but a misspelt directory drops entries."""
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        directory /= part
    try:
        next(directory.iterdir(), None)
    except OSError as error:
        hint = "the name counts from the configuration file; an empty directory is allowed"
        problem = f"the directory {directory} cannot be read: {error.strerror}"
        yield Fault(mark.file, mark.line, dotted(mark.path), problem, hint)


def _add(document: Document, more: Document) -> Iterator[Fault]:
    """Move an included file's entries into `document`. An existing name is a fault, and the first entry is kept."""
    for section, entries in more.value.items():
        if section not in SECTIONS:
            hint = f"an included file holds only {', '.join(SECTIONS)}"
            yield more.fault((section,), "does not belong into an included file", hint)
        elif entries is not None and not isinstance(entries, dict):
            yield more.fault((section,), "must be a mapping of names to settings")
        else:
            yield from _add_section(document, more, section, entries or {})


def _add_section(document: Document, more: Document, section: str, entries: dict[str, Any]) -> Iterator[Fault]:
    target = document.value.get(section)
    if target is None:
        target = document.value[section] = {}
        document.marks[(section,)] = more.mark((section,))
    if not isinstance(target, dict):
        return  # reported when the settings are validated
    added = set()
    for name, entry in entries.items():
        if name in target:
            first = document.mark((section, name))
            hint = f"it is also in {first.file}:{first.line}; keep one of them"
            yield more.fault((section, name), f"the name {name} is defined twice", hint)
        else:
            target[name] = entry
            added.add(name)
    document.marks.update(
        (path, mark) for path, mark in more.marks.items() if len(path) > 1 and path[0] == section and path[1] in added
    )
