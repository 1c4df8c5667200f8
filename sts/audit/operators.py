"""What operators do to the signing keys, to API keys and by revocations, as audit events of kinds of their own.

They stand among the decisions, so that a rotation without its guard, a new API key or a revocation is found where one
looks for it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime


def operators_event(event: str, action: str, now: float, *, by: str, revision: str, **fields: object) -> bytes:
    """One line: `event` says to what, `action` what was done, `by` the system's user who did it; never a key.

    `fields` are JSON: names, times, ids and hashes. A text that people write freely is masked and bounded before.
    """
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": time, "event": event, "action": action, "by": by, **fields, "revision": revision}
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
