"""Writes docs/configuration.md from the settings in the code, so that the page is never out of date.

python scripts/configuration_docs.py            writes the page
python scripts/configuration_docs.py --check    exit status 1 if the page is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from sts.audit.log import AuditSettings
from sts.cache.tokens import CacheSettings
from sts.credentials.introspection import Match
from sts.edge.certificate_headers import ProxySettings
from sts.edge.forward_auth import ForwardAuthSettings
from sts.lookups.opa import OpaSettings
from sts.mint.settings import KeysSettings
from sts.options import Section
from sts.redis_link import RedisSettings
from sts.settings import Settings, schema
from sts.settings.listen import Listen, ListenTls, ShutdownSettings
from sts.settings.loading import NEEDS_RESTART
from sts.settings.model import KINDS, Defaults
from sts.state import OnOutage, StateSettings
from sts.trust.recipients import EncryptionSettings

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

NAMED: Final = {"5m": "duration", "64MB": "size", "127.0.0.0/8": "networks"}
"""What has a name of its own, by the example in its schema."""

INTRODUCTION: Final = """\
# Configuration

<!-- Written by scripts/configuration_docs.py from the code: change the code, then run it. -->

One YAML file, `sts.yaml` unless `$STS_CONFIG` or `--config` says otherwise. `sts init` writes a first one,
`sts check` lists everything that is wrong in one, `sts check --effective` prints what is in force and
`sts check --schema` a JSON Schema for editors.

- **Closed by default**: unknown and repeated keys are faults, each with file, line and path.
- **YAML**: plain scalars are read as in YAML 1.2 (`on` and `0o17` are texts). Anchors, aliases, merge keys and tags
  are refused; `defaults` is the way to share.
- **Files**: relative names, `var` too, count from the configuration file.
- **Durations** are a whole number and a unit (`ms s m h d`), **sizes** a whole number and `B KB MB GB KiB MiB GiB`.
- **Secrets** are `{file: PATH}`, `{env: NAME}` or, if that is harmless, a text. A file is read again at each
  reload; a variable is read once, at the start.
- **`include`** names more files, relative to the configuration file, by name or pattern (`conf.d/*.yaml`). They hold
  `clients`, `sources`, `audiences`, `routes` and `tables` only. A name defined twice is a fault, and so is a plain
  name without its file; a pattern may match no file.
- **`defaults`** are merged into every entry of their section. A key that an entry writes itself wins as a whole:
  lists and mappings are not mixed.
- **Consent** has three parts: the client lists the audience, the source lists the audience, the client lists the
  source. From two sources on (disabled and included ones count) all of them must be written, and each source's
  `namespace`.
- **A reload** (SIGHUP) is refused as a whole if there is any fault, or if it changes a setting that needs a restart:
  {restart}.
"""

SECTIONS: Final[tuple[tuple[str, type[Section], str], ...]] = (
    ("The file as a whole", Settings, ""),
    ("`listen`", Listen, "Written as an address alone, or as a mapping:"),
    ("`listen.tls`", ListenTls, ""),
    ("`shutdown`", ShutdownSettings, ""),
    ("`proxies`", ProxySettings, "A list, of which each entry has:"),
    ("`redis`", RedisSettings, "One server for all parts with `redis`; `cache.shared` may have a separate one:"),
    ("`keys`", KeysSettings, ""),
    ("`state`", StateSettings, ""),
    ("`state.on_outage`", OnOutage, ""),
    ("`cache`", CacheSettings, ""),
    ("`audit`", AuditSettings, ""),
    ("`opa`", OpaSettings, ""),
    ("`forward_auth`", ForwardAuthSettings, ""),
    ("`defaults`", Defaults, "Each holds keys of the entries of its section:"),
)

ENTRIES: Final = {
    "clients": "one entry per gateway, by client id",
    "sources": "one entry per origin of credentials",
    "audiences": "one entry per backend",
    "tables": "one entry per table that rules look up",
    "routes": "one entry per route",
}

NESTED: Final[tuple[tuple[str, type[Section], str], ...]] = (
    ("`encryption` of an audience", EncryptionSettings, "With `format: jwe` (docs/encryption.md):"),
    ("`match` of an introspection source", Match, "Which opaque tokens are asked about there:"),
)


def render() -> str:
    """Return the whole page."""
    definitions = schema()["$defs"]
    restart = ", ".join(f"`{name}`" for name in NEEDS_RESTART)
    introduction = INTRODUCTION.replace("{restart}", restart)
    return "\n".join([introduction, *(line for section in sections() for line in _section(*section, definitions))])


def sections() -> list[tuple[str, type[Section], str]]:
    """All parts of the page: title, model, introduction."""
    return [*SECTIONS, *_of_kinds(), *NESTED]


def _of_kinds() -> Iterator[tuple[str, type[Section], str]]:
    """The sections with entries; one page part for each kind of entry."""
    for name, kinds in KINDS.items():
        for choice, model in kinds.models.items():
            of = f" with `{kinds.key}: {choice}`" if len(kinds.models) > 1 else ""
            yield f"`{name}`{of}: {ENTRIES[name]}", model, ""


def _section(title: str, model: type[Section], introduction: str, definitions: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    if introduction:
        yield f"{introduction}\n"
    yield "| key | value | default | |\n|---|---|---|---|"
    written = schema() if model is Settings else definitions[model.__name__]
    for name, field in model.model_fields.items():
        value = _words(written["properties"][name])
        yield f"| `{name}` | {value} | {_default(field)} | {_cell(field.description or '')} |"
    if model.not_yet:
        yield f"\nNot supported yet: {', '.join(f'`{name}`' for name in sorted(model.not_yet))}."
    yield ""


def _words(written: dict[str, Any]) -> str:
    """Return a JSON Schema as a short text."""
    if "anyOf" in written:
        return " or ".join(dict.fromkeys(_words(one) for one in written["anyOf"] if one != {"type": "null"}))
    choices = written.get("enum") or ([written["const"]] if "const" in written else [])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if "examples" in written:
        example = str(written["examples"][0])
        return NAMED.get(example, f"such as `{example}`")
    return "section" if "$ref" in written else _by_type(written)


def _by_type(written: dict[str, Any]) -> str:
    kind = written.get("type")
    if kind == "array":
        items = _words(written.get("items", {}))
        return items if items in NAMED.values() else f"list of {items}"
    if kind == "object":
        return f"`{{{', '.join(written['properties'])}: …}}`" if "properties" in written else _mapping(written)
    return {"boolean": "`true`, `false`", "integer": _number(written)}.get(str(kind), "text")


def _mapping(written: dict[str, Any]) -> str:
    values: Any = written.get("additionalProperties") or next(iter(written.get("patternProperties", {}).values()), {})
    return f"name: {_words(values)}" if isinstance(values, dict) and values else "mapping"


def _number(written: dict[str, Any]) -> str:
    if "minimum" in written and "maximum" in written:
        return f"{written['minimum']} to {written['maximum']}"
    return "number"


def _default(field: FieldInfo) -> str:
    """What is in force where the key is left out; the description says it where it depends on something."""
    if field.is_required():
        return "**required**"
    if field.default is None or field.default_factory is not None or isinstance(field.default, Section):
        return ""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    value = TypeAdapter(kind).dump_python(field.default, mode="json")
    if isinstance(value, list):
        return f"`[{', '.join(value)}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    page = render()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PAGE} is out of date: run python scripts/configuration_docs.py", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
