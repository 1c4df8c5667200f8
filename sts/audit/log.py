"""The audit log: exactly one event for each decision, allowed or refused, as one line of JSON.

The fields are an allow-list. They contain no token, no value of a claim and no key. Subject and credential are hashed
with a key of the deployment, so that only the owner of that key can search for a known one.

A line is written with one call (see `sts.audit.file`), to a file with others. It is never longer than `LINE_BYTES`,
so that the lines of several workers do not mix, in a file or a pipe. A line that cannot be written is counted, and the
service's log reports it; the response to the request does not change.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from time import sleep
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from sts.audit.sanitize import bounded_facts, bounded_texts, correlation
from sts.errors import Reason
from sts.expressions.words import BUDGET
from sts.labels import hashed
from sts.model import Ask, Caller, Credential, DoorName, Issued, Presented
from sts.options import ConfigFile, Duration, Section
from sts.telemetry import Metrics, Throttle, log

LABEL: Final = "audit"
"""The label for the derivation of the audit key from the deployment secret."""

LINE_BYTES: Final = 4096
"""PIPE_BUF on Linux: the size of an atomic write to a pipe (pipe(7))."""

BATCH_BYTES: Final = 65_536
"""How many bytes of events wait at most."""

_SHORT_TEXT: Final = 64
_SHORT_ITEMS: Final = 8
_TELL_EVERY_S: Final = 60.0

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _zero(value: object) -> object:
    """A bare `0` needs no unit."""
    return "0s" if value in ("0", 0) and not isinstance(value, bool) else value


class AuditSettings(Section):
    """The `audit` section."""

    file: ConfigFile | None = None
    """The file to which the event of each decision is appended, one JSON object per line; default: standard output."""
    flush: Annotated[Duration, Field(le=1.0), BeforeValidator(_zero)] = 0.005
    """How long events of cache hits may wait to be written together; `0` writes each one immediately."""


def subject_hash(secret: bytes, subject: str) -> str:
    """Return the hash of a minted subject for the audit log; `secret` is the deployment's key for `LABEL`."""
    return hashed(secret, "subject", subject)


class Trail:
    """The record of one request, filled while it is processed; `AuditLog.record` writes it once."""

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
        """The name of the reason of the refusal, "" if there is none."""
        return "" if self._reason is None else self._reason.name

    @property
    def limited(self) -> bool:
        """Whether the refusal is one of too many failures (RFC 6585 §4), which any caller can cause in any number."""
        return self._reason is not None and self._reason.limited

    @property
    def over_budget(self) -> str:
        """The source of the credential for which a CEL rule exceeded its budget, "" if none did."""
        return self._presented.source if self._presented is not None and self._facts.get("why") == BUDGET else ""

    @property
    def cached(self) -> bool:
        """Whether the token came from the cache."""
        return self._issued is not None and self._issued.cached

    def called(self, caller: Caller, *, known: bool) -> None:
        """Record the client id that the caller states, unproven; `known`: whether such a client is configured.

        An unknown client id is logged only as a hash: a caller may have sent a secret in place of the id.
        """
        if known:
            self._client = caller.unverified_client_id
        else:
            self._stranger = caller.unverified_client_id

    def asked(self, ask: Ask) -> None:
        """Record the request of the authenticated client."""
        self._ask = ask

    def aimed(self, audiences: Iterable[str]) -> None:
        """Record the names of the requested audiences."""
        self._audiences = tuple(audiences)

    def brought(self, credential: Credential) -> None:
        """Record the credential, whose source is not known yet."""
        self._credential = credential

    def presented(self, presented: Presented) -> None:
        """Record the source of the credential, which is not proven yet."""
        self._presented = presented

    def identified(self, subject: str) -> None:
        """Record the subject to which the proven credential maps."""
        self.subject = subject

    def issued(self, issued: Issued) -> None:
        """Record the token of the response."""
        self._issued = issued

    def refused(self, reason: Reason, facts: Mapping[str, object]) -> None:
        """Record a refusal; a token that was minted before is not sent."""
        self._reason = reason
        self._facts = facts
        self._issued = None

    def event(self, secret: bytes, time: str, duration_us: int) -> dict[str, Any]:
        """Return the fields of the event; inapplicable fields are None. Unproven texts are masked and shortened."""
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
    """Return the results of the rules on trial; for a cached token only those that are still valid."""
    trials = issued.shadow.items()
    return {name: one.outcome if one.lasts or not issued.cached else "unknown" for name, one in trials}


