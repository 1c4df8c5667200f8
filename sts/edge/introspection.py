"""`POST /introspect`: what a token of ours says, for backends that cannot verify one themselves (RFC 7662)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sts.audit.introspection import Question
from sts.audit.log import AuditLog
from sts.clients.registry import Clients
from sts.edge.token import TokenDoor, reply
from sts.errors import (
    AUDIENCE_MISMATCH,
    BAD_TYPE,
    EXPIRED,
    INTERNAL_ERROR,
    MALFORMED,
    REVOKED,
    UNKNOWN_ISSUER,
    Refusal,
)
from sts.jose import Compact, VerifyKey, media_type, parse, text_or_texts, verify
from sts.model import Client, Incoming, Reply
from sts.state.revocations import Revocations
from sts.telemetry import log, metrics

PATH: Final = "/introspect"

_TYP: Final = frozenset({"at+jwt", "jwt"})
_REQUIRED: Final = ("sub", "aud", "exp", "iat", "jti", "client_id")
_OURS: Final = 503


class Keys(Protocol):
    """Our own keys, as they are published."""

    def keys_for(self, kid: str | None, algorithm: str, now: float) -> tuple[VerifyKey, ...]:
        """The keys that may have signed. Raises UNKNOWN_KEY for one that is not published, revoked ones too."""


@dataclass(frozen=True, slots=True)
class Introspection:
    """Answers for one revision of the configuration.

    `audiences` are the names of the enabled audiences whose tokens are signed and no more, by their `aud`. What is
    inside an encrypted token is no token of ours by itself, so it is not active. `sources` and `minted_for` are the
    enabled sources and clients: what was made from or for another ends with it.
    """

    issuer: str
    revision: str
    audiences: Mapping[str, str]
    sources: Collection[str]
    minted_for: Collection[str]
    clients: Clients
    keys: Keys
    revocations: Revocations
    door: TokenDoor
    audit: AuditLog
    clock: Callable[[], float]

    def answer(self, incoming: Incoming) -> Reply:
        """Answer one request. Never raises; every answer leaves exactly one audit event.

        Whatever is wrong with the token, the answer is `active: false` and nothing else (§2.2): it does not tell a
        token of another backend from one that does not exist (§4).
        """
        question = Question(incoming.request_id, incoming.correlation_id, self.revision)
        try:
            found = self._answer(incoming, question)
        except Refusal as refusal:
            question.refused(refusal)
            found = self.door.refused(incoming, refusal.reason, refusal.facts)
        except Exception as fault:  # noqa: BLE001 - fails closed, as the exchange does
            log.error("fault", request_id=incoming.request_id, fault=type(fault).__name__, at=log.where(fault))
            question.refused(Refusal(INTERNAL_ERROR))
            found = self.door.refused(incoming, INTERNAL_ERROR, {})
        self.audit.tell(question.event, "introspection" if question.limited else "")
        metrics.introspection_answered(question.outcome)
        return found

    def _answer(self, incoming: Incoming, question: Question) -> Reply:
        caller = self.door.read(incoming, PATH)
        question.called(caller, known=self.clients.knows(caller))
        client = self.clients.prove(caller)
        token = caller.read.one("token")
        if token is None:
            raise Refusal(MALFORMED, why="token is missing")
        question.brought(token)
        try:
            claims = self._active(client, token, self.clock())
        except Refusal as refusal:
            if refusal.reason.token_status == _OURS:
                raise
            question.inactive(refusal)
            return reply(200, {"active": False}, incoming)
        question.active(claims, self._names(claims))
        # Ours last: no mapped claim can speak for them.
        return reply(200, {**claims, "active": True, "token_type": "Bearer"}, incoming)

    def _active(self, client: Client, token: str, now: float) -> Mapping[str, Any]:
        """The claims of a live token of ours whose every audience has `client` for its backend, or a Refusal."""
        unverified = parse(token)
        self._ours(unverified)
        verify(unverified, self.keys.keys_for(unverified.kid, unverified.algorithm, now))
        claims = unverified.claims
        if claims["exp"] <= now:
            raise Refusal(EXPIRED, why="it has ended")
        names = self._names(claims)
        if not names or not client.backend_of.issuperset(names):
            raise Refusal(AUDIENCE_MISMATCH, why="the client is not the backend of each of its audiences")
        if claims["client_id"] not in self.minted_for:
            raise Refusal(REVOKED, why="the client that the token was minted for is gone or disabled")
        if "src" in claims and claims["src"] not in self.sources:
            raise Refusal(REVOKED, why="the source that the token was made from is gone or disabled")
        self.revocations.check(self.revocations.own(token, claims), now)
        return claims

    def _ours(self, unverified: Compact) -> None:
        """Refuse what we never write, before any key is looked for."""
        if unverified.claims.get("iss") != self.issuer:
            raise Refusal(UNKNOWN_ISSUER, why="its iss is not ours")
        if media_type(unverified.header.get("typ", "")) not in _TYP:
            raise Refusal(BAD_TYPE, why="its typ is none of ours")
        for name in _REQUIRED:
            if name not in unverified.claims:
                raise Refusal(MALFORMED, why="a claim is missing", claim=name)

    def _names(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The audiences' names. Raises AUDIENCE_MISMATCH for one that is gone, disabled or encrypted to its backend."""
        auds = text_or_texts(claims["aud"], "aud")
        if not all(aud in self.audiences for aud in auds):
            raise Refusal(AUDIENCE_MISMATCH, why="an audience is gone or disabled, or its tokens are encrypted")
        return tuple(self.audiences[aud] for aud in auds)
