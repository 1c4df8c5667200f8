r"""Our own functions in CEL: `ip_in` and `lookup`.

An exception of a Python function becomes a value in CEL that `|| true` swallows, and a text that it returns is cut at
NUL (LIB-E05). So each call leaves its failure with the `Watch` of its evaluation, and whoever evaluates asks the watch
before it believes the result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol, Self

from cel_expr_python import cel

from sts.expressions.words import BUDGET, NOT_AN_ADDRESS, OTHER, TOO_LONG, UNSAFE_TEXT, EvaluationError, RowsWanted

MAX_CALLS: Final = 1000
"""Calls of own functions in one evaluation: they do not count against the library's budget of iterations."""
MAX_KEY: Final = 1024
"""Characters of a key that is looked up."""
LOOKUP: Final = "lookup"
IP_IN: Final = "ip_in"
OWN: Final = frozenset({LOOKUP, IP_IN})


class Rows(Protocol):
    """The rows at hand."""

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        """The values of the row (table, key), None if it is not at hand."""


class Watch:
    """What the functions of one evaluation leave behind beside its result."""

    __slots__ = ("_calls", "_safe", "fault", "rows", "wanted")

    def __init__(self, rows: Rows, safe: Callable[[object], object]) -> None:
        self.rows = rows
        self.wanted: dict[tuple[str, str], None] = {}
        self.fault = ""
        self._safe = safe
        self._calls = 0

    def __enter__(self) -> Self:
        _here.watch = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.watch = None

    def check(self) -> None:
        """Raise RowsWanted or EvaluationError if the result is not to be believed."""
        if self.wanted:
            raise RowsWanted(tuple(self.wanted))
        if self.fault:
            raise EvaluationError(self.fault)

    def run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> object:
        """Call `function`; a failure is noted here, and raised for CEL to stop at."""
        self._calls += 1
        if self._calls > MAX_CALLS:
            self.fault = self.fault or BUDGET
            raise EvaluationError(BUDGET)
        try:
            return self._safe(function(self, *arguments))
        except EvaluationError as error:
            self.fault = self.fault or error.why
            raise
        except RowsWanted:
            raise
        except Exception:
            self.fault = self.fault or OTHER
            raise


class _Here(threading.local):
    watch: Watch | None = None


_here: Final = _Here()


def _lookup(watch: Watch, table: str, key: str) -> Mapping[str, Any]:
    if "\0" in key:
        raise EvaluationError(UNSAFE_TEXT)
    if len(key) > MAX_KEY:
        raise EvaluationError(TOO_LONG)
    row = watch.rows.get((table, key))
    if row is None:
        watch.wanted[(table, key)] = None
        raise RowsWanted(((table, key),))
    return row


def _ip_in(_watch: Watch, address: str, ranges: str | list[str]) -> bool:
    networks = _networks((ranges,) if isinstance(ranges, str) else tuple(ranges))
    if "%" in address:  # a zone says which link, and no range does
        raise EvaluationError(NOT_AN_ADDRESS)
    try:
        found = ip_address(address)
    except ValueError:
        raise EvaluationError(NOT_AN_ADDRESS) from None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped  # ::ffff:10.0.0.1 is how a socket for both kinds shows 10.0.0.1
    return any(found in network for network in networks)


@lru_cache(maxsize=256)
def _networks(ranges: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    if not all(isinstance(written, str) for written in ranges):  # a number is an address to the standard library
        raise EvaluationError(NOT_AN_ADDRESS)
    try:
        return tuple(ip_network(written) for written in ranges)
    except ValueError:
        raise EvaluationError(NOT_AN_ADDRESS) from None


def check_range(written: str) -> None:
    """Raise ValueError, saying why, for what is no address range such as 10.0.0.0/8."""
    try:
        ip_network(written)
    except ValueError as error:
        raise ValueError(f"a range of addresses is written like 10.0.0.0/8: {error}") from None


def _watched(function: Callable[..., object]) -> Callable[..., object]:
    def call(*arguments: Any) -> object:  # noqa: ANN401 - what CEL hands over
        watch = _here.watch
        if watch is None:
            raise EvaluationError(OTHER)
        return watch.run(function, arguments)

    return call


def declarations() -> list[cel.FunctionDecl]:
    """The functions as the library takes them."""
    text = cel.Type.STRING
    row = cel.Type.Map(text, cel.Type.DYN)
    ip_in, lookup = _watched(_ip_in), _watched(_lookup)
    return [
        cel.FunctionDecl(
            IP_IN,
            [
                cel.Overload("ip_in_range", cel.Type.BOOL, [text, text], impl=ip_in),
                cel.Overload("ip_in_ranges", cel.Type.BOOL, [text, cel.Type.List(text)], impl=ip_in),
            ],
        ),
        cel.FunctionDecl(LOOKUP, [cel.Overload("lookup_row", row, [text, text], impl=lookup)]),
    ]
