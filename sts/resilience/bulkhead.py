"""A limited number of places for waiting requests, shared fairly by callers.

This module prevents a known fault of other implementations: one caller that sends many requests at once takes every
place, and all other callers are refused. A caller is a client together with the address of its user, if the gateway
reports the address. A caller is stored only while it waits, so that invented callers cost no memory.
"""

# ruff: noqa: SLF001 - bulkheads that share places are one mechanism under one lock

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import IPv6Address, ip_address
from typing import Final

from sts.errors import StsError

Who = tuple[str, str]
"""A client and a network address."""

QUEUE: Final = 6
"""The default length of the queue, as a multiple of the places."""

_CALLER: ContextVar[Who] = ContextVar("caller", default=("", ""))
_IPV6_NETWORK_BITS: Final = 64  # one household or host has at least this network: all its addresses are one caller


@contextmanager
def on_behalf_of(client: str, address: str) -> Iterator[None]:
    """Attribute the work of this thread in the block to `client` and the user at `address` ("" if unknown)."""
    token = _CALLER.set((client, _network(address)))
    try:
        yield
    finally:
        _CALLER.reset(token)


def _network(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address[:64]
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> (128 - _IPV6_NETWORK_BITS):x}::"


class FullError(StsError):
    """There is no place. `stalled` is true if the request waited for a place and none became free in that time."""

    def __init__(self, text: str, *, stalled: bool = False) -> None:
        super().__init__(text)
        self.stalled = stalled


class _Turn:
    """A request in the queue; decided when it gets a place, or loses its turn to another caller."""

    __slots__ = ("decided", "place", "who")

    def __init__(self, who: Who) -> None:
        self.who = who
        self.decided = threading.Event()
        self.place: Place | None = None


class Place:
    """A taken place. Any thread may call `leave`, once."""

    __slots__ = ("_bulkhead", "_who")

    def __init__(self, bulkhead: Bulkhead, who: Who) -> None:
        self._bulkhead, self._who = bulkhead, who

    def leave(self) -> None:
        """Free the place for the next request in the queue."""
        self._bulkhead._release(self._who)


class Bulkhead:
    """At most `places` requests at once, and `queue` more that wait for their turn.

    With four or more places, one caller never gets all of them: one in eight is kept for others. Free places go to the
    callers in turn, independent of the number of their requests in the queue. If the queue is full, a caller with fewer
    requests in it takes the newest turn of the caller with the most. In a bulkhead with `shared`, each place also needs
    a place of the shared one, and the queue counts there, too.
    """

    def __init__(self, places: int, *, queue: int = 0, shared: Bulkhead | None = None) -> None:
        self._places, self._room, self._shared = places, queue, shared
        self._share = places - (places + 4) // 8  # one in eight is kept for others, also one of four
        self._lock: threading.Lock = threading.Lock() if shared is None else shared._lock
        self._taken: Counter[Who] = Counter()
        self._in_use = 0
        self._queues: dict[Who, deque[_Turn]] = {}  # the next caller is the first
        self._queued = 0
        self._left = 0
        self._waiting: dict[Bulkhead, None] = {}  # the bulkheads with a queue, of all that share this one

    @property
    def free(self) -> int:
        """The number of free places."""
        return self._places - self._in_use

    @property
    def queued(self) -> int:
        """The number of requests that wait for their turn."""
        return self._queued

    def enter(self, stall: float = 0.0, most: float = 0.0) -> Place:
        """Take a place, or wait for one.

        Args:
            stall: Stop waiting if no place has become free for this many seconds; 0: do not wait.
            most: The maximum waiting time in seconds.

        Raises:
            FullError: There is no place.
        """
        who = _CALLER.get()
        with self._lock:
            if self._fits(who):
                return self._take(who)
            if stall <= 0 or not self._make_room(who):
                raise FullError("too many requests wait for it")
            turn = _Turn(who)
            self._queues.setdefault(who, deque()).append(turn)
            self._count(1)
            left = self._left
        end = time.monotonic() + most
        while not turn.decided.wait(max(0.0, min(stall, end - time.monotonic()))):
            with self._lock:
                if turn.decided.is_set():
                    break
                stalled = self._left == left
                if stalled or time.monotonic() >= end:
                    self._withdraw(turn)
                    raise FullError("too many requests wait for it", stalled=stalled)
                left = self._left
        if turn.place is None:
            raise FullError("too many requests of this caller wait for it")
        return turn.place

    def _fits(self, who: Who) -> bool:
        if self._in_use >= self._places or self._taken[who] >= self._share:
            return False
        return self._shared is None or self._shared._fits(who)

    def _take(self, who: Who) -> Place:
        self._change(who, 1)
        return Place(self, who)

    def _release(self, who: Who) -> None:
        with self._lock:
            self._change(who, -1)
            self._left += 1
            root = self._shared or self
            for one in [self, *root._waiting]:
                one._serve()

    def _change(self, who: Who, by: int) -> None:
        for one in (self, self._shared):
            if one is not None:
                one._in_use += by
                one._taken[who] += by
                if not one._taken[who]:
                    del one._taken[who]

    def _serve(self) -> None:
        """Give free places to callers in turn."""
        served = True
        while served and self._in_use < self._places:
            served = False
            for who in list(self._queues):
                if self._fits(who):
                    self._grant(who)
                    served = True

    def _grant(self, who: Who) -> None:
        turns = self._queues.pop(who)
        turn = turns.popleft()
        if turns:
            self._queues[who] = turns  # at the end, behind all other callers
        self._count(-1)
        turn.place = self._take(who)
        turn.decided.set()

    def _make_room(self, who: Who) -> bool:
        """Return whether one more may wait; in a full queue, the caller with the most requests loses one."""
        root = self._shared or self
        if self._queued < self._room and root._queued < root._room:
            return True
        branches = root._waiting if root._queued >= root._room else {self: None}
        queues = [(one, turns) for one in branches for turns in one._queues.values()]
        branch, longest = max(queues, key=lambda found: len(found[1]), default=(self, deque()))
        if len(longest) <= len(self._queues.get(who, ())) + 1:
            return False
        last = longest[-1]
        branch._withdraw(last)
        last.decided.set()
        return True

    def _withdraw(self, turn: _Turn) -> None:
        turns = self._queues[turn.who]
        turns.remove(turn)
        if not turns:
            del self._queues[turn.who]
        self._count(-1)

    def _count(self, by: int) -> None:
        self._queued += by
        root = self._shared or self
        if root is not self:
            root._queued += by
        if self._queued:
            root._waiting[self] = None
        else:
            root._waiting.pop(self, None)
