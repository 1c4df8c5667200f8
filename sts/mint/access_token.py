"""The claims of an internal access token (RFC 9068 §2.2, RFC 8693 §4, RFC 8705 §3.1)."""

from __future__ import annotations

from typing import Any

from sts.model import Grant


def claims(grant: Grant, issuer: str, issued_at: int, expires_at: int, jti: str) -> dict[str, Any]:
    """What the token says. The registered claims are written last: no mapped claim can stand in their place."""
    written = {**grant.claims, **grant.evidence}
    written.update(
        iss=issuer,
        sub=grant.subject,
        aud=grant.aud[0] if len(grant.aud) == 1 else list(grant.aud),
        exp=expires_at,
        iat=issued_at,
        jti=jti,
        client_id=grant.client_id,
        act=grant.act,
    )
    if grant.src is not None:
        written["src"] = grant.src
    if grant.bound_to is not None:
        written["cnf"] = {"x5t#S256": grant.bound_to}
    if grant.scopes is not None:
        written["scope"] = " ".join(grant.scopes)
    return written
