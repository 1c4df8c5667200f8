"""Writes answers: JSON and problem documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from sts.model import Reply

REALM: Final = "sts"
NO_STORE: Final = ("Cache-Control", "no-store")
RETRY_AFTER: Final = ("Retry-After", "5")  # seconds, for a short outage of a source or a store

_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


def to_json(document: Mapping[str, object]) -> bytes:
    """Write compact JSON in ASCII."""
    return _ENCODE(document).encode("ascii")


def problem(
    status: int, reason: str, detail: str, request_id: str = "", headers: Iterable[tuple[str, str]] = ()
) -> Reply:
    """Write a problem document (RFC 9457 §3). `reason` and `detail` are public constants; it contains no other data."""
    document: dict[str, object] = {
        "type": f"urn:sts:error:{reason}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error_reason": reason,
    }
    if request_id:
        document["instance"] = f"urn:sts:request:{request_id}"
    return Reply(status, (("Content-Type", "application/problem+json"), NO_STORE, *headers), to_json(document))
