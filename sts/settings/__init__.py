"""The whole configuration: what each part declares beside its code, assembled, checked across parts, and frozen.

`load` lists every fault with file, line and path, or returns settings from which the service can start.

    document     the files as plain values, each with the line where it was written
    assemble     each key and each entry read by itself
    checks       what only the whole can be judged by: names, consent, subjects, rivals
    rules        every rule compiled, every outside file and address looked at
    model        the frozen `Settings`
"""

from sts.settings.environment import Environment, default_config
from sts.settings.faults import Fault, SettingsError, printable
from sts.settings.load import changes_needing_restart, load
from sts.settings.model import Settings
from sts.settings.printing import effective, schema

__all__ = [
    "Environment",
    "Fault",
    "Settings",
    "SettingsError",
    "changes_needing_restart",
    "default_config",
    "effective",
    "load",
    "printable",
    "schema",
]
