"""Our own tokens: what proves one, and a `Source` for those that a backend hands back to exchange them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sts.errors import BAD_TYPE, MALFORMED, REVOKED, UNKNOWN_ISSUER, Refusal
from sts.jose import Compact, media_type, text_or_texts, verify
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, TYPE_JWT, Limits, Presented, Principal
from sts.trust.remote_jwks import KeySource

KIND: Final = "own"
NAME: Final = "(own)"
"""Under which name the prover of our own tokens stands among the sources: no source can be called so."""

_TYPES: Final = frozenset({TYPE_ACCESS_TOKEN, TYPE_JWT})
_TYP: Final = frozenset({"at+jwt", "jwt"})
_REQUIRED: Final = ("sub", "aud", "exp", "iat", "jti", "client_id")


@dataclass(frozen=True, slots=True)
class Proven:
    """A token that we signed: its claims, and the RFC 7638 thumbprint of the key. Its `exp` is judged elsewhere.

    `since` is when the first credential behind it was issued (Unix seconds), None where the token does not say: one of
    an earlier release.
    """

    claims: Mapping[str, Any] = field(repr=False)
    thumbprint: str
    since: float | None


@dataclass(frozen=True, slots=True)
class OwnVerifier:
    """The one proof of tokens of `issuer`, ourselves, by our published `keys`; it never waits.

    `sources` and `clients` are the enabled ones: a token that was made from or for another ends with it.
    """

    issuer: str
    keys: KeySource
    sources: Collection[str]
    clients: Collection[str]

    def prove(self, token: Compact, now: float) -> Proven:
        """Prove that we signed an access token with the claims that we always write.

        Raises UNKNOWN_ISSUER, BAD_TYPE and MALFORMED for what we never write, before any key is looked for; UNKNOWN_KEY
        for a key that is not published, a revoked one too; BAD_SIGNATURE. Proves neither that the token is alive nor
        for whom it is.
        """
        claims = token.claims
        if claims.get("iss") != self.issuer:
            raise Refusal(UNKNOWN_ISSUER, why="its iss is not ours")
        if media_type(token.header.get("typ", "")) not in _TYP:
            raise Refusal(BAD_TYPE, why="its typ is none of ours")
        for name in _REQUIRED:
            if name not in claims:
                raise Refusal(MALFORMED, why="a claim is missing", claim=name)
        key = verify(token, self.keys.keys_for(token.kid, token.algorithm, now))
        since = claims.get("src_iat")  # an earlier release let a mapping write it, and then it may be a text
        return Proven(claims, key.thumbprint, since if type(since) is int else None)

    def check_origin(self, claims: Mapping[str, Any]) -> None:
        """Raise REVOKED where the client that a proven token was minted for, or its source, is gone or disabled."""
        if claims["client_id"] not in self.clients:
            raise Refusal(REVOKED, why="the client that the token was minted for is gone or disabled")
        if "src" in claims and claims["src"] not in self.sources:
            raise Refusal(REVOKED, why="the source that the token was made from is gone or disabled")


class OwnTokens:
    """A `Source` for our own tokens.

    A token counts as one of the source that it was once made from, its `src`. A token without `src` is for a backend
    that may not hand it on: it is nobody's credential (TE-33).
    """

    name = NAME
    trouble = ""
    limits = Limits(audiences=frozenset())  # whose token it is, the consent decides; its age, whoever minted it

    def __init__(self, verifier: OwnVerifier, clock: Callable[[], float]) -> None:
        self.issuer = verifier.issuer
        self._verifier = verifier
        self._clock = clock

    def present(self, token: Compact, declared: str) -> Presented:
        """As JwtIssuer says. UNKNOWN_ISSUER for a token without `src`, or whose source is gone or disabled.

        What the token says of its source is looked at only once its signature is proven, here already: by a forged one
        anybody could find out which sources there are, and what they list. Our own keys are never waited for.
        """
        source = token.claims.get("src")
        if not isinstance(source, str):
            raise Refusal(UNKNOWN_ISSUER, why="a token of ours without `src`: nobody may exchange it again")
        if declared not in _TYPES:
            raise Refusal(BAD_TYPE, why="not an access token of ours", declared=declared)
        self._verifier.prove(token, self._clock())
        if source not in self._verifier.sources:
            raise Refusal(UNKNOWN_ISSUER, why="the source of this token of ours is gone or disabled")
        minted_for = text_or_texts(token.claims["aud"], "aud")
        return Presented(KIND, source, declared, token, proven_by=NAME, minted_for=minted_for)

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove the token again, by the keys of now. Whose token it is, the consent has judged by its `aud`.

        REVOKED as `OwnVerifier.check_origin` says.
        """
        proven = self._verifier.prove(presented.unverified, now)
        claims = proven.claims
        self._verifier.check_origin(claims)
        return Principal(
            kind=KIND,
            source=presented.source,
            issuer=self.issuer,
            subject=claims["sub"],
            audience=NOT_APPLICABLE,
            reach=NOT_APPLICABLE,
            expires_at=claims["exp"],
            not_before=NOT_APPLICABLE,
            issued_at=claims["iat"],
            since=proven.since,
            auth_time=claims.get("auth_time"),
            fresh_until=NOT_APPLICABLE,
            confirmation=claims.get("cnf"),
            act=claims.get("act"),
            may_act=NOT_APPLICABLE,
            acr=claims.get("acr"),
            amr=claims.get("amr"),
            jti=claims["jti"],
            proof_key=f"{proven.thumbprint} {claims['client_id']}",
            attributes=claims,
        )

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - as Source says
        """As Source says: our keys are here."""
        return True

    def key_current(self, proof_key: str) -> bool:
        """As Source says: a key of ours that left the JWKS, or was revoked, proves nothing any more.

        Nor does a token whose client is disabled, which is why the client's id is part of the name here.
        """
        thumbprint, _, client = proof_key.partition(" ")
        return client in self._verifier.clients and self._verifier.keys.current(thumbprint)
