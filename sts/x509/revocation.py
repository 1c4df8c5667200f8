"""Whether a certificate is still good by its issuer's own word: what CRLs and OCSP answer, and what is made of it."""

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
"""Seconds for which "not known" serves under `soft` before it is asked again."""


@dataclass(frozen=True, slots=True)
class Good:
    """Not revoked, by word of the issuer that holds until `until` (Unix seconds)."""

    until: float


@dataclass(frozen=True, slots=True)
class Revoked:
    """Taken back by its issuer."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody with a right to say has said; `why` is for the operator."""

    why: str


Status = Good | Revoked | Unknown
REVOKED: Final = Revoked()


class Register(Protocol):
    """Where the word of issuers is kept. Never waits."""

    def status(self, certificate: x509.Certificate, issuer: x509.Certificate, now: float) -> Status:
        """What is known of `certificate`; both come from a validated path."""


def check_revocation(path: Path, registers: Sequence[Register], mode: Mode, now: float) -> float:
    """Judge every certificate of a path but its anchor (RFC 5280 §6.3); until when the judgement holds.

    One word of "revoked" is enough, whatever another register says. Raises REVOKED; under `require` SOURCE_UNREACHABLE
    where nobody vouches for a certificate: that is a fault of ours or the CA's, not of who presented it.
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
