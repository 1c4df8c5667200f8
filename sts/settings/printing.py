"""Prints settings: the configuration in force as YAML, and the JSON Schema for editors."""

from __future__ import annotations

from typing import Any, Final

import yaml

from sts.settings.model import MERGED, Settings

_WITH_DEFAULTS: Final = {"client": "clients", "source": "sources", "audience": "audiences", "route": "routes"}
"""The section into which each part of `defaults` is merged."""


def effective(settings: Settings) -> str:
    """Return the configuration in force as YAML: defaults and included files merged, secrets masked."""
    values = settings.model_dump(mode="json", exclude=set(MERGED), exclude_none=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the configuration file."""
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
            if "anyOf" in value:  # a key must be left out instead of written empty
                value["anyOf"] = [form for form in value["anyOf"] if form != {"type": "null"}]
    for kind, section in _WITH_DEFAULTS.items():
        sections[section]["additionalProperties"] = False  # refuses a name that does not match the pattern
        (entry,) = sections[section]["patternProperties"].values()
        for one in entry.get("anyOf", [entry]):
            # Any required key of an entry may come from `defaults` instead, which a schema cannot check. Only the key
            # that selects the kind is required, if there are several kinds.
            definition = definitions[one["$ref"].rpartition("/")[2]]
            choice = [name for name in ("type", "auth") if name in definition.get("required", ()) and "anyOf" in entry]
            definition.pop("required", None)
            if choice:
                definition["required"] = choice
        shared = definitions["Defaults"]["properties"]
        shared[kind] = {"description": shared[kind]["description"], **entry}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **written, "title": "sts"}
