"""Where a running service listens, for those who ask how it is: `listen` alone, whatever else a file says.

A service goes on with what it accepted while its file is being edited. So a fault elsewhere in the file is none here,
and no other part of the settings is imported.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sts.options import Place
from sts.settings.document import read_alone
from sts.settings.faults import Fault, OptionError, SettingsError, findings
from sts.settings.listen import DEFAULT, Listen


def listening(path: Path) -> Listen:
    """The `listen` of the file at `path`, or its default; what is wrong with the rest of the file is not looked at.

    Raises SettingsError where the file cannot be read to its end, or `listen` itself is faulty.
    """
    document = read_alone(path)
    written = document.value.get("listen")
    if written is None:
        return DEFAULT
    try:
        directory = path.absolute().parent
        return Listen.model_validate(written, context=Place(directory, {})).resolved(directory)
    except ValidationError as error:
        found = findings(error, Listen, ("listen",), (), {})
        raise SettingsError(document.fault(one.path, one.problem, one.hint) for one in found) from None


def listening_at(address: str, written: Listen | None = None) -> Listen:
    """What `--listen ADDRESS` means, beside the `listen` that is `written`; a relative socket counts from here.

    Without `written` the address is only asked, and nothing is bound: then it may be beyond loopback without further
    words. Raises OptionError where `listen` would refuse it.
    """
    beside = {"transport": "mesh"} if written is None else written.model_dump(exclude={"tls"}) | {"tls": written.tls}
    try:
        return Listen.model_validate(beside | {"address": address}).resolved(Path.cwd())
    except ValidationError as error:
        found = findings(error, Listen, (), (), {})
        raise OptionError(Fault("--listen", 0, address, one.problem, one.hint) for one in found) from None
