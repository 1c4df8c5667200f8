"""What operators do to the signing keys, as audit events of a kind of their own: `"event": "keys"`.

They stand among the decisions, so that a rotation without its guard or a revocation is found where one looks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime


def keys_event(  # noqa: PLR0913 - the fields of one line
    action: str,
    now: float,
    *,
    by: str,
    forced: bool,
    version: int,
    signing: Iterable[str],
    revoked: Iterable[str] = (),
    revision: str,
) -> bytes:
    """One line: `action` says what was done, `by` the system's user who did it; key ids, and never a key."""
    event = {
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": "keys",
        "action": action,
        "forced": forced,
        "by": by,
        "ring_version": version,
        "signing": sorted(signing),
        "revoked": sorted(revoked),
        "revision": revision,
    }
    return json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
