"""The types with which every part declares its settings: the base class, durations, sizes, names, secrets, files.

This module imports no part, so every part can declare its settings beside its code; `sts.settings` assembles them.
Values that depend on the place (a relative file, a secret in the environment) are resolved through the validation
context, a `Place`: this module does not read the environment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from sts.errors import StartError

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES: Final = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION: Final = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h|d)")
_SIZE: Final = re.compile(r"([1-9][0-9]{0,8})(B|KB|MB|GB|KiB|MiB|GiB)")


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file as it was when the configuration was read, so that all processes use the content that was checked.

    `content` is None if the file could not be read; `why` is the reason, and `read` raises it.
    """

    path: Path
    content: bytes | None = field(repr=False)
    why: str = ""

    @classmethod
    def of(cls, path: Path) -> KeptFile:
        """Read `path` now."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            return cls(path, None, error.strerror or type(error).__name__)

    def read(self) -> bytes:
        """Return the content. Raises StartError if the file could not be read."""
        if self.content is None:
            raise StartError(f"{self.path} cannot be read: {self.why}")
        return self.content

    def __str__(self) -> str:
        return str(self.path)


def file_faults(key: str, file: KeptFile | None, read: Callable[[KeptFile], object]) -> Iterator[tuple[str, str]]:
    """Yield `key` and a message if `read` raises StartError for the file; yields no value without a file."""
    if file is None:
        return
    try:
        read(file)
    except StartError as error:
        yield key, str(error)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a configuration: relative files count from `directory`; `environment` is the master's copy.

    A file that several settings name is read once, so that all of them have the same content.
    """

    directory: Path
    environment: Mapping[str, str]
    _files: dict[Path, KeptFile] = field(default_factory=dict, repr=False, compare=False)

    def kept(self, name: str) -> KeptFile:
        """Read the file `name`, or return what an earlier call has read."""
        path = self.directory / name
        return self._files.get(path) or self._files.setdefault(path, KeptFile.of(path))


class Section(BaseModel):
    """A part of the configuration: immutable, unknown keys are refused.

    `not_yet` lists keys of the documented contract that are not supported yet, `not_yet_values` such values of its
    keys; their error is "not supported yet" instead of "unknown key". A field's `description` is its line in
    docs/configuration.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    not_yet: ClassVar[frozenset[str]] = frozenset()
    not_yet_values: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})

    @field_validator("*", mode="before")
    @classmethod
    def _no_look_alike(cls, value: object, info: ValidationInfo) -> object:
        """Accept only `true` and `false` as booleans, in every section: "yes", `on` and 1 are texts and numbers."""
        field = cls.model_fields[info.field_name or ""]
        if field.annotation is bool and not isinstance(value, bool):
            raise PydanticKnownError("bool_type")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Leave the class's own docstring out of the schema: it is for readers of the code."""
        written = handler(schema)
        handler.resolve_ref_schema(written).pop("description", None)
        return written


def parse_duration(value: object) -> float:
    """Parse "90s", "5m", "1h", "30d", "250ms" to seconds. Raises ValueError for any other value, also for a number."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a duration is a whole number and a unit (ms, s, m, h, d), such as "30s" or "5m"')
    return float(int(match[1]) * _UNITS[match[2]])


def show_duration(seconds: float) -> str:
    """Format seconds as a configuration would, in the largest unit that divides them."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % factor == 0:
            return f"{int(seconds) // factor}{unit}"
    return f"{int(seconds)}s"


def parse_size(value: object) -> int:
    """Parse "64MB" or "512KiB" to bytes. Raises ValueError for any other value, also for a number."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size is a whole number and a unit (B, KB, MB, GB, KiB, MiB, GiB), such as "64MB"')
    return int(match[1]) * _SIZES[match[2]]


def show_size(size: int) -> str:
    """Format bytes as a configuration would, in the largest unit that divides them."""
    for unit, factor in sorted(_SIZES.items(), key=lambda one: -one[1]):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def _place(info: ValidationInfo) -> Place:
    place = info.context
    if not isinstance(place, Place):
        raise ValueError("this setting needs a configuration file to be read from")  # noqa: TRY004 - pydantic's way
    return place


def _read_secret(value: object, info: ValidationInfo) -> object:
    """Resolve `{env: NAME}` and `{file: PATH}`; a literal is the secret itself. No error contains the secret."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"env"} and isinstance(value["env"], str):
        found = _place(info).environment.get(value["env"])
        if not found:
            raise ValueError(f"the environment variable {value['env']} is not set")
        return found
    if set(value) == {"file"} and isinstance(value["file"], str):
        path = _place(info).directory / value["file"]
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the secret file {path} cannot be read: {_why(error)}") from None
        if not text:
            raise ValueError(f"the secret file {path} is empty")
        return text
    raise ValueError("a secret is a text, {env: NAME} or {file: PATH}")


def _why(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"


def _resolve_file(value: object, info: ValidationInfo) -> object:
    return _place(info).directory / value if isinstance(value, str) and value else value


def _keep_file(value: object, info: ValidationInfo) -> object:
    if isinstance(value, KeptFile):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("a file is named by its path")
    return _place(info).kept(value)


def _show_file(file: KeptFile, info: SerializationInfo) -> object:
    """Return the file's name for a printed configuration; for a comparison also the SHA-256 of its content."""
    name = str(file)
    return name if info.mode == "json" else {name: hashlib.sha256(file.content or b"").hexdigest()}


def _as_tuple(value: object) -> object:
    """Accept a single text as a list of one."""
    return (value,) if isinstance(value, str) else value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["5m"]}),
]
"""Seconds, written as "5m"."""

ByteSize = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(show_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$", "examples": ["64MB"]}),
]
"""Bytes, written as "64MB"."""


def _one_key(name: str) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    return {"type": "object", "properties": {name: text}, "required": [name], "additionalProperties": False}


_SECRET_SCHEMA: Final = {"anyOf": [{"type": "string", "minLength": 1}, _one_key("env"), _one_key("file")]}

SecretText = Annotated[SecretStr, BeforeValidator(_read_secret), WithJsonSchema(_SECRET_SCHEMA)]
"""A secret: a text, `{env: NAME}` or `{file: PATH}`. Masked wherever it is printed."""

ConfigFile = Annotated[Path, BeforeValidator(_resolve_file), WithJsonSchema({"type": "string", "minLength": 1})]
"""A file, relative to the configuration file. The part that reads the file checks whether it exists."""

KeptConfigFile = Annotated[
    KeptFile,
    BeforeValidator(_keep_file),
    PlainSerializer(_show_file),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""A file whose content is part of the configuration: read together with it, and changed only by a reload."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{1,128}$")]
"""The name of a client, source, audience or route. For clients it is the OAuth client id."""

Namespace = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{0,64}$")]
"""The prefix of a minted `sub`; "" for none."""

SigningAlgorithm = Literal["ES256", "ES384", "RS256", "PS256", "Ed25519"]
"""An algorithm that tokens can be signed with (RFC 7518 §3.1, RFC 9864 §2.2)."""

ScopeToken = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$")]
"""One scope value (RFC 6749 §3.3 `scope-token`)."""

Rule = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
"""A CEL expression. It is compiled when the configuration is checked."""

_NAMES_SCHEMA: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), WithJsonSchema(_NAMES_SCHEMA)]
"""A list of texts; a single text is short for a list of one."""
