"""The audit event of an introspection request at our endpoint: the client, the token and the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sts.audit.log import subject_hash
from sts.audit.sanitize import bounded_facts, correlation
from sts.errors import Reason, Refusal
from sts.labels import hashed
from sts.model import Caller

_AUDIENCES: Final = 8


class Question:
    """The record of one introspection request, filled while it is processed and written once.

    `outcome` is `active`, `inactive` (with the reason, which only the audit log contains), or `refused`.
    """

    __slots__ = (
        *("_audiences", "_claims", "_client", "_correlation_id", "_facts", "_reason", "_request_id", "_revision"),
        *("_stranger", "_token", "outcome"),
    )

    def __init__(self, request_id: str, correlation_id: str, revision: str) -> None:
        self._request_id, self._correlation_id, self._revision = request_id, correlation_id, revision
        self._client: str | None = None
        self._stranger = ""
        self._token: str | None = None
        self._claims: Mapping[str, Any] = {}
        self._audiences: Sequence[str] = ()
        self._reason: Reason | None = None
        self._facts: Mapping[str, object] = {}
        self.outcome = "refused"

    @property
    def limited(self) -> bool:
        """Whether the request was refused because of too many failures of client authentication."""
        return self._reason is not None and self._reason.limited

    def called(self, caller: Caller, *, known: bool) -> None:
        """Record the client id that the caller states, unproven; an unknown client id is logged only as a hash."""
        if known:
            self._client = caller.unverified_client_id
        else:
            self._stranger = caller.unverified_client_id

    def brought(self, token: str) -> None:
        """Record the token of the request."""
        self._token = token

    def active(self, claims: Mapping[str, Any], audiences: Sequence[str]) -> None:
        """Record the response: these claims, of a token for these audiences."""
        self.outcome, self._claims, self._audiences = "active", claims, audiences

    def inactive(self, refusal: Refusal) -> None:
        """Record the response "not active", with its reason."""
        self.outcome, self._reason, self._facts = "inactive", refusal.reason, refusal.facts

    def refused(self, refusal: Refusal) -> None:
        """Record that the request was refused."""
        self.outcome, self._reason, self._facts = "refused", refusal.reason, refusal.facts
        self._claims, self._audiences = {}, ()

    def event(self, secret: bytes) -> dict[str, Any]:
        """Return the fields of the event without its time; a field that does not apply is None."""
        claims, reason = self._claims, self._reason
        event: dict[str, Any] = {
            "event": "introspection",
            "outcome": self.outcome,
            "reason": None if reason is None else reason.name,
            "request_id": self._request_id,
            "correlation_id": correlation(self._correlation_id),
            "client": self._client,
            "audiences": [*self._audiences][:_AUDIENCES] or None,
            "subject_hash": subject_hash(secret, claims["sub"]) if claims else None,
            "credential_hash": None if self._token is None else hashed(secret, "credential", self._token),
            "jti": claims.get("jti"),
            "exp": claims.get("exp"),
            "revision": self._revision,
        }
        if reason is not None:
            event["facts"] = bounded_facts(self._facts)
            if self._stranger:
                event["facts"]["client_hash"] = hashed(secret, "client", self._stranger)
        return event
