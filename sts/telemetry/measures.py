"""The metrics, for Prometheus. Labels are configured names and fixed words only, so no caller can add series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from sts.errors import REASONS
from sts.telemetry.logs import log
from sts.telemetry.values import merged

DOORS: Final = ("token", "forward_auth")
_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that is computed at each scrape, such as the age of a key; `name` begins with `sts_`."""

    name: str
    sentence: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Feed = Callable[[], Iterable[Reading]]


class _Readings(Collector):
    """Calls each feed at each scrape; a feed that fails loses only its own readings."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = feeds

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for feed in self._feeds:
            try:
                readings = list(feed())
            except Exception as fault:  # noqa: BLE001 - one part's fault must not hide the other parts
                log.error("metrics feed failed", fault=type(fault).__name__, at=log.where(fault))
                continue
            for reading in readings:
                names = list(reading.labels)
                family = families.setdefault(
                    reading.name, GaugeMetricFamily(reading.name, reading.sentence, labels=names)
                )
                family.add_metric(list(reading.labels.values()), reading.value)
        return families.values()


class Metrics:
    """All counters of the service. Create one per process, `metrics`.

    The children of a decision's counters are created at the start: the request path then is faster, and every series
    exists from the start, at zero.
    """

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._own = own
        self._feeds: list[Feed] = []
        self._decisions = Counter(
            "sts_decisions", "Decisions by door and reason.", ["door", "outcome", "reason", "cached"], registry=own
        )
        self._seconds = Histogram(
            "sts_decision_seconds", "Time to decide.", ["door", "cached"], buckets=_SECONDS, registry=own
        )
        self._cache_entries = Gauge(
            "sts_cache_entries", "Tokens in the cache.", multiprocess_mode="livesum", registry=own
        )
        self._cache_bytes = Gauge("sts_cache_bytes", "Size of the cache.", multiprocess_mode="livesum", registry=own)
        self._cache_evictions = Counter("sts_cache_evictions", "Tokens evicted to make room.", registry=own)
        self._fetches = Counter("sts_jwks_fetches", "Fetches of issuers' keys.", ["source", "outcome"], registry=own)
        self._opa = Counter("sts_opa_questions", "Requests to OPA.", ["outcome"], registry=own)
        self._introspections = Counter(
            "sts_introspections", "Introspection requests for opaque tokens.", ["source", "outcome"], registry=own
        )
        self._rows = Counter("sts_table_rows", "Row lookups.", ["table", "outcome"], registry=own)
        self._over_budget = Counter(
            "sts_rules_over_budget", "Requests refused by the budget of a rule.", ["source"], registry=own
        )
        self._answered = Counter("sts_introspection_answers", "Answers at /introspect.", ["outcome"], registry=own)
        self._reloads = Counter("sts_reloads", "Reloads of the configuration.", ["outcome"], registry=own)
        self._audit_failures = Counter("sts_audit_failures", "Audit events that were not written.", registry=own)
        self._unknown = Counter("sts_unknown_parameters", "Unknown parameters, ignored at /token.", registry=own)
        self._handshakes = Counter("sts_handshakes_failed", "TLS handshakes with callers that failed.", registry=own)
        self._accepts = Counter("sts_accepts_failed", "Connections that could not be accepted.", registry=own)
        self._loop_lag = Histogram(
            "sts_loop_lag_seconds", "Seconds for which the event loop was blocked.", buckets=_LAG_SECONDS, registry=own
        )
        self._unmarked = Counter("sts_once_only_unmarked", "Proofs accepted without a replay mark.", registry=own)
        self._limited = Counter(
            "sts_clients_limited", "Failures of client authentication over the limit.", registry=own
        )
        self._bind()

    def _bind(self) -> None:
        self._count = {
            (door, reason, cached): self._decisions.labels(
                door, "refused" if reason else "allowed", reason, str(cached).lower()
            )
            for door in DOORS
            for reason, cached in [("", True), ("", False), *((reason, False) for reason in REASONS)]
        }
        self._time = {
            (door, cached): self._seconds.labels(door, str(cached).lower())
            for door in DOORS
            for cached in (True, False)
        }
        for outcome in ("accepted", "refused"):
            self._reloads.labels(outcome)
        for outcome in ("answered", "failed"):
            self._opa.labels(outcome)

    def decision(self, door: str, reason: str, *, cached: bool, seconds: float) -> None:
        """Count one decision; `reason` is the name of the refusal's reason, "" for an allowed request."""
        self._count[door, reason, cached].inc()
        self._time[door, cached].observe(seconds)

    def cache_changed(self, entries: int, size: int, evicted: int) -> None:
        """Report this worker's token cache: its entries, their bytes, and how many were just evicted."""
        self._cache_entries.set(entries)
        self._cache_bytes.set(size)
        if evicted:
            self._cache_evictions.inc(evicted)

    def jwks_fetched(self, source: str, outcome: str) -> None:
        """Count a fetch of a source's keys; `outcome` is one of a few fixed words."""
        self._fetches.labels(source, outcome).inc()

    def opa_asked(self, outcome: str) -> None:
        """Count a request to OPA: "answered" for any decision, or "failed"."""
        self._opa.labels(outcome).inc()

    def introspected(self, source: str, outcome: str) -> None:
        """Count the result of an introspection request; `outcome` is one of a few fixed words."""
        self._introspections.labels(source, outcome).inc()

    def row_looked_up(self, table: str, outcome: str) -> None:
        """Count a row lookup: "found", "missing" or "failed"."""
        self._rows.labels(table, outcome).inc()

    def rule_over_budget(self, source: str) -> None:
        """Count a request that is refused because a rule exceeded its budget; `source` proved the credential."""
        self._over_budget.labels(source).inc()

    def introspection_answered(self, outcome: str) -> None:
        """Count an answer at `/introspect`: "active", "inactive" or "refused"."""
        self._answered.labels(outcome).inc()

    def reloaded(self, outcome: str) -> None:
        """Count a reload: "accepted" or "refused"."""
        self._reloads.labels(outcome).inc()

    def client_limited(self) -> None:
        """Count a failure of client authentication that was over the limit."""
        self._limited.inc()

    def unmarked(self) -> None:
        """Count a replay-protected proof that was accepted without a mark."""
        self._unmarked.inc()

    def handshake_failed(self) -> None:
        """Count a TLS handshake that failed."""
        self._handshakes.inc()

    def accept_failed(self) -> None:
        """Count a connection that could not be accepted for lack of file descriptors or memory."""
        self._accepts.inc()

    def loop_held(self, seconds: float) -> None:
        """Record one measurement of the event loop, which was blocked for `seconds`."""
        self._loop_lag.observe(seconds)

    def audit_failed(self, events: int = 1) -> None:
        """Count audit events that were not written."""
        self._audit_failures.inc(events)

    def unknown_parameter(self) -> None:
        """Count a parameter that `/token` does not know and ignores (RFC 6749 §3.2)."""
        self._unknown.inc()

    def feed(self, readings: Feed) -> None:
        """Call `readings` at every scrape; its numbers describe this worker only."""
        self._feeds.append(readings)

    def render(self) -> tuple[str, bytes]:
        """Return content type and text for Prometheus, of all workers if `prepare_metrics` was called."""
        readings = CollectorRegistry()
        readings.register(_Readings(self._feeds))
        with merged(self._own) as registry:
            return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry) + generate_latest(readings)


metrics: Final = Metrics()
"""The metrics of this process."""
