"""Timestamps and durations of CEL. A time zone is a name of the tz database or an offset such as `+02:00`."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final

from sts.expressions.library import overload
from sts.expressions.values import Duration, Frame, Timestamp
from sts.expressions.words import FailedError, OutOfRangeError

_SECOND: Final = 1_000_000_000
_LEAST: Final = -62_135_596_800 * _SECOND
_MOST: Final = 253_402_300_800 * _SECOND
_LONGEST: Final = 315_576_000_000 * _SECOND + _SECOND - 1
_MAX_DIFFERENCE: Final = 2**63
_MAX_TEXT: Final = 64

_WRITTEN: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(h|ms|us|ns|m|s)")
_UNITS: Final = {"h": 3600 * _SECOND, "m": 60 * _SECOND, "s": _SECOND, "ms": 1_000_000, "us": 1000, "ns": 1}
_OFFSET: Final = re.compile(r"([+-]?)([0-9]{1,2}):([0-9]{2})")


def _timestamp(nanoseconds: int) -> Timestamp:
    if not _LEAST <= nanoseconds < _MOST:
        raise OutOfRangeError
    return Timestamp(nanoseconds)


def _duration(nanoseconds: int) -> Duration:
    if not -_MAX_DIFFERENCE <= nanoseconds < _MAX_DIFFERENCE:
        raise OutOfRangeError
    return Duration(nanoseconds)


overload("timestamp", Timestamp)(lambda _, value: value)
overload("duration", Duration)(lambda _, value: value)
overload("timestamp", int)(lambda _, seconds: _timestamp(seconds * _SECOND))
overload("int", Timestamp)(lambda _, value: value.nanoseconds // _SECOND)
overload("_+_", Timestamp, Duration)(lambda _, left, right: _timestamp(left.nanoseconds + right.nanoseconds))
overload("_+_", Duration, Timestamp)(lambda _, left, right: _timestamp(left.nanoseconds + right.nanoseconds))
overload("_+_", Duration, Duration)(lambda _, left, right: _duration(left.nanoseconds + right.nanoseconds))
overload("_-_", Timestamp, Timestamp)(lambda _, left, right: _duration(left.nanoseconds - right.nanoseconds))
overload("_-_", Timestamp, Duration)(lambda _, left, right: _timestamp(left.nanoseconds - right.nanoseconds))
overload("_-_", Duration, Duration)(lambda _, left, right: _duration(left.nanoseconds - right.nanoseconds))


@overload("timestamp", str)
def _timestamp_of_text(_: Frame, text: str) -> Timestamp:
    """Read RFC 3339."""
    found = _WRITTEN.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if found is None:
        raise FailedError
    fraction = (found[7] or "")[:9].ljust(9, "0")
    try:
        moment = datetime(*(int(found[part]) for part in range(1, 7)), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        raise FailedError from None
    away = (int(found[9]) * 60 + int(found[10])) * 60 if found[8] else 0
    seconds = _seconds(moment) - (-away if found[8] == "-" else away)
    return _timestamp(seconds * _SECOND + int(fraction))


@overload("duration", str)
def _duration_of_text(_: Frame, text: str) -> Duration:
    """Read numbers with a unit each: `1h30m`, `-1.5s`."""
    if len(text) > _MAX_TEXT:
        raise FailedError
    minus, rest = text.startswith("-"), text.removeprefix("-") if text[:1] == "-" else text.removeprefix("+")
    if rest == "0":
        return Duration(0)
    total = at = 0
    while at < len(rest) or not rest:
        found = _PART.match(rest, at)
        if found is None or not (found[1] or found[2]):
            raise FailedError
        unit, behind = _UNITS[found[3]], found[2] or ""
        total += int(found[1] or "0") * unit + int(behind or "0") * unit // 10 ** len(behind)
        at = found.end()
    if total > _LONGEST:
        raise FailedError
    return Duration(-total if minus else total)


@overload("string", Timestamp)
def _text_of_timestamp(_: Frame, value: Timestamp) -> str:
    seconds, rest = divmod(value.nanoseconds, _SECOND)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y}".rjust(4, "0") + f"{moment:-%m-%dT%H:%M:%S}{_fraction(rest)}Z"


@overload("string", Duration)
def _text_of_duration(_: Frame, value: Duration) -> str:
    seconds, rest = divmod(abs(value.nanoseconds), _SECOND)
    return f"{'-' if value.nanoseconds < 0 else ''}{seconds}{_fraction(rest)}s"


def _fraction(nanoseconds: int) -> str:
    """Behind the point: three, six or nine digits, none where there is nothing."""
    digits = f"{nanoseconds:09d}"
    for length in (3, 6):
        if not digits[length:].strip("0"):
            digits = digits[:length]
            break
    return f".{digits}" if nanoseconds else ""


# --- questions --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """The time zone of this name. Raises FailedError.

    No file is looked for under a name that the tz database does not have: a caller may bring the name.
    """
    found = _OFFSET.fullmatch(name)
    if found:
        away = timedelta(hours=int(found[2]), minutes=int(found[3]))
        if away < timedelta(hours=24):
            return timezone(-away if found[1] == "-" else away)
    if name not in _names():
        raise FailedError
    return zoneinfo.ZoneInfo(name)


def _at(value: Timestamp, name: str) -> datetime:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value.nanoseconds // 1000)
        return moment.astimezone(zone(name)) if name else moment
    except OverflowError:  # the year 10000 of a zone east of Greenwich
        raise OutOfRangeError from None


def _seconds(moment: datetime) -> int:
    away = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return away.days * 86_400 + away.seconds


def _asking(name: str, answer: Callable[[datetime], int]) -> None:
    overload(name, Timestamp)(lambda _, value: answer(_at(value, "")))
    overload(name, Timestamp, str)(lambda _, value, where: answer(_at(value, where)))


_asking("getFullYear", lambda moment: moment.year)
_asking("getMonth", lambda moment: moment.month - 1)
_asking("getDate", lambda moment: moment.day)
_asking("getDayOfMonth", lambda moment: moment.day - 1)
_asking("getDayOfWeek", lambda moment: moment.isoweekday() % 7)
_asking("getDayOfYear", lambda moment: moment.timetuple().tm_yday - 1)
_asking("getHours", lambda moment: moment.hour)
_asking("getMinutes", lambda moment: moment.minute)
_asking("getSeconds", lambda moment: moment.second)
_asking("getMilliseconds", lambda moment: moment.microsecond // 1000)


def _units(name: str, unit: int, within: int = 0) -> None:
    @overload(name, Duration)
    def run(_: Frame, value: Duration) -> int:
        number = abs(value.nanoseconds) // unit
        number = number % within if within else number
        return -number if value.nanoseconds < 0 else number


_units("getHours", 3600 * _SECOND)
_units("getMinutes", 60 * _SECOND)
_units("getSeconds", _SECOND)
_units("getMilliseconds", 1_000_000, 1000)
