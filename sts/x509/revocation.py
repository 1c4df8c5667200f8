"""Whether the issuer has revoked a certificate: combines the results of CRLs and OCSP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from cryptography import x509

from sts.errors import REVOKED as REVOKED_REASON
from sts.errors import SOURCE_UNREACHABLE, Refusal
from sts.x509.roots import Path

Mode = Literal["require", "soft", "off"]

SOFT_LIFE: Final = 60.0
"""Seconds for which an unknown status is used under `soft` before it is checked again."""


@dataclass(frozen=True, slots=True)
class Good:
    """Not revoked, according to the issuer, until `until` (Unix seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Revoked:
    """Revoked by its issuer."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No current statement of the issuer; `why` is for the operator."""

    why: str


Status = Good | Revoked | Unknown
REVOKED: Final = Revoked()


class Register(Protocol):
    """A source of revocation statuses. Never waits."""

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Status:
        """Return the known status of `certificate` at `now` (Unix seconds); both come from a validated path."""


def check_revocation(path: Path, registers: Sequence[Register], mode: Mode, now: float) -> float:
    """Check every certificate of a path except its anchor (RFC 5280 §6.3).

    Returns until when the result is valid (Unix seconds). One "revoked" decides, even if another register returns
    "good". Raises REVOKED. Under `require` raises SOURCE_UNREACHABLE if no register has a status for a certificate:
    that is a fault of ours or of the CA, not of the caller.
    """
    until = float("inf")
    if mode == "off":
        return until
    for position, certificate in enumerate(path.certificates[:-1]):
        issuer = path.certificates[position + 1]
        words = [register.status(certificate, issuer, now) for register in registers]
        if REVOKED in words:
            raise Refusal(REVOKED_REASON, why="by its issuer", depth=position)
        good = [word.until for word in words if isinstance(word, Good)]
        if not good and mode == "require":
            why = "; ".join(word.why for word in words if isinstance(word, Unknown))
            raise Refusal(SOURCE_UNREACHABLE, why=why or "no revocation source", depth=position)
        until = min(until, max(good, default=now + SOFT_LIFE))
    return until
