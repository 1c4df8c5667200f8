"""The state of the signing keys for operators, in `/readyz` and `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from keys.keyring import KeyStatus, Status
from sts.telemetry import Reading


def detail(status: Status) -> dict[str, object]:
    """Return the lines of `/readyz`; durations in whole seconds."""
    return {
        "ring_version": status.version,
        "ring_unseen_s": round(status.unseen),
        "ring_fault": status.fault,
        "jwks_for_s": round(status.publishes_for),
        "keys": {name: _of(key) for name, key in status.keys.items()},
    }


def readings(status: Status) -> Iterator[Reading]:
    """Return the readings of `/metrics`."""
    yield Reading("sts_key_ring_version", "Version of the key ring in force.", status.version)
    yield Reading("sts_key_ring_unseen_seconds", "Seconds since the key store was last reached.", status.unseen)
    yield Reading("sts_keys_published", "Keys in the JWKS.", status.published)
    yield Reading(
        "sts_jwks_seconds",
        "Seconds for which the JWKS is available if the store is not read again.",
        status.publishes_for,
    )
    for name, key in status.keys.items():
        labels = {"algorithm": name}
        yield Reading("sts_key_age_seconds", "Seconds since the key began to sign.", key.age, labels)
        yield Reading("sts_key_due_seconds", "Seconds until the key's rotation is due.", key.due_in, labels)
        yield Reading(
            "sts_key_standby_ready_seconds", "Seconds until the standby key may sign.", key.standby_ready_in, labels
        )


def _of(key: KeyStatus) -> dict[str, object]:
    return {
        "kid": key.kid,
        "age_s": round(key.age),
        "due_in_s": round(key.due_in),
        "standby": key.standby,
        "standby_ready_in_s": None if key.standby is None else round(key.standby_ready_in),
    }
