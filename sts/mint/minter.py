"""Turns a grant into a signed token. It takes nothing but a `Grant`, and a token never outlives what caused it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from keys.errors import NoUsableKey
from keys.keyring import Keyring
from sts.errors import EXPIRED, NO_KEY, TOKEN_TOO_LARGE, Refusal
from sts.jose import compact
from sts.mint import access_token
from sts.model import Grant, Issued


@dataclass(frozen=True, slots=True)
class Minter:
    """Mints for `issuer` with the key that signs at the moment."""

    issuer: str
    keyring: Keyring

    def mint(self, grant: Grant, now: float) -> Issued:
        """Sign the token of `grant`.

        `exp` is the earlier of `now + ttl` and the end of every cause. Raises EXPIRED where less than a second of
        life is left, NO_KEY without a usable key (never a request without its token), TOKEN_TOO_LARGE.
        """
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
        claims = access_token.claims(grant, self.issuer, issued_at, expires_at, jti)
        token = compact(header, claims, signer.sign)
        if len(token) > grant.max_token_bytes:
            raise Refusal(TOKEN_TOO_LARGE, token_bytes=len(token), max_token_bytes=grant.max_token_bytes)
        return Issued(
            token=token,
            subject=grant.subject,
            token_type="Bearer",  # noqa: S106 - RFC 6750's name of the type
            expires_at=expires_at,
            jti=jti,
            kid=signer.kid,
            scopes=grant.scopes,
            headers=grant.headers,
            shadow=grant.shadow,
        )
