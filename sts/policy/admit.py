"""The checks that every proven credential must pass: every kind, subject and actor alike."""

from __future__ import annotations

from typing import Final, TypeGuard

from sts.errors import AUDIENCE_MISMATCH, BINDING_FAILED, EXPIRED, NOT_YET_VALID, TOO_OLD, Refusal
from sts.model import Admitted, Limits, NotApplicable, Principal

FOREVER: Final = float("inf")
LEAST_LIFE: Final = 1.0
"""Seconds that a credential must still be valid; leeway applies to `nbf` and `iat`, never to `exp`."""


def admit(principal: Principal, limits: Limits, now: float, certificate: str | None = None) -> Admitted:
    """Check the facts of a proven credential against its source's limits.

    `certificate` is the thumbprint of the certificate that was proven together with the credential, or None.

    Raises AUDIENCE_MISMATCH, EXPIRED, NOT_YET_VALID, TOO_OLD or BINDING_FAILED. A credential that passes is meant for
    us, and is valid and fresh at `now`; this does not prove that its subject may do anything.
    """
    _check_audience(principal, limits)
    end = _check_lifetime(principal, limits, now)
    too_old_at = _check_age(principal, limits, now)
    _check_binding(principal, certificate)
    fresh_until = FOREVER if isinstance(principal.fresh_until, NotApplicable) else principal.fresh_until
    since = 0.0 if principal.since is None else min(principal.since, now)
    return Admitted(principal, min(end, too_old_at), min(fresh_until, too_old_at), since=since)


def _check_audience(principal: Principal, limits: Limits) -> None:
    """Check that one of our audiences is in `aud` (RFC 7519 §4.1.3); an empty list of ours accepts no credential."""
    if isinstance(principal.audience, NotApplicable):
        return
    if limits.audiences.isdisjoint(principal.audience):
        raise Refusal(AUDIENCE_MISMATCH, why="none of the credential's audiences is this source's audience")


def _check_lifetime(principal: Principal, limits: Limits, now: float) -> float:
    """Return when the credential expires; check `exp`, `nbf`, `iat` and `auth_time` (RFC 7519 §4.1.4, §4.1.5)."""
    end = FOREVER if isinstance(principal.expires_at, NotApplicable) else principal.expires_at
    if end - now < LEAST_LIFE:
        raise Refusal(EXPIRED, expired_since_s=round(now - end))
    starts = (("nbf", principal.not_before), ("iat", principal.issued_at), ("auth_time", principal.auth_time))
    for name, since in starts:
        if _known(since) and since - limits.leeway > now:
            raise Refusal(NOT_YET_VALID, claim=name, seconds_ahead=round(since - now))
    return end


def _check_age(principal: Principal, limits: Limits, now: float) -> float:
    """Return until when age and login are within the limits; a limited fact that is missing is refused.

    No minted token may outlive that time, because it would evade the limit.
    """
    too_old_at = FOREVER
    if limits.max_lifetime is not None:
        issued, end = _required(principal.issued_at, "iat"), _required(principal.expires_at, "exp")
        if end - issued > limits.max_lifetime:
            raise Refusal(TOO_OLD, why="lives longer than max_lifetime", lifetime_s=round(end - issued))
    for claim, since, limit in (
        ("iat", principal.issued_at, limits.max_age),
        ("auth_time", principal.auth_time, limits.max_auth_age),
    ):
        if limit is None:
            continue
        until = _required(since, claim) + limit
        if now > until:
            raise Refusal(TOO_OLD, why=f"{claim} is too long ago", over_by_s=round(now - until))
        too_old_at = min(too_old_at, until)
    return too_old_at


def _check_binding(principal: Principal, certificate: str | None) -> None:
    """Require the certificate to which a credential is bound (RFC 8705 §3); refuse any other member of `cnf`.

    To accept such a credential as a bearer token would silently remove its binding. So members that cannot be checked
    are not ignored (as RFC 7800 §3.1 would allow).
    """
    confirmation = principal.confirmation
    if confirmation is None or isinstance(confirmation, NotApplicable):
        return
    if not isinstance(confirmation, dict) or confirmation.keys() != {"x5t#S256"}:
        raise Refusal(BINDING_FAILED, why="the credential has a `cnf`, and no proof for it can be checked")
    if certificate is None:
        raise Refusal(BINDING_FAILED, why="the credential is bound to a certificate, and none was proven")
    if confirmation["x5t#S256"] != certificate:
        raise Refusal(BINDING_FAILED, why="the credential is bound to another certificate")


def _known(value: float | NotApplicable | None) -> TypeGuard[float]:
    return value is not None and not isinstance(value, NotApplicable)


def _required(value: float | NotApplicable | None, claim: str) -> float:
    if not _known(value):
        raise Refusal(TOO_OLD, why="the source limits an age that the credential does not state", claim=claim)
    return value
