"""Settings for people and their editors: in force as YAML, and as a schema."""

from __future__ import annotations

from typing import Any, Final

import yaml

from sts.settings.model import MERGED, Settings

_WITH_DEFAULTS: Final = {"client": "clients", "source": "sources", "audience": "audiences", "route": "routes"}
"""Which section each part of `defaults` is merged into."""


def effective(settings: Settings) -> str:
    """The configuration in force as YAML: defaults and included files merged, secrets masked."""
    values = settings.model_dump(mode="json", exclude=set(MERGED), exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of what a user may write."""
    written = Settings.model_json_schema()
    sections, definitions = written["properties"], written["$defs"]
    listen = {"$ref": sections["listen"].pop("$ref")}
    sections["listen"]["anyOf"] = [{"type": "string"}, listen]
    sections["secret"]["anyOf"] = [place for place in sections["secret"]["anyOf"] if place["type"] == "object"]
    previous = {"anyOf": [dict(place) for place in sections["secret"]["anyOf"]]}
    for place in sections["secret"]["anyOf"]:
        place["properties"] = {**place["properties"], "previous": previous}
    for properties in (sections, *(definition.get("properties", {}) for definition in definitions.values())):
        for value in properties.values():
            if "anyOf" in value:  # a key is left out, never written with nothing behind it
                value["anyOf"] = [form for form in value["anyOf"] if form != {"type": "null"}]
    for kind, section in _WITH_DEFAULTS.items():
        sections[section]["additionalProperties"] = False  # a name that fits no pattern
        (entry,) = sections[section]["patternProperties"].values()
        for one in entry.get("anyOf", [entry]):
            # Any required key of an entry may come from `defaults` instead, which a schema cannot see; but for the one
            # that says which kind it is, as long as there are several.
            definition = definitions[one["$ref"].rpartition("/")[2]]
            choice = [name for name in ("type", "auth") if name in definition.get("required", ()) and "anyOf" in entry]
            definition.pop("required", None)
            if choice:
                definition["required"] = choice
        shared = definitions["Defaults"]["properties"]
        shared[kind] = {"description": shared[kind]["description"], **entry}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **written, "title": "sts"}
