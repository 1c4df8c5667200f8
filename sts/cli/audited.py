"""Write the audit events of commands."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from sts.audit.file import AuditFile
from sts.audit.operators import operators_event
from sts.audit.sanitize import bounded_text
from sts.cli import common
from sts.credentials.registry import prefixes
from sts.errors import StartError
from sts.settings import Settings
from sts.telemetry import know_prefixes

_FREE: Final = frozenset({"owner", "reason"})
"""Free text fields, which may contain a credential by mistake."""


def audit(settings: Settings, event: str, action: str, *, aloud: bool, **fields: object) -> None:
    """Append an event about a completed action to `audit.file`; free texts among the fields are masked.

    Without `audit.file`, the event goes to standard error if `aloud` is true, otherwise nowhere: the output of the
    command reports the action. If the event cannot be written, the command prints that, and does not fail, because the
    action is done.

    Args:
        settings: The configuration.
        event: The kind of event.
        action: The action.
        aloud: Whether the action was forced or is irreversible.
        fields: As for `operators_event`.
    """
    audit_each(settings, event, action, [fields], aloud=aloud)


def audit_each(
    settings: Settings, event: str, action: str, things: Sequence[Mapping[str, object]], *, aloud: bool
) -> None:
    """Write one event for each of `things`, as `audit` does; the file is opened once."""
    know_prefixes(prefixes(settings.sources))
    lines = []
    for fields in things:
        given = {name: bounded_text(str(value)) if name in _FREE else value for name, value in fields.items()}
        lines.append(operators_event(event, action, time.time(), by=_user(), revision=settings.revision, **given))
    if settings.audit.file is None:
        sys.stderr.write(b"".join(lines).decode("ascii") if aloud else "")
        return
    try:
        file = AuditFile(settings.audit.file)
        try:
            for line in lines:
                file.write(line)
        finally:
            file.close()
    except (OSError, StartError) as error:
        common.console_err.print(f"sts: it is done, but the audit could not be written: {error}")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
