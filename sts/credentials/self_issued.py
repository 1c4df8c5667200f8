"""Our own tokens: their verifier, and a `Source` for tokens that a backend presents to exchange them again."""

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
"""The name of our own tokens' prover among the sources; a configured source cannot have this name."""

_TYPES: Final = frozenset({TYPE_ACCESS_TOKEN, TYPE_JWT})
_TYP: Final = frozenset({"at+jwt", "jwt"})
_REQUIRED: Final = ("sub", "aud", "exp", "iat", "jti", "client_id")


@dataclass(frozen=True, slots=True)
class Proven:
    """A token that we signed: its claims, and the RFC 7638 thumbprint of the key. Its `exp` is not checked here.

    `since` is when the first credential behind it was issued (Unix seconds); None for a token of an earlier release,
    which does not contain the time.
    """

    claims: Mapping[str, Any] = field(repr=False)
    thumbprint: str
    since: float | None


@dataclass(frozen=True, slots=True)
class OwnVerifier:
    """The one verifier of our own tokens, with our published `keys`; it never waits.

    `issuer` is our issuer identifier. `sources` and `clients` are the enabled ones: a token that was made from another
    source, or for another client, is invalid.
    """

    issuer: str
    keys: KeySource
    sources: Collection[str]
    clients: Collection[str]

    def prove(self, token: Compact, now: float) -> Proven:
        """Verify that we signed an access token, and that it has the claims that we always write.

        This proves neither that the token is unexpired nor for whom it is.

        Raises:
            UNKNOWN_ISSUER, BAD_TYPE, MALFORMED: The token cannot be ours; raised before a key is looked up.
            UNKNOWN_KEY: The key is not published, or it was revoked.
            BAD_SIGNATURE: The signature is wrong.
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
        since = claims.get("src_iat")  # in an earlier release a mapping could set it, also to a text
        return Proven(claims, key.thumbprint, since if type(since) is int else None)

    def check_origin(self, claims: Mapping[str, Any]) -> None:
        """Raise REVOKED if the client or the source of a proven token has been removed or disabled."""
        if claims["client_id"] not in self.clients:
            raise Refusal(REVOKED, why="the client that the token was minted for is gone or disabled")
        if "src" in claims and claims["src"] not in self.sources:
            raise Refusal(REVOKED, why="the source that the token was made from is gone or disabled")


class OwnTokens:
    """A `Source` for our own tokens.

    A token belongs to the source from which it was originally made, its `src`. A token without `src` is for a backend
    that may not exchange it: it is not a credential (TE-33).
    """

    name = NAME
    trouble = ""
    limits = Limits(audiences=frozenset())  # consent judges the audience; the minting limited the lifetime

    def __init__(self, verifier: OwnVerifier, clock: Callable[[], float]) -> None:
        self.issuer = verifier.issuer
        self._verifier = verifier
        self._clock = clock

    def present(self, token: Compact, declared: str) -> Presented:
        """Verify a token of ours and return it as presented by its source. Never waits.

        The signature is verified here, before the `src` claim is used. Otherwise an attacker could find out with forged
        tokens which sources exist, and what they list.

        Raises UNKNOWN_ISSUER for a token without `src`, or whose source was removed or disabled; BAD_TYPE; and what
        `OwnVerifier.prove` raises.
        """
        source = token.claims.get("src")
        if not isinstance(source, str):
            raise Refusal(UNKNOWN_ISSUER, why="a token of ours without `src`: it must not be exchanged again")
        if declared not in _TYPES:
            raise Refusal(BAD_TYPE, why="not an access token of ours", declared=declared)
        self._verifier.prove(token, self._clock())
        if source not in self._verifier.sources:
            raise Refusal(UNKNOWN_ISSUER, why="the source of this token of ours is gone or disabled")
        minted_for = text_or_texts(token.claims["aud"], "aud")
        return Presented(KIND, source, declared, token, proven_by=NAME, minted_for=minted_for)

    def prove(self, presented: Presented, now: float) -> Principal:
        """Verify the token again with the present keys. Consent has already judged its `aud`.

        Raises what `OwnVerifier.prove` and `OwnVerifier.check_origin` raise.
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

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - the signature of Source
        """Return True: our keys are in memory."""
        return True

    def key_current(self, proof_key: str) -> bool:
        """Return whether the key is still published and the client is still enabled.

        `proof_key` contains the thumbprint of the key and the id of the client.
        """
        thumbprint, _, client = proof_key.partition(" ")
        return client in self._verifier.clients and self._verifier.keys.current(thumbprint)
