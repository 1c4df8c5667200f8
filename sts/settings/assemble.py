"""Validates each key and each entry of the document separately, so that one fault does not hide another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError

from sts.options import Name, Place, Section
from sts.settings.document import Document
from sts.settings.faults import Finding, Trail, findings, near, not_yet, quote, unknown_key
from sts.settings.model import KINDS, Kinds, Settings

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)


def validate(document: Document, place: Place) -> tuple[list[Finding], dict[str, Any]]:
    """Validate the document.

    Returns the faults, and the values of the valid keys. Of a section with entries it returns the valid entries.
    """
    found: list[Finding] = []
    values: dict[str, Any] = {}
    for name, written in document.value.items():
        if name not in Settings.model_fields:
            found.append(Finding((name,), *unknown_key(name, Settings)))
        elif name in KINDS:
            values[name] = _section(name, document, place, found)
        elif written is not None:
            try:
                values[name] = _adapter(name).validate_python(written, context=place)
            except ValidationError as error:
                found.extend(findings(error, Settings, (), (name,)))
    if "issuer" not in values and not any(finding.path == ("issuer",) for finding in found):
        found.append(Finding(("issuer",), "`issuer` is missing", "such as https://sts.example.internal"))
    found.extend(_faulty_defaults(document, place))
    if "listen" in values:
        values["listen"] = values["listen"].resolved(place.directory)
    empty = {path: _empty_key(path) for path in _nulls(document.value, ()) if len(path) > 1}
    return [*empty.values(), *(finding for finding in found if finding.path not in empty)], values


def _nulls(value: object, path: Trail) -> Iterator[Trail]:
    """Yield the path of every null, at any depth."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nulls(inner, (*path, index))


def _empty_key(path: Trail) -> Finding:
    """Return the fault of an empty key: an `allow:` whose rule is commented out must not allow everything.

    Only a top-level section may be empty; it then has no entries.
    """
    entry = "; {} is an entry with only defaults" if len(path) == 2 and path[0] in KINDS else ""
    return Finding(path, "is empty", f"write a value or leave the key out{entry}")


def _adapter(name: str) -> TypeAdapter[Any]:
    field = Settings.model_fields[name]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)


def _section(section: str, document: Document, place: Place, found: list[Finding]) -> dict[str, Section]:
    """Return the valid entries of a section; adds the faults of the others to `found`."""
    kinds = KINDS[section]
    document.merge_defaults(kinds.entry, section)
    entries = document.value[section] or {}
    if not isinstance(entries, dict):
        found.append(Finding((section,), "must be a mapping of names to settings", f"such as `{section}: {{NAME: …}}`"))
        return {}
    right: dict[str, Section] = {}
    for name, entry in entries.items():
        if entry is None:
            continue  # reported with the empty keys
        problems = [*_wrong_name(section, name), *_wrong_choice(kinds, section, name, entry)]
        if not problems:
            model = kinds.model_of(entry)
            try:
                right[name] = model.model_validate(entry, context=place)
            except ValidationError as error:
                problems.extend(findings(error, model, (section, name), ()))
        found.extend(problems)
    return right


def _wrong_name(section: str, name: str) -> Iterator[Finding]:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        hint = "1 to 128 characters of A-Z a-z 0-9 . _ ~ -"
        yield Finding((section, name), f"{quote(name)} cannot be a name", hint)


def _wrong_choice(kinds: Kinds, section: str, name: str, entry: object) -> Iterator[Finding]:
    """Yield the fault of an unknown kind. The entry is then not validated, because the kind determines its keys."""
    if not kinds.key or not isinstance(entry, dict):
        return
    choice, path = entry.get(kinds.key), (section, name, kinds.key)
    built = [one for one in kinds.models if one not in kinds.later]
    known = ", ".join(f"'{one}'" for one in built)
    if isinstance(choice, str) and choice in kinds.later:
        yield Finding(path, *not_yet(choice))
    elif choice is None and kinds.key not in entry:
        yield Finding(path, f"`{kinds.key}` is missing", f"one of: {known}")
    elif choice is not None and choice not in built:
        yield Finding(path, f"{quote(choice)} is not one of: {known}", near(str(choice), built))


def _faulty_defaults(document: Document, place: Place) -> Iterator[Finding]:
    """Yield the faults of `defaults` themselves, which no entry may show; a missing key is not a fault.

    If a section has several kinds of entries, a default is a fault only if it is invalid for every kind. The entries
    show the fault of a default that is valid for some kinds only.
    """
    defaults = document.value.get("defaults")
    for kinds in KINDS.values():
        shared = defaults.get(kinds.entry) if isinstance(defaults, dict) else None
        if isinstance(shared, dict):
            by_model = [_faults_of(shared, model, kinds.entry, place) for model in kinds.models.values()]
            everywhere = set.intersection(*({one.path for one in found} for found in by_model))
            known = [
                {one.path: one for one in found if one.path in everywhere and not one.problem.startswith("unknown")}
                for found in by_model
            ]
            by_path = {one.path: one for one in by_model[0]} | {
                path: one for found in known for path, one in found.items()
            }
            yield from (by_path[path] for path in sorted(everywhere, key=str))


def _faults_of(shared: dict[str, Any], model: type[Section], entry: str, place: Place) -> list[Finding]:
    try:
        model.model_validate(shared, context=place)
    except ValidationError as error:
        found = findings(error, model, ("defaults", entry), ())
        return [one for one in found if len(one.path) > 2 and one.path[2] in shared]
    return []
