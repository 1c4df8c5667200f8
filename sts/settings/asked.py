"""Reads `listen` alone, for commands that check the health of a running service.

A service keeps the configuration that it accepted while its file is being edited. So faults elsewhere in the file do
not matter here, and no other part of the settings is imported.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sts.options import Place
from sts.settings.document import read_alone
from sts.settings.faults import Fault, OptionError, SettingsError, findings
from sts.settings.listen import DEFAULT, Listen


def listening(path: Path) -> Listen:
    """Return the `listen` of the file at `path`, or its default; the rest of the file is not checked.

    Raises SettingsError if the file cannot be parsed, or if `listen` is faulty.
    """
    document = read_alone(path)
    written = document.value.get("listen")
    if written is None:
        return DEFAULT
    try:
        directory = path.absolute().parent
        return Listen.model_validate(written, context=Place(directory, {})).resolved(directory)
    except ValidationError as error:
        found = findings(error, Listen, ("listen",), ())
        raise SettingsError(document.fault(one.path, one.problem, one.hint) for one in found) from None


def listening_at(address: str, written: Listen | None = None) -> Listen:
    """Return the `Listen` of `--listen ADDRESS`; a relative socket counts from the current directory.

    `written` is the `listen` of the configuration. Without it, the address is only connected to and not bound, so it
    may be beyond loopback without `tls` or `transport`. Raises OptionError if `listen` would refuse the address.
    """
    beside = {"transport": "mesh"} if written is None else written.model_dump(exclude={"tls"}) | {"tls": written.tls}
    try:
        return Listen.model_validate(beside | {"address": address}).resolved(Path.cwd())
    except ValidationError as error:
        found = findings(error, Listen, (), ())
        raise OptionError(Fault("--listen", 0, address, one.problem, one.hint) for one in found) from None