class AuditLog:
    """Writes the events."""

    def __init__(
        self,
        secret: bytes,
        write: Callable[[bytes], object],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        metrics: Metrics | None = None,
        flush_s: float = 0.0,
    ) -> None:
        """Create the log.

        Args:
            secret: The deployment's key for `LABEL`.
            write: Writes whole lines; raises OSError if they were not written completely.
            clock: Returns Unix seconds.
            monotonic: A monotonic clock in seconds.
            metrics: Counts decisions and lost events, if given.
            flush_s: For how many seconds the events of cache hits may wait; a reload may change it.
        """
        self.failures = 0
        self.flush_s = flush_s
        self._writing = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._wake = threading.Event()
        self._flusher: threading.Thread | None = None
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
        """Return the new trail of one request."""
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
        """Write an event that is not a decision. Never raises.

        `fields` returns its fields, given the key for hashes; `limited` as for `_put`.
        """
        self._put(lambda time: {"time": time, **fields(self._secret)}, limited)

    def flush(self) -> None:
        """Write the delayed and the waiting events, at the end of the process."""
        self._throttle.flush()
        self.write_waiting()

    def write_waiting(self) -> None:
        """Write the events of hits that wait. Never raises."""
        with self._writing:
            self._write_with(b"")

    def _put(self, event: Callable[[str], dict[str, Any]], limited: str) -> None:
        """Write one event, built from its time; if `limited` names a kind, at most one per second of that kind.

        Otherwise any caller could fill the audit log. The field `suppressed` contains how many events were left out.
        """
        now = self._now()
        if limited:
            self._throttle.offer(limited, lambda others: self._put_now(event, now, others))
        else:
            self._put_now(event, now, 0)

    def _put_now(self, event: Callable[[str], dict[str, Any]], time: str, suppressed: int) -> None:
        """Write one event; that of a request which got a kept token may wait."""
        try:
            fields = event(time)
            line = _line({**fields, "suppressed": suppressed} if suppressed else fields)
        except Exception as fault:  # noqa: BLE001 - the response must not depend on the audit log
            self._failed(fault)
            return
        with self._writing:
            size = self._waiting_bytes + len(line)
            if fields.get("cached") is True and self.flush_s > 0 and size <= BATCH_BYTES and self._has_flusher():
                self._waiting.append(line)
                self._waiting_bytes = size
                self._wake.set()
            else:
                self._write_with(line)

    def _write_with(self, line: bytes) -> None:
        """Write what waits, and `line` after it; the caller holds the lock, so that the order is kept."""
        lines = [*self._waiting, line] if line else self._waiting
        self._waiting, self._waiting_bytes = [], 0
        if not lines:
            return
        try:
            self._write(b"".join(lines))
        except Exception as fault:  # noqa: BLE001 - the answer must not depend on whether it can be written down
            self._failed(fault, getattr(fault, "lost", len(lines)))

    def _has_flusher(self) -> bool:
        """Whether a thread writes what waits; it is started with the first event, in the worker's own process."""
        if self._flusher is None:
            thread = threading.Thread(target=self._flush_for_ever, name="audit", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is to be had, or the process ends: this event does not wait
                return False
            self._flusher = thread
        return True

    def _flush_for_ever(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            sleep(self.flush_s)
            self.write_waiting()

    def _now(self) -> str:
        """Return the time as RFC 3339 text in UTC with milliseconds; the text of a second is cached."""
        now = self._clock()
        second = int(now)
        known, text = self._second
        if known != second:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (second, text)
        return f"{text}.{int((now - second) * 1000):03d}Z"

    def _failed(self, fault: Exception, events: int = 1) -> None:
        """Count lost events, and log it at most once a minute: a full disk must not fill another one with messages."""
        with self._telling:
            self.failures += events
            now = self._monotonic()
            tell = now - self._told_at >= _TELL_EVERY_S
            if tell:
                self._told_at = now
        if self._metrics is not None:
            self._metrics.audit_failed(events)
        if tell:
            why = fault.strerror if isinstance(fault, OSError) else type(fault).__name__
            log.error("audit event lost", why=why, lost=self.failures, at=log.where(fault))


def _line(event: dict[str, Any]) -> bytes:
    line = _encode(event).encode("ascii") + b"\n"
    if len(line) < LINE_BYTES:  # one byte is reserved for the line break after an incomplete line
        return line
    # Shorten first what a caller can enlarge; the fields for client, reason and token always stay.
    event["audiences"] = [name[:_SHORT_TEXT] for name in (event["audiences"] or ())[:_SHORT_ITEMS]]
    event["scopes"] = None
    event["truncated"] = True
    if "shadow" in event:
        event["shadow"] = dict([*event["shadow"].items()][:_SHORT_ITEMS])
    if "facts" in event:
        event["facts"] = {name: value for name, value in event["facts"].items() if name == "why"}
    return _encode(event).encode("ascii") + b"\n"
