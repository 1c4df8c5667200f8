"""The audit: exactly one event for each decision, allowed or refused, as one line of JSON.

The fields are an allow-list. No token, no claim's value and no key is among them: subject and
credential stand as hashes under the deployment's own key, so that only who has that key can look for a known one.

A line is written with one call (see `audit_file`) and never longer than `LINE_BYTES`, so that the lines of several
workers do not mix, in a file or a pipe. A line that cannot be written is counted and told in the service's log; the
answer stands.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sts.audit.sanitize import bounded_facts, bounded_texts, correlation
from sts.errors import Reason
from sts.expressions.words import BUDGET
from sts.labels import hashed
from sts.model import Ask, Caller, Credential, DoorName, Issued, Presented
from sts.options import ConfigFile, Section
from sts.telemetry import Metrics, Throttle, log

LABEL: Final = "audit"
"""The label under which the audit's key is derived from the deployment secret."""

LINE_BYTES: Final = 4096
"""PIPE_BUF on Linux: what a pipe takes in one piece (pipe(7))."""

_SHORT_TEXT: Final = 64
_SHORT_ITEMS: Final = 8
_TELL_EVERY_S: Final = 60.0

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class AuditSettings(Section):
    """The `audit` section."""

    file: ConfigFile | None = None
    """Where each decision's event is appended, one JSON object a line; default: standard output."""


def subject_hash(secret: bytes, subject: str) -> str:
    """How a minted subject stands in the audit; `secret` is the deployment's key for `LABEL`."""
    return hashed(secret, "subject", subject)


class Trail:
    """What became of one request, collected on its way; kept as it is and written down once, by `AuditLog.record`."""

    __slots__ = (
        "_ask",
        "_audiences",
        "_client",
        "_credential",
        "_facts",
        "_issued",
        "_presented",
        "_reason",
        "_stranger",
        "correlation_id",
        "door",
        "request_id",
        "revision",
        "started",
        "subject",
    )

    def __init__(
        self, door: DoorName, request_id: str, revision: str, started: float, correlation_id: str = ""
    ) -> None:
        self.correlation_id = correlation_id
        self.door = door
        self.request_id = request_id
        self.revision = revision
        self.started = started
        self._client: str | None = None
        self._stranger: str = ""
        self._ask: Ask | None = None
        self._audiences: tuple[str, ...] | None = None
        self._presented: Presented | None = None
        self._credential: Credential | None = None
        self.subject: str | None = None
        self._issued: Issued | None = None
        self._reason: Reason | None = None
        self._facts: Mapping[str, object] = {}

    @property
    def reason(self) -> str:
        """The name of the reason of a refusal, "" as long as there is none."""
        return "" if self._reason is None else self._reason.name

    @property
    def limited(self) -> bool:
        """Whether it is one of too many failures (RFC 6585 §4), which a stranger can cause as often as they like."""
        return self._reason is not None and self._reason.limited

    @property
    def over_budget(self) -> str:
        """The source of a credential over which a rule would have worked too long, "" where no rule would."""
        return self._presented.source if self._presented is not None and self._facts.get("why") == BUDGET else ""

    @property
    def cached(self) -> bool:
        """Whether the token came from the cache."""
        return self._issued is not None and self._issued.cached

    def called(self, caller: Caller, *, known: bool) -> None:
        """Somebody says it is this client, unproven; `known` says whether there is such a client.

        Any other name is written down as a hash only: somebody may have put a secret where the id belongs.
        """
        if known:
            self._client = caller.unverified_client_id
        else:
            self._stranger = caller.unverified_client_id

    def asked(self, ask: Ask) -> None:
        """The proven client asks for this."""
        self._ask = ask

    def aimed(self, audiences: Iterable[str]) -> None:
        """These are the names of the audiences that it means."""
        self._audiences = tuple(audiences)

    def brought(self, credential: Credential) -> None:
        """This credential came along, whoever it may be for."""
        self._credential = credential

    def presented(self, presented: Presented) -> None:
        """The credential is for this source, unproven as yet."""
        self._presented = presented

    def identified(self, subject: str) -> None:
        """The proven credential maps to this subject."""
        self.subject = subject

    def issued(self, issued: Issued) -> None:
        """This token is to be handed out."""
        self._issued = issued

    def refused(self, reason: Reason, facts: Mapping[str, object]) -> None:
        """The request is refused, even if a token was already at hand: nobody gets it."""
        self._reason = reason
        self._facts = facts
        self._issued = None

    def event(self, secret: bytes, time: str, duration_us: int) -> dict[str, Any]:
        """The event's fields; what does not apply is None. Texts that nobody has proven are masked and bounded."""
        ask, presented, credential, issued = self._ask, self._presented, self._credential, self._issued
        subject = self.subject if issued is None else issued.subject
        event: dict[str, Any] = {
            "time": time,
            "event": "decision",
            "outcome": "allowed" if self._reason is None else "refused",
            "reason": None if self._reason is None else self._reason.name,
            "request_id": self.request_id,
            "correlation_id": correlation(self.correlation_id),
            "door": self.door,
            "client": self._client,
            "source": None if presented is None else presented.source,
            "kind": None if presented is None else presented.kind,
            "audiences": self._audiences,
            "scopes": None if issued is None else issued.scopes,
            "route": None if ask is None else ask.route,
            "subject_hash": None if subject is None else subject_hash(secret, subject),
            "credential_hash": None if credential is None else hashed(secret, "credential", credential.value),
            "jti": None if issued is None else issued.jti,
            "kid": None if issued is None else issued.kid,
            "exp": None if issued is None else issued.expires_at,
            "cached": issued is not None and issued.cached,
            "duration_us": duration_us,
            "revision": self.revision,
        }
        if presented is not None and presented.credential_id:
            event["credential_id"] = presented.credential_id
        if issued is not None and issued.shadow:
            event["shadow"] = _trials(issued)
        if self._audiences is None and ask is not None:
            event["audiences"] = bounded_texts((*ask.audiences, *ask.resources))
        if self._reason is not None:
            event["scopes"] = None if ask is None or ask.scopes is None else bounded_texts(ask.scopes)
            event["facts"] = bounded_facts(self._facts)
            if self._stranger:
                event["facts"]["client_hash"] = hashed(secret, "client", self._stranger)
        return event


