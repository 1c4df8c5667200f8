"""Failed client authentication is limited (RFC 6749 §2.3.1); right credentials never are.

The peer is mostly a gateway that carries everybody, so a storm of wrong secrets from it must not lock out its right
one: who has proven itself is never asked for here. What the limit spares is the audit and whoever reads it. Secrets
are safe from guessing by their 256 random bits, not by this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from pyrate_limiter import Rate, RateItem, StateBucket

from sts.errors import CLIENT_REFUSED, Refusal
from sts.model import Caller, Peer

BURST: Final = 30
"""Failures of one peer and client id that are answered as such, one after the other."""
PER_MINUTE: Final = 60
"""How many more there may be each minute; the others are answered with CLIENT_LIMITED."""
LANES: Final = 16
"""Into how many lanes the client ids of one peer fall: a peer that makes up ids has no more tries than this allows."""
SLOTS: Final = 4096
"""How many buckets there are at most, whatever peers and ids callers make up."""

CLIENT_LIMITED: Final = replace(CLIENT_REFUSED, token_status=429, forward_status=503)
"""The same refusal under another status, once there were too many (RFC 6585 §4)."""


class Failures:
    """The failures of the last minute by peer and client id, one for each worker and as long as it.

    Known and unknown ids are treated alike: a bucket of its own for each configured client, and one for all others,
    would say which ids exist. So every id falls into a lane by its hash, which nobody outside can foretell, and so
    does every peer's lane into a bucket. Callers who share one only share the status of their refusals. `clock` is
    any steady one, in seconds; `notice` hears of every limited failure.
    """

    def __init__(self, clock: Callable[[], float], notice: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._notice = notice
        self._buckets: dict[int, StateBucket] = {}

    def refusal(self, caller: Caller, why: str, **facts: object) -> Refusal:
        """Count one failure; the refusal to raise for it. `why` and `facts` are for the audit."""
        slot = hash((_origin(caller.peer), hash(caller.unverified_client_id) % LANES)) % SLOTS
        bucket = self._buckets.get(slot)
        if bucket is None:  # setdefault is one step for all threads
            bucket = self._buckets.setdefault(slot, StateBucket([Rate(PER_MINUTE, 60_000, burst=BURST)]))
        if bucket.put(RateItem("", int(self._clock() * 1000))):
            return Refusal(CLIENT_REFUSED, why=why, **facts)
        self._notice()
        return Refusal(CLIENT_LIMITED, why=why, limited=True, **{"peer": _shown(caller.peer), **facts})


def _origin(peer: Peer) -> object:
    """Whom a failure is counted for: an IPv4 address, the /64 of an IPv6 one, or everybody on our Unix socket."""
    try:
        address = ip_address(peer.address)
    except ValueError:
        return (peer.address, peer.unix)
    if address.version == 4:
        return int(address)
    mapped = address.ipv4_mapped
    # One host has a whole /64 to choose its address from.
    return int(mapped) if mapped is not None else ("/64", int(address) >> 64)


def _shown(peer: Peer) -> str:
    return "unix" if peer.unix else peer.address
