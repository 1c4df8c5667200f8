"""Our own functions in CEL: `ip_in` and `lookup`.

What they do not take (an address that is none, a key that is too long) ends the evaluation, whatever the rule makes of
it: `!ip_in(request.ip, …)` must not be true of an address that nobody can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol

from cel_expr_python import cel

from sts.expressions.library import overload
from sts.expressions.values import Frame
from sts.expressions.words import NOT_AN_ADDRESS, TOO_LONG, UNSAFE_TEXT, EvaluationError, RowsWanted

MAX_KEY: Final = 1024
"""Characters of a key that is looked up."""
LOOKUP: Final = "lookup"
IP_IN: Final = "ip_in"
_STEPS_OF_A_RANGE: Final = 10


class Rows(Protocol):
    """The rows at hand."""

    def get(self, pair: tuple[str, str], /) -> Mapping[str, Any] | None:
        """The values of the row (table, key), None if it is not at hand."""


@overload(LOOKUP, str, str)
def _lookup(frame: Frame, table: str, key: str) -> Mapping[str, Any]:
    if "\0" in key:
        raise EvaluationError(UNSAFE_TEXT)
    if len(key) > MAX_KEY:
        raise EvaluationError(TOO_LONG)
    row: Mapping[str, Any] | None = frame.rows.get((table, key))
    if row is None:
        raise RowsWanted(((table, key),))
    return row


@overload(IP_IN, str, str)
def _ip_in(frame: Frame, address: str, ranges: str) -> bool:
    return _ip_in_any(frame, address, [ranges])


@overload(IP_IN, str, list)
def _ip_in_any(frame: Frame, address: str, ranges: list[Any]) -> bool:
    frame.charge(len(ranges) * _STEPS_OF_A_RANGE)
    networks = _networks(tuple(ranges))
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


def declarations() -> list[cel.FunctionDecl]:
    """The functions as the library checks their use; it never calls them."""
    text = cel.Type.STRING
    row = cel.Type.Map(text, cel.Type.DYN)
    return [
        cel.FunctionDecl(
            IP_IN,
            [
                cel.Overload("ip_in_range", cel.Type.BOOL, [text, text]),
                cel.Overload("ip_in_ranges", cel.Type.BOOL, [text, cel.Type.List(text)]),
            ],
        ),
        cel.FunctionDecl(LOOKUP, [cel.Overload("lookup_row", row, [text, text])]),
    ]
