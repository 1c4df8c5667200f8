"""Audit events of operators: changes of signing keys and API keys, and revocations.

These events are in the same log as the decisions, so that an auditor finds a rotation without its guard, a new API key
or a revocation there.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime


def operators_event(event: str, action: str, now: float, *, by: str, revision: str, **fields: object) -> bytes:
    """Return one line of the audit log; it never contains a key.

    Args:
        event: The kind of event, which names the changed object.
        action: The action.
        now: Unix seconds.
        by: The system user who did it.
        revision: The revision of the configuration.
        fields: JSON values: names, times, ids and hashes. The caller masks and shortens free text.
    """
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": time, "event": event, "action": action, "by": by, **fields, "revision": revision}
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
