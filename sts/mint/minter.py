"""Turns a grant into a signed token, and encrypts it if its audience requires that.

The minter accepts only a `Grant`, and a token never outlives the credentials it was minted from.
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
    """The keys of a backend that receives encrypted tokens."""

    def key(self, now: float) -> EncryptKey:
        """Return the key for encryption. May wait. Raises SOURCE_UNREACHABLE: a token is never sent unencrypted."""


def sealed(token: str, recipient: EncryptKey) -> str:
    """Return the nested token. It hides the content of `token`; only the inner signature proves that we minted it."""
    return encrypt(token, recipient)


@dataclass(frozen=True, slots=True)
class Minter:
    """Mints for `issuer` with the present signing key.

    `recipients` are the backends that receive encrypted tokens, by audience; `seal` is the encryption.
    """

    issuer: str
    keyring: Keyring
    recipients: Mapping[str, Recipient] = field(default_factory=dict)
    seal: Callable[[str, EncryptKey], str] = sealed

    def mint(self, grant: Grant, clock: Callable[[], float]) -> Issued:
        """Sign the token of `grant`, and encrypt it if the grant has a recipient; that may wait for the backend's keys.

        `exp` is the earlier of now + `ttl` and the end of the credentials. Raises EXPIRED if less than a second is
        left, NO_KEY without a usable signing key, SOURCE_UNREACHABLE without the backend's key (a request never passes
        without its token, or with an unencrypted one), TOKEN_TOO_LARGE.
        """
        recipient = None if grant.recipient is None else self.recipients[grant.recipient].key(clock())
        now = clock()  # read again, because `key` may have waited
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
    """Return the token's claims. The registered claims are written last, so that no mapped claim can replace them."""
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
