"""How commands leave an audit event of what they did, where decisions are written."""

from __future__ import annotations

import os
import pwd
import sys
import time
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
"""Fields that people write as they like, so that a credential may stand in them."""


def audit(settings: Settings, event: str, action: str, *, aloud: bool, **fields: object) -> None:
    """Write down what was done, in `audit.file`; `fields` as `operators_event` says, free texts among them masked here.

    Without that file standard output is the command's own, which tells of what it did anyway: the event goes to
    standard error then where `aloud` says so, of what was forced or cannot be taken back. It is done already: where it
    cannot be written, that is told and nothing more.
    """
    know_prefixes(prefixes(settings.sources))
    told = {name: bounded_text(str(value)) if name in _FREE else value for name, value in fields.items()}
    line = operators_event(event, action, time.time(), by=_user(), revision=settings.revision, **told)
    if settings.audit.file is None:
        sys.stderr.write(line.decode("ascii") if aloud else "")
        return
    try:
        file = AuditFile(settings.audit.file)
        try:
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
