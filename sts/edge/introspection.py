"""`POST /introspect`: the claims of one of our tokens, for backends that cannot verify it themselves (RFC 7662)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sts.audit.introspection import Question
from sts.audit.log import AuditLog
from sts.clients.registry import Clients
from sts.credentials.self_issued import OwnVerifier
from sts.edge.token import TokenDoor, reply
from sts.errors import (
    AUDIENCE_MISMATCH,
    EXPIRED,
    INTERNAL_ERROR,
    MALFORMED,
    Refusal,
)
from sts.jose import parse, text_or_texts
from sts.model import Client, Incoming, Reply
from sts.state.revocations import Revocations
from sts.telemetry import log, metrics

PATH: Final = "/introspect"

_OURS: Final = 503


@dataclass(frozen=True, slots=True)
class Introspection:
    """Answers for one revision of the configuration.

    `audiences` are the names of the enabled audiences whose tokens are only signed, by their `aud`. The signed token
    inside an encrypted one is not active by itself.
    """

    verifier: OwnVerifier
    revision: str
    audiences: Mapping[str, str]
    clients: Clients
    revocations: Revocations
    door: TokenDoor
    audit: AuditLog
    clock: Callable[[], float]

    def answer(self, incoming: Incoming) -> Reply:
        """Answer one request. Never raises; every answer leaves exactly one audit event.

        Any fault of the token gives only `active: false` (§2.2): the answer must not distinguish a token of
        another backend from one that does not exist (§4).
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
        # Our own members last, so that no mapped claim can replace them.
        return reply(200, {**claims, "active": True, "token_type": "Bearer"}, incoming)

    def _active(self, client: Client, token: str, now: float) -> Mapping[str, Any]:
        """Return the claims of a valid token whose audiences all have `client` as their backend, or raise a Refusal."""
        proven = self.verifier.prove(parse(token), now)
        claims = proven.claims
        if claims["exp"] <= now:
            raise Refusal(EXPIRED, why="the token has expired")
        names = self._names(claims)
        if not names or not client.backend_of.issuperset(names):
            raise Refusal(AUDIENCE_MISMATCH, why="the client is not the backend of each of its audiences")
        self.verifier.check_origin(claims)
        self.revocations.check(self.revocations.own(token, claims, proven.since), now)
        return claims

    def _names(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the audiences' names. Raises AUDIENCE_MISMATCH if one is missing, disabled or encrypted."""
        auds = text_or_texts(claims["aud"], "aud")
        if not all(aud in self.audiences for aud in auds):
            raise Refusal(AUDIENCE_MISMATCH, why="an audience is missing or disabled, or its tokens are encrypted")
        return tuple(self.audiences[aud] for aud in auds)
