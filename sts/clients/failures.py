"""Rate limit for failed client authentication (RFC 6749 §2.3.1); successful authentication is never limited.

The peer is often a gateway that forwards the requests of all users. A flood of wrong secrets through it must not lock
out its right secret; therefore an authenticated client is never checked here. The limit protects the audit log and its
readers. Secrets are protected against guessing by their 256 random bits, not by this limit.
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
"""The number of successive failures of one peer and client id that are answered with CLIENT_REFUSED."""
PER_MINUTE: Final = 60
"""How many more such failures per minute; the others are answered with CLIENT_LIMITED."""
LANES: Final = 16
"""The number of lanes for the client ids of one peer; it limits the attempts of a peer that invents client ids."""
SLOTS: Final = 4096
"""The maximum number of buckets, for any number of peers and client ids."""

CLIENT_LIMITED: Final = replace(CLIENT_REFUSED, token_status=429, forward_status=503)
"""The same refusal with another status, after too many failures (RFC 6585 §4)."""


class Failures:
    """The failures of the last minute by peer and client id; each worker has one instance for its whole life.

    Known and unknown client ids are treated equally: a separate bucket for each configured client would reveal which
    ids exist. Therefore a hash that no outsider can predict assigns each id to a lane, and each lane of a peer to a
    bucket. Callers with the same bucket share only the status of their refusals.

    Args:
        clock: A monotonic clock in seconds.
        notice: Called for every limited failure.
    """

    def __init__(self, clock: Callable[[], float], notice: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._notice = notice
        self._buckets: dict[int, StateBucket] = {}

    def refusal(self, caller: Caller, why: str, **facts: object) -> Refusal:
        """Count one failure, and return the refusal to raise. `why` and `facts` are for the audit."""
        slot = hash((_origin(caller.peer), hash(caller.unverified_client_id) % LANES)) % SLOTS
        bucket = self._buckets.get(slot)
        if bucket is None:  # setdefault is atomic for threads
            bucket = self._buckets.setdefault(slot, StateBucket([Rate(PER_MINUTE, 60_000, burst=BURST)]))
        if bucket.put(RateItem("", int(self._clock() * 1000))):
            return Refusal(CLIENT_REFUSED, why=why, **facts)
        self._notice()
        return Refusal(CLIENT_LIMITED, why=why, limited=True, **{"peer": _shown(caller.peer), **facts})


def _origin(peer: Peer) -> object:
    """Return the rate-limit key of a peer: an IPv4 address, the /64 of an IPv6 address, or the whole Unix socket."""
    try:
        address = ip_address(peer.address)
    except ValueError:
        return (peer.address, peer.unix)
    if address.version == 4:
        return int(address)
    mapped = address.ipv4_mapped
    # One host can choose its addresses from a whole /64.
    return int(mapped) if mapped is not None else ("/64", int(address) >> 64)


def _shown(peer: Peer) -> str:
    return "unix" if peer.unix else peer.address
