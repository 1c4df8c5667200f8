"""Our own tokens, handed back by a backend that they were minted for, to be exchanged for another audience."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from sts.errors import BAD_ALGORITHM, BAD_TYPE, MALFORMED, REVOKED, UNKNOWN_ISSUER, Refusal
from sts.jose import Compact, VerifyKey, media_type, text_or_texts, verify
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, TYPE_JWT, Limits, Presented, Principal
from sts.trust.remote_jwks import KeySource

KIND: Final = "own"
NAME: Final = "(own)"
"""Under which name the prover of our own tokens stands among the sources: no source can be called so."""

_TYPES: Final = frozenset({TYPE_ACCESS_TOKEN, TYPE_JWT})
_TYP: Final = frozenset({"at+jwt", "jwt"})
_REQUIRED: Final = ("sub", "aud", "exp", "iat", "jti", "client_id")


class OwnTokens:
    """A `Source` for tokens of `issuer`, ourselves, proven by our published `keys`.

    A token counts as one of the source that it was once made from, its `src`, which must be among the enabled
    `sources`. A token without `src` is for a backend that may not hand it on: it is nobody's credential (TE-33).
    `clients` are the enabled ones: a token that was minted for another ends with it.
    """

    name = NAME
    trouble = ""
    limits = Limits(audiences=frozenset())  # whose token it is, the consent decides; its age, whoever minted it

    def __init__(
        self,
        issuer: str,
        keys: KeySource,
        sources: Collection[str],
        clients: Collection[str],
        algorithms: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self.issuer = issuer
        self._keys = keys
        self._sources = frozenset(sources)
        self._clients = frozenset(clients)
        self._algorithms = frozenset(algorithms)
        self._clock = clock

    def present(self, token: Compact, declared: str) -> Presented:
        """As JwtIssuer says. UNKNOWN_ISSUER for a token without `src`, or whose source is gone or disabled.

        What the token says of its source is looked at only once its signature is proven, here already: by a forged one
        anybody could find out which sources there are, and what they list. Our own keys are never waited for.
        """
        source = token.claims.get("src")
        if not isinstance(source, str):
            raise Refusal(UNKNOWN_ISSUER, why="a token of ours without `src`: nobody may exchange it again")
        if token.algorithm not in self._algorithms:
            raise Refusal(BAD_ALGORITHM, why="we do not sign with this algorithm", alg=token.algorithm)
        if media_type(token.header.get("typ", "")) not in _TYP or declared not in _TYPES:
            raise Refusal(BAD_TYPE, why="not an access token of ours", declared=declared)
        for name in _REQUIRED:
            if name not in token.claims:
                raise Refusal(MALFORMED, why="a claim is missing", claim=name)
        minted_for = text_or_texts(token.claims["aud"], "aud")
        self._verified(token, self._clock())
        if source not in self._sources:
            raise Refusal(UNKNOWN_ISSUER, why="the source of this token of ours is gone or disabled")
        return Presented(KIND, source, declared, token, proven_by=NAME, minted_for=minted_for)

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove the token's signature by our published keys. Whose token it is, the consent has judged by its `aud`.

        REVOKED for one that was minted for a client that is gone or disabled.
        """
        token: Compact = presented.unverified
        key = self._verified(token, now)
        claims = token.claims
        if claims["client_id"] not in self._clients:  # told of a proven token only, or anybody could ask for ids
            raise Refusal(REVOKED, why="the client that the token was minted for is gone or disabled")
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
            auth_time=claims.get("auth_time"),
            fresh_until=NOT_APPLICABLE,
            confirmation=claims.get("cnf"),
            act=claims.get("act"),
            may_act=NOT_APPLICABLE,
            acr=claims.get("acr"),
            amr=claims.get("amr"),
            jti=claims["jti"],
            proof_key=f"{key.thumbprint} {claims['client_id']}",
            attributes=claims,
        )

    def _verified(self, token: Compact, now: float) -> VerifyKey:
        return verify(token, self._keys.keys_for(token.kid, token.algorithm, now))

    def key_current(self, proof_key: str) -> bool:
        """As Source says: a key of ours that left the JWKS, or was revoked, proves nothing any more.

        Nor does a token whose client is disabled, which is why the client's id is part of the name here.
        """
        thumbprint, _, client = proof_key.partition(" ")
        return client in self._clients and self._keys.current(thumbprint)
