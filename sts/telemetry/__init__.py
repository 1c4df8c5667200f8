"""The service's own log and its metrics, for operators; the audit is separate."""

from sts.telemetry.logs import GunicornLogger, Log, log, take_over_logging
from sts.telemetry.measures import Metrics, Reading, metrics
from sts.telemetry.pipes import Turn
from sts.telemetry.redaction import know_prefixes, mask
from sts.telemetry.throttle import Throttle
from sts.telemetry.values import make_metrics_directory, mark_dead, prepare_metrics

__all__ = [
    "GunicornLogger",
    "Log",
    "Metrics",
    "Reading",
    "Throttle",
    "Turn",
    "know_prefixes",
    "log",
    "make_metrics_directory",
    "mark_dead",
    "mask",
    "metrics",
    "prepare_metrics",
    "take_over_logging",
]
