"""Loads a configuration file and checks it as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Final

from sts.mint.keystore import SECRET_FILE
from sts.options import Place
from sts.settings import advice, callers, checks, rules
from sts.settings.assemble import validate
from sts.settings.checks import Parts
from sts.settings.document import Document, read
from sts.settings.environment import Environment
from sts.settings.faults import Fault, SettingsError
from sts.settings.listen import Listen
from sts.settings.model import KINDS, Settings

_PARTS: Final = ("issuer", "listen", "redis", "keys", "cache", "forward_auth", "opa", *KINDS)
NEEDS_RESTART: Final = (
    *("issuer", "workers", "threads", "var", "secret", "redis"),
    *("listen", "keys.store", "keys.seal_keys", "state.store"),
)
"""The settings, as dotted names, that a running service cannot change; a reload that changes one is refused."""


def load(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check the configuration at `path` and its included files; relative files count from its directory.

    Raises SettingsError with every fault found. If a file is not valid YAML, the error lists only the faults of that
    step.
    """
    return _examine(path, environment)[0]


def examine(path: Path, environment: Mapping[str, str] | None = None) -> tuple[Settings, tuple[Fault, ...]]:
    """Load as `load` does, and also return warnings about likely mistakes."""
    settings, document, parts = _examine(path, environment)
    found = [finding for check in (*advice.CHECKS, *callers.ADVICE) for finding in check(parts)]
    warnings = [document.fault(one.path, one.problem, one.hint) for one in found]
    return settings, tuple(sorted(warnings, key=lambda fault: (fault.file, fault.line)))


def _examine(path: Path, environment: Mapping[str, str] | None) -> tuple[Settings, Document, Parts]:
    environment = Environment() if environment is None else environment
    document, faults, whole = read(path)
    if not whole:
        raise SettingsError(faults)
    directory = path.absolute().parent
    var = _var(document, directory, environment)
    if _is_ours(document.value.get("secret"), directory, var) and not callers.users(document.value):
        del document.value["secret"]  # the default path, written out: the first start creates it, so it may be missing
    found, values = validate(document, Place(directory, environment))
    parts = Parts(
        written=document.value,
        place=lambda at: document.fault(at, "").place,
        **{name: values[name] for name in _PARTS if name in values},
    )
    for check in (*checks.CHECKS, *callers.CHECKS, *callers.SHARING_CHECKS, *callers.CERTIFICATE_CHECKS, *rules.CHECKS):
        found.extend(check(parts))
    faults.extend(document.fault(one.path, one.problem, one.hint) for one in found)
    if faults:
        raise SettingsError(faults)
    values["var"] = var
    # Every value is validated already. A second validation would reject a duration, which is a number by now.
    return Settings.model_construct(_fields_set=set(values), **values), document, parts


def _var(document: Document, directory: Path, environment: Mapping[str, str]) -> Path:
    """Return the directory of secret, key ring and state. `STS_VAR` wins over the file, so that an image can set it."""
    written = document.value.get("var")
    return Path(environment.get("STS_VAR") or directory / (written if isinstance(written, str) else "var")).absolute()


def _is_ours(secret: object, directory: Path, var: Path) -> bool:
    """Return whether `secret` names the default file in `var`."""
    named = secret.get("file") if isinstance(secret, dict) and len(secret) == 1 else None
    return isinstance(named, str) and os.path.realpath(directory / named) == os.path.realpath(var / SECRET_FILE)


def changes_needing_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return the names of `NEEDS_RESTART` whose settings differ.

    `workers` counts only if it is written: the default follows the machine's CPU quota, which may change by itself.
    """
    changed = [name for name in NEEDS_RESTART if _differs(attrgetter(name)(old), attrgetter(name)(new))]
    if "workers" in changed and "workers" not in old.model_fields_set | new.model_fields_set:
        changed.remove("workers")
    return tuple(changed)


def _differs(old: object, new: object) -> bool:
    """Return whether two values of one setting differ; the content of the files of `listen.tls` may change."""
    if isinstance(old, Listen) and isinstance(new, Listen):
        return old.differs_for_good(new)
    return old != new
