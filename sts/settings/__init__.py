"""The whole configuration: what each part declares beside its code, assembled, checked across parts, and frozen.

`load` lists every fault with file, line and path, or returns settings from which the service can start.

    document     the files as plain values, each with the line where it was written
    assemble     each key and each entry read by itself
    checks       what only the whole can be judged by: names, consent, subjects, rivals
    rules        every rule compiled, every outside file and address looked at
    model        the frozen `Settings`
    advice       what is no fault but may well be a mistake, for `sts check`; how large tokens are likely to be
    loading      all of it, in this order
    asked        `listen` alone, for who only asks how the service is

A name is imported when it is first used: a health check every few seconds must not cost the import of every part.
So no module here may bear the name of something that is offered.
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
    """Import what is offered here when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
