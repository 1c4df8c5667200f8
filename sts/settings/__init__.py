"""The whole configuration: assembles what each part declares beside its code, checks it across parts, freezes it.

`load` lists every fault with file, line and path, or returns settings with which the service can start.

    document     the files as plain values, each with its line
    assemble     validates each key and each entry separately
    checks       checks that need the whole configuration: names, consent, subjects, conflicting entries
    rules        compiles every rule, and reads every file that the configuration names
    model        the frozen `Settings`
    advice       warnings of `sts check` about likely mistakes; an estimate of token sizes
    loading      all of these, in order
    asked        reads `listen` alone, for health checks

A name is imported at its first use: a health check every few seconds must not import every part. So no module here may
have the name of an exported object.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sts.settings.advice import estimate
    from sts.settings.asked import listening, listening_at
    from sts.settings.environment import Environment, default_config
    from sts.settings.faults import Fault, OptionError, SettingsError, printable
    from sts.settings.loading import changes_needing_restart, examine, load
    from sts.settings.model import Settings
    from sts.settings.printing import effective, schema

__all__ = [
    "Environment",
    "Fault",
    "OptionError",
    "Settings",
    "SettingsError",
    "changes_needing_restart",
    "default_config",
    "effective",
    "estimate",
    "examine",
    "listening",
    "listening_at",
    "load",
    "printable",
    "schema",
]

_MODULES: Final = {
    "advice": ("estimate",),
    "asked": ("listening", "listening_at"),
    "environment": ("Environment", "default_config"),
    "faults": ("Fault", "OptionError", "SettingsError", "printable"),
    "loading": ("changes_needing_restart", "examine", "load"),
    "model": ("Settings",),
    "printing": ("effective", "schema"),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import an exported name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