def _trials(issued: Issued) -> dict[str, str]:
    """What the rules on trial would have done; of a kept token only where its judgement still counts."""
    trials = issued.shadow.items()
    return {name: one.outcome if one.lasts or not issued.cached else "unknown" for name, one in trials}


class AuditLog:
    """Writes the events. `write` takes a line, and raises OSError where it did not take all of it."""

    def __init__(
        self,
        secret: bytes,
        write: Callable[[bytes], object],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        """Write with `write`; `secret` is the key for `LABEL`, `clock` Unix seconds, `monotonic` any steady ones."""
        self.failures = 0
        self._secret = secret
        self._write = write
        self._clock = clock
        self._monotonic = monotonic
        self._metrics = metrics
        self._second = (0, "")
        self._throttle = Throttle(monotonic)
        self._telling = threading.Lock()
        self._told_at = -math.inf

    def begin(self, door: DoorName, request_id: str, revision: str, correlation_id: str = "") -> Trail:
        """Begin the trail of one request."""
        return Trail(door, request_id, revision, self._monotonic(), correlation_id)

    def record(self, trail: Trail) -> None:
        """Write the one event of a decision, and count the decision; see `_put` for limited ones. Never raises."""
        seconds = self._monotonic() - trail.started
        duration = int(seconds * 1_000_000)
        self._put(lambda time: trail.event(self._secret, time, duration), trail.door if trail.limited else "")
        if self._metrics is not None:
            self._metrics.decision(trail.door, trail.reason, cached=trail.cached, seconds=seconds)
            if trail.over_budget:
                self._metrics.rule_over_budget(trail.over_budget)

    def tell(self, fields: Callable[[bytes], dict[str, Any]], limited: str = "") -> None:
        """Write an event that is no decision: `fields` makes it, given the key for hashes. Never raises.

        `limited` as for `_put`.
        """
        self._put(lambda time: {"time": time, **fields(self._secret)}, limited)

    def flush(self) -> None:
        """Write what waits, at the end of the process."""
        self._throttle.flush()

    def _put(self, event: Callable[[str], dict[str, Any]], limited: str) -> None:
        """Write one event, made of its time; where `limited` names a kind, at most one a second of that kind.

        The audit would else be as long as a stranger likes. `suppressed` says how many were left out.
        """
        now = self._now()
        if limited:
            self._throttle.offer(limited, lambda others: self._put_now(event, now, others))
        else:
            self._put_now(event, now, 0)

    def _put_now(self, event: Callable[[str], dict[str, Any]], time: str, suppressed: int) -> None:
        try:
            fields = event(time)
            self._write(_line({**fields, "suppressed": suppressed} if suppressed else fields))
        except Exception as fault:  # noqa: BLE001 - the answer must not depend on whether it can be written down
            self._failed(fault)

    def _now(self) -> str:
        """The time as RFC 3339 text in UTC, to the millisecond; the text of a second is made once."""
        now = self._clock()
        second = int(now)
        known, text = self._second
        if known != second:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{int((now - second) * 1000):03d}Z"

    def _failed(self, fault: Exception) -> None:
        """Count a lost event, and tell of it once in a while: a full disk must not fill another one with its news."""
        with self._telling:
            self.failures += 1
            now = self._monotonic()
            tell = now - self._told_at >= _TELL_EVERY_S
            if tell:
                self._told_at = now
        if self._metrics is not None:
            self._metrics.audit_failed()
        if tell:
            why = fault.strerror if isinstance(fault, OSError) else type(fault).__name__
            log.error("audit event lost", why=why, lost=self.failures, at=log.where(fault))


def _line(event: dict[str, Any]) -> bytes:
    line = _encode(event).encode("ascii") + b"\n"
    if len(line) < LINE_BYTES:  # one byte stays free for the line break after a broken line
        return line
    # What a caller can blow up goes first; what says who, why and which token always has its place.
    event["audiences"] = [name[:_SHORT_TEXT] for name in (event["audiences"] or ())[:_SHORT_ITEMS]]
    event["scopes"] = None
    event["truncated"] = True
    if "shadow" in event:
        event["shadow"] = dict([*event["shadow"].items()][:_SHORT_ITEMS])
    if "facts" in event:
        event["facts"] = {name: value for name, value in event["facts"].items() if name == "why"}
    return _encode(event).encode("ascii") + b"\n"
