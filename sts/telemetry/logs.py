"""The operational log: one line per event on standard error, as JSON, or as readable text on a terminal.

It reports the service's own condition; decisions are in the audit. The logs of Python's `logging` and of gunicorn pass
the same redaction. No function here raises: a log that cannot be written must not change an answer.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import sys
import traceback
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict

from sts.errors import StartError
from sts.telemetry.pipes import Turn
from sts.telemetry.redaction import mask, masked
from sts.telemetry.throttle import Throttle

_OURS: Final = ("sts", "keys")
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_RESERVED: Final = {"time", "level", "event"}
_OF_ONE_REQUEST: Final = {"request_id", "peer"}
_INVALID: Final = "Invalid request from ip="


class _Output:
    """The output for lines: a stream, or the current standard error."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.turn = Turn()

    @property
    def stream(self) -> TextIO:
        return sys.stderr if self._stream is None else self._stream

    def write(self, line: str) -> None:
        """Write a line at once, so that the lines of several workers do not mix."""
        stream = self.stream
        try:
            descriptor = stream.fileno()
        except (AttributeError, io.UnsupportedOperation):  # in memory
            stream.write(line + "\n")
            return
        with self.turn.wait(descriptor):
            stream.write(line + "\n")
            stream.flush()

    info = warning = error = critical = write


def _redact(_logger: object, _name: str, event: EventDict) -> EventDict:
    facts = {name: masked(value, name) for name, value in event["facts"].items()}
    return {"time": event["time"], "level": event["level"], "event": mask(event["event"])} | {
        name: value for name, value in facts.items() if name not in _RESERVED
    }


_JSON: Final = structlog.processors.JSONRenderer()
_READABLE: Final = structlog.dev.ConsoleRenderer(
    timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
)


def _render(output: _Output, name: str, event: EventDict) -> str | bytes:
    renderer = _READABLE if output.stream.isatty() else _JSON
    return renderer(output, name, event)


class Log:
    """The service's log. `facts` are names, numbers, hashes and key ids: never a token, a claim's value or a key.

    Callers can cause some lines as often as they like. Of lines that differ only in the request, one a second is
    written; `suppressed` is the number of lines left out since the last one.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.throttle = Throttle()
        self.output = _Output(stream)
        self._logger = structlog.wrap_logger(
            self.output,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                _redact,
                _render,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    def info(self, event: str, **facts: object) -> None:
        """Log a normal event."""
        self.tell("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Log an event that an operator should check."""
        self.tell("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Log a failure."""
        self.tell("error", event, facts)

    def tell(self, level: str, event: str, facts: dict[str, object]) -> None:
        """Write one event at `level`; events below "info" are dropped."""
        number = _LEVELS[level]
        if number < logging.INFO:
            return
        alike = [f"{name}={value}" for name, value in facts.items() if name not in _OF_ONE_REQUEST]
        self.throttle.offer(" ".join((level, event, *alike)), lambda others: self._write(number, event, facts, others))

    def _write(self, level: int, event: str, facts: dict[str, object], suppressed: int) -> None:
        # A closed or full standard error must not change an answer.
        with contextlib.suppress(OSError, ValueError):
            self._logger.log(level, event, facts={**facts, "suppressed": suppressed} if suppressed else facts)

    @staticmethod
    def where(fault: BaseException) -> str:
        """Return where a fault arose, "module:line": the innermost frame of our code, else the innermost frame.

        The result contains neither the fault's message nor any value: both may contain input.
        """
        frames = [
            (frame.f_globals.get("__name__", "?"), line) for frame, line in traceback.walk_tb(fault.__traceback__)
        ]
        ours = [place for place in frames if place[0].partition(".")[0] in _OURS]
        module, line = (ours or frames or [("?", 0)])[-1]
        return f"{module}:{line}"


log: Final = Log()
"""The log of this process."""
atexit.register(log.throttle.flush)
os.register_at_fork(after_in_child=log.throttle.forget)
os.register_at_fork(after_in_child=log.output.turn.forget)


def _facts_of(fault: BaseException | None) -> dict[str, object]:
    if fault is None:
        return {}
    facts: dict[str, object] = {"fault": type(fault).__name__, "at": Log.where(fault)}
    return facts | {"why": str(fault)} if isinstance(fault, StartError) else facts  # its text is for the operator


class _Handler(logging.Handler):
    """Sends what libraries log through Python's `logging` to our log; of an exception only its type and place."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno < logging.ERROR else "error"
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken log call
            event = str(record.msg)
        fault = record.exc_info[1] if record.exc_info else None
        log.tell(level, event.partition("\n")[0], {"logger": record.name, **_facts_of(fault)})


def take_over_logging() -> None:
    """Route warnings and errors of libraries, and Python's warnings, through our redaction and to no other output."""
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [_Handler(logging.WARNING)]
    root.setLevel(logging.WARNING)


class GunicornLogger:
    """gunicorn's `logger_class`: sends gunicorn's messages to our log. There is no access log; the audit replaces it.

    gunicorn would write tracebacks, request targets and malformed header lines unchanged. Here an exception is logged
    as its type and place, and an invalid request as its peer and the type of the fault.
    """

    def __init__(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        self.cfg = cfg

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Store gunicorn's new configuration, which has no effect here."""
        self.cfg = cfg

    def _tell(self, level: str, message: object, args: tuple[object, ...], *, fault: BaseException | None) -> None:
        text = message if isinstance(message, str) else type(message).__name__
        if fault is not None:  # the arguments contain the request's target, for example
            log.tell(level, text.partition("%")[0].strip(" :'\""), _facts_of(fault))
            return
        with contextlib.suppress(TypeError, ValueError):
            text = text % args if args else text
        log.tell(level, text.partition("\n")[0], {})

    def critical(self, message: object, *args: object, **_: object) -> None:
        """Log a critical event, such as a worker that hangs."""
        self._tell("critical", message, args, fault=None)

    def error(self, message: object, *args: object, exc_info: object = None, **_: object) -> None:
        """Log a failure in gunicorn."""
        self._tell("error", message, args, fault=sys.exc_info()[1] if exc_info else None)

    def exception(self, message: object, *_args: object, **_: object) -> None:
        """Log the type and place of the exception that is being handled."""
        self._tell("error", message, (), fault=sys.exc_info()[1])

    def warning(self, message: object, *args: object, **_: object) -> None:
        """Log a warning; of an invalid request none of its content."""
        if isinstance(message, str) and message.startswith(_INVALID):
            kind = sys.exc_info()[0]
            peer = message.removeprefix(_INVALID).partition(": ")[0]
            log.warning("invalid request", peer=peer, fault=kind.__name__ if kind else "?")
        else:
            self._tell("warning", message, args, fault=None)

    def info(self, message: object, *args: object, **_: object) -> None:
        """Log that workers start and stop."""
        self._tell("info", message, args, fault=None)

    def debug(self, message: object, *args: object, **_: object) -> None:
        """Drop the line: gunicorn's debug lines contain its configuration and its input."""

    def log(self, level: int | str, message: object, *args: object, **_: object) -> None:
        """Log at a level given by name or number."""
        number = _LEVELS.get(level.lower(), logging.INFO) if isinstance(level, str) else level
        name = next((name for name, least in reversed(_LEVELS.items()) if number >= least), "debug")
        if name != "debug":
            self._tell(name, message, args, fault=None)

    def access(self, *_: object) -> None:
        """Write no access log: targets contain queries, and each decision has its audit event."""

    def reopen_files(self) -> None:
        """Required by gunicorn; there are no files to open again."""

    def close_on_exec(self) -> None:
        """Required by gunicorn; there are no files to close."""
