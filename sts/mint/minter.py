"""Turns a grant into a signed token, encrypted where its audience says so.

It takes nothing but a `Grant`, and a token never outlives what caused it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from keys.errors import NoUsableKey
from keys.keyring import Keyring
from sts.errors import EXPIRED, NO_KEY, TOKEN_TOO_LARGE, Refusal
from sts.jose import EncryptKey, compact, encrypt
from sts.model import Grant, Issued


class Recipient(Protocol):
    """A backend that knows its keys."""

    def key(self, now: float) -> EncryptKey:
        """The key to encrypt to. May wait; raises SOURCE_UNREACHABLE rather than to let a token go out plain."""


def sealed(token: str, recipient: EncryptKey) -> str:
    """The nested token. It hides what `token` says; that the token is ours, the signature inside alone proves."""
    return encrypt(token, recipient)


@dataclass(frozen=True, slots=True)
class Minter:
    """Mints for `issuer` with the key that signs at the moment.

    `recipients` are the backends that tokens are encrypted for, by audience; `seal` is how.
    """

    issuer: str
    keyring: Keyring
    recipients: Mapping[str, Recipient] = field(default_factory=dict)
    seal: Callable[[str, EncryptKey], str] = sealed

    def mint(self, grant: Grant, clock: Callable[[], float]) -> Issued:
        """Sign the token of `grant`, and encrypt it if the grant says for whom; that may wait for the backend's keys.

        `exp` is the earlier of now + `ttl` and the end of every cause. Raises EXPIRED where less than a second of
        life is left, NO_KEY without a usable key and SOURCE_UNREACHABLE without the backend's (never a request without
        its token, never a plain one), TOKEN_TOO_LARGE.
        """
        recipient = None if grant.recipient is None else self.recipients[grant.recipient].key(clock())
        now = clock()  # it may have waited
        issued_at = int(now)
        expires_at = int(min(issued_at + grant.ttl, grant.not_after))
        if expires_at - now < 1:
            raise Refusal(EXPIRED, why="less than a second of life is left")
        try:
            signer = self.keyring.signer(grant.algorithm, now)
        except NoUsableKey as error:
            raise Refusal(NO_KEY, why=str(error)) from None
        jti = secrets.token_urlsafe(16)
        header = {"alg": signer.algorithm, "kid": signer.kid, "typ": grant.typ}
        claims = access_token_claims(grant, self.issuer, issued_at, expires_at, jti)
        token = compact(header, claims, signer.sign)
        if recipient is not None:
            token = self.seal(token, recipient)
        if len(token) > grant.max_token_bytes:
            raise Refusal(TOKEN_TOO_LARGE, token_bytes=len(token), max_token_bytes=grant.max_token_bytes)
        return Issued(
            token=token,
            subject=grant.subject,
            token_type="Bearer",  # noqa: S106 - RFC 6750's name of the type
            expires_at=expires_at,
            jti=jti,
            kid=signer.kid,
            recipient=None if recipient is None else recipient.thumbprint,
            scopes=grant.scopes,
            headers=grant.headers,
            shadow=grant.shadow,
        )


def access_token_claims(grant: Grant, issuer: str, issued_at: int, expires_at: int, jti: str) -> dict[str, Any]:
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
        src_iat=math.floor(grant.since),
    )
    if grant.src is not None:
        written["src"] = grant.src
    if grant.mapped_by is not None:
        written["aud_map"] = grant.mapped_by
    if grant.bound_to is not None:
        written["cnf"] = {"x5t#S256": grant.bound_to}
    if grant.scopes is not None:
        written["scope"] = " ".join(grant.scopes)
    return written
