"""From the document to settings: each key and each entry read by itself, so that one fault does not hide another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError

from sts.clients.secret import SecretClient
from sts.credentials.jwt import JwtSource
from sts.edge.routes import RouteSettings
from sts.mint.settings import KeysSettings
from sts.options import Name, Place, Section
from sts.policy.settings import AudienceSettings
from sts.settings.document import Document
from sts.settings.faults import Finding, Later, Trail, findings, near, not_yet, quote, unknown_key
from sts.settings.model import Settings

KINDS: Final[Mapping[str, tuple[str, type[Section]]]] = {
    "clients": ("client", SecretClient),
    "sources": ("source", JwtSource),
    "audiences": ("audience", AudienceSettings),
    "routes": ("route", RouteSettings),
}

_CHOICES: Final[Mapping[str, tuple[str, str, frozenset[str], str]]] = {
    "clients": (
        *("auth", "secret", frozenset({"private_key_jwt", "tls", "network", "access_token"})),
        "secret: HTTP Basic or form at /token, X-Gateway-Secret at /forward-auth",
    ),
    "sources": (
        *("type", "jwt"),
        frozenset({"introspection", "client_certificate", "api_key", "signed_request", "self_signed_jwt", "vouched"}),
        "",
    ),
}
"""Sections with kinds of entries: the key that says which, the kind that is built, the contract's others,
and what the kind that is built means, where its name does not say it."""

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)

_LATER: Final[Later] = {
    (AudienceSettings, "format"): frozenset({"jwe", "txn_token", "passthrough", "unsigned_jwt", "headers"}),
    (AudienceSettings, "algorithm"): frozenset({"ES384", "RS256", "PS256", "Ed25519"}),
    (KeysSettings, "algorithm"): frozenset({"ES384", "RS256", "PS256", "Ed25519"}),
    (KeysSettings, "store"): frozenset({"redis"}),
}


def validate(document: Document, place: Place) -> tuple[list[Finding], dict[str, Any]]:
    """Read what the document says.

    Returns what is wrong, and the values of the keys that are right; of a section with entries those entries.
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
                found.extend(findings(error, Settings, (), (name,), _LATER))
    if "issuer" not in values and not any(finding.path == ("issuer",) for finding in found):
        found.append(Finding(("issuer",), "`issuer` is missing", "such as https://sts.example.internal"))
    found.extend(_faulty_defaults(document, place))
    if "listen" in values:
        values["listen"] = values["listen"].resolved(place.directory)
    empty = {path: _nothing(path) for path in _nulls(document.value, ()) if len(path) > 1}
    return [*empty.values(), *(finding for finding in found if finding.path not in empty)], values


def _nulls(value: object, path: Trail) -> Iterator[Trail]:
    """Where a null is written, at any depth."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _nulls(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nulls(inner, (*path, index))


def _nothing(path: Trail) -> Finding:
    """A key with nothing behind it: `allow:` whose rule is commented out must not open what it was written to close.

    Only what stands at the top may be left empty: a section without entries.
    """
    entry = "; {} is an entry of nothing but defaults" if len(path) == 2 and path[0] in KINDS else ""
    return Finding(path, "is written with nothing behind it", f"write a value or leave the key out{entry}")


def _adapter(name: str) -> TypeAdapter[Any]:
    field = Settings.model_fields[name]
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)


def _section(section: str, document: Document, place: Place, found: list[Finding]) -> dict[str, Section]:
    """The entries of a section that are right in themselves; what is wrong with the others goes into `found`."""
    kind, model = KINDS[section]
    document.merge_defaults(kind, section)
    entries = document.value[section] or {}
    if not isinstance(entries, dict):
        found.append(Finding((section,), "must be a mapping of names to settings", f"such as `{section}: {{NAME: …}}`"))
        return {}
    right: dict[str, Section] = {}
    for name, entry in entries.items():
        if entry is None:
            continue  # told with all that is empty
        problems = [*_wrong_name(section, name), *_wrong_choice(section, name, entry)]
        if not problems:
            try:
                right[name] = model.model_validate(entry, context=place)
            except ValidationError as error:
                problems.extend(findings(error, model, (section, name), (), _LATER))
        found.extend(problems)
    return right


def _wrong_name(section: str, name: str) -> Iterator[Finding]:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        hint = "1 to 128 characters of A-Z a-z 0-9 . _ ~ -"
        yield Finding((section, name), f"{quote(name)} cannot be a name", hint)


def _wrong_choice(section: str, name: str, entry: object) -> Iterator[Finding]:
    """An entry of another kind is judged by nothing else: its keys are not those of the kind that is built."""
    if section not in _CHOICES or not isinstance(entry, dict):
        return
    key, built, later, meaning = _CHOICES[section]
    choice = entry.get(key)
    if isinstance(choice, str) and choice in later:
        yield Finding((section, name, key), *not_yet(choice))
    elif choice is not None and choice != built:
        hint = meaning or near(str(choice), (built,))
        yield Finding((section, name, key), f"{quote(choice)} is not one of: '{built}'", hint)


def _faulty_defaults(document: Document, place: Place) -> Iterator[Finding]:
    """What is wrong with the defaults in themselves, where no entry may show it; what they leave out is no fault."""
    defaults = document.value.get("defaults")
    for kind, model in KINDS.values():
        shared = defaults.get(kind) if isinstance(defaults, dict) else None
        if not isinstance(shared, dict):
            continue
        try:
            model.model_validate(shared, context=place)
        except ValidationError as error:
            for finding in findings(error, model, ("defaults", kind), (), _LATER):
                if len(finding.path) > 2 and finding.path[2] in shared:
                    yield finding
