"""The operational log: one line per event on standard error, JSON, or readable text on a terminal.

It tells what the operator should know of the service itself; decisions stand in the audit. Python's own logging and
gunicorn's are led through the same redaction. Nothing here ever raises: a log that cannot be written must not change
an answer.
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
    """Where lines go: a stream, or standard error as it is at that moment."""

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

    Strangers can cause some lines as often as they like, so that of lines that differ in nothing but the request one a
    second is written; `suppressed` says how many were left out since the one before.
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
        """Tell what happened as it should."""
        self.tell("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Tell what somebody should look at."""
        self.tell("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        """Tell what went wrong."""
        self.tell("error", event, facts)

    def tell(self, level: str, event: str, facts: dict[str, object]) -> None:
        """Write one event at `level`; below "info" nothing is written."""
        number = _LEVELS[level]
        if number < logging.INFO:
            return
        alike = [f"{name}={value}" for name, value in facts.items() if name not in _OF_ONE_REQUEST]
        self.throttle.offer(" ".join((level, event, *alike)), lambda others: self._write(number, event, facts, others))

    def _write(self, level: int, event: str, facts: dict[str, object], suppressed: int) -> None:
        # A closed or full standard error must not turn into an answer.
        with contextlib.suppress(OSError, ValueError):
            self._logger.log(level, event, facts={**facts, "suppressed": suppressed} if suppressed else facts)

    @staticmethod
    def where(fault: BaseException) -> str:
        """Where a fault of ours arose, "module:line": the innermost frame of our own code, else the innermost at all.

        Neither the fault's message nor any value: both may hold what came in.
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
    return facts | {"why": str(fault)} if isinstance(fault, StartError) else facts  # written for the operator


class _Handler(logging.Handler):
    """Leads what libraries log through Python's `logging` into ours; of an exception only its type and place."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno < logging.ERROR else "error"
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken log call
            event = str(record.msg)
        fault = record.exc_info[1] if record.exc_info else None
        log.tell(level, event.partition("\n")[0], {"logger": record.name, **_facts_of(fault)})


def take_over_logging() -> None:
    """Let warnings and errors that libraries log, and Python's warnings, go through our redaction and nowhere else."""
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [_Handler(logging.WARNING)]
    root.setLevel(logging.WARNING)


class GunicornLogger:
    """gunicorn's `logger_class`: what it has to say goes to our log; an access log there is none, the audit is it.

    gunicorn would write tracebacks, request targets and malformed header lines as they came in: of an exception we
    tell its type and place, of an invalid request the peer and what was wrong with it.
    """

    def __init__(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        self.cfg = cfg

    def setup(self, cfg: Any) -> None:  # noqa: ANN401 - gunicorn has no types
        """Take gunicorn's new configuration; nothing here depends on it."""
        self.cfg = cfg

    def _tell(self, level: str, message: object, args: tuple[object, ...], *, fault: BaseException | None) -> None:
        text = message if isinstance(message, str) else type(message).__name__
        if fault is not None:  # its arguments are the request's target and the like
            log.tell(level, text.partition("%")[0].strip(" :'\""), _facts_of(fault))
            return
        with contextlib.suppress(TypeError, ValueError):
            text = text % args if args else text
        log.tell(level, text.partition("\n")[0], {})

    def critical(self, message: object, *args: object, **_: object) -> None:
        """Tell of a worker that hangs, and the like."""
        self._tell("critical", message, args, fault=None)

    def error(self, message: object, *args: object, exc_info: object = None, **_: object) -> None:
        """Tell what went wrong in gunicorn."""
        self._tell("error", message, args, fault=sys.exc_info()[1] if exc_info else None)

    def exception(self, message: object, *_args: object, **_: object) -> None:
        """Tell the type and place of the exception that is being handled."""
        self._tell("error", message, (), fault=sys.exc_info()[1])

    def warning(self, message: object, *args: object, **_: object) -> None:
        """Tell what somebody should look at; of an invalid request nothing that it held."""
        if isinstance(message, str) and message.startswith(_INVALID):
            kind = sys.exc_info()[0]
            peer = message.removeprefix(_INVALID).partition(": ")[0]
            log.warning("invalid request", peer=peer, fault=kind.__name__ if kind else "?")
        else:
            self._tell("warning", message, args, fault=None)

    def info(self, message: object, *args: object, **_: object) -> None:
        """Tell that workers start and stop."""
        self._tell("info", message, args, fault=None)

    def debug(self, message: object, *args: object, **_: object) -> None:
        """Say nothing: gunicorn's debug lines hold its configuration and what it reads."""

    def log(self, level: int | str, message: object, *args: object, **_: object) -> None:
        """Tell at a level that is given by name or number."""
        number = _LEVELS.get(level.lower(), logging.INFO) if isinstance(level, str) else level
        name = next((name for name, least in reversed(_LEVELS.items()) if number >= least), "debug")
        if name != "debug":
            self._tell(name, message, args, fault=None)

    def access(self, *_: object) -> None:
        """Write no access log: targets hold queries, and each decision has its audit event."""

    def reopen_files(self) -> None:
        """There are no files to open again."""

    def close_on_exec(self) -> None:
        """There are no files to close."""
