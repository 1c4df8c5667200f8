"""A bounded store in this process: what it holds may be lost at any time, and is never handed out after its life.

A look-up takes no lock: it reads one dictionary and marks what it found as used. Only writers share a lock. Hence the
order of eviction is "second chance" (CLOCK) and not a strict LRU, which would have to move an element at each look-up:
the oldest value goes, unless it was used since the last time round.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

Changed = Callable[[int, int, int], None]
"""Told of the number of values, their bytes, and how many were just evicted for want of room."""

OVERHEAD: Final = 400
"""Bytes that one value costs beside itself: key, slot, dictionary, ring and heap, measured at their worst moment."""

_MERCY: Final = 64
"""How many used values one write may spare before it evicts the oldest all the same: bounds the time of a write."""


class _Slot(Generic[Value]):
    """One value and its place. One whose `value` is None was removed; ring and heap drop it when they meet it."""

    __slots__ = ("ends", "key", "size", "used", "value")

    def __init__(self, key: bytes, value: Value, size: int, ends: float) -> None:
        self.key = key
        self.value: Value | None = value
        self.size = size
        self.ends = ends
        self.used = False

    def __lt__(self, other: _Slot[Value]) -> bool:
        return self.ends < other.ends


class Memory(Generic[Value]):
    """Values by key, together at most `bound` bytes. Safe to share between threads, not between processes."""

    def __init__(self, bound: int, changed: Changed | None = None) -> None:
        self.bound = bound
        self.size = 0
        self.evictions = 0
        self._changed = changed
        self._slots: dict[bytes, _Slot[Value]] = {}
        self._ring: deque[_Slot[Value]] = deque()
        self._heap: list[_Slot[Value]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: bytes, now: float) -> Value | None:
        """The value kept under `key`, or None once its life is over (`now` in Unix seconds). Takes no lock."""
        slot = self._slots.get(key)
        if slot is None or now >= slot.ends:
            return None
        slot.used = True
        return slot.value

    def put(self, key: bytes, value: Value, *, size: int, ends: float, now: float) -> None:
        """Keep `value`, which takes `size` bytes, until `ends` (Unix seconds); what is too large is not kept.

        Makes room first by dropping what has ended, so that the dead never crowd out the living, then by eviction.
        """
        size += OVERHEAD
        with self._lock:
            previous = self._slots.get(key)
            if previous is not None:
                self._remove(previous)
            while self._heap and self._heap[0].ends <= now:
                self._remove(heapq.heappop(self._heap))
            if size <= self.bound and now < ends:
                evicted = self._make_room(size)
                self._add(_Slot(key, value, size, ends))
                self.evictions += evicted
            else:
                evicted = 0
            if self._changed is not None:
                self._changed(len(self._slots), self.size, evicted)

    def _add(self, slot: _Slot[Value]) -> None:
        self._slots[slot.key] = slot
        self.size += slot.size
        self._ring.append(slot)
        heapq.heappush(self._heap, slot)
        if max(len(self._ring), len(self._heap)) > 2 * len(self._slots) + 16:  # too many removed ones linger
            self._ring = deque(slot for slot in self._ring if slot.value is not None)
            self._heap = [slot for slot in self._heap if slot.value is not None]
            heapq.heapify(self._heap)

    def _remove(self, slot: _Slot[Value]) -> None:
        if slot.value is not None:
            del self._slots[slot.key]
            self.size -= slot.size
            slot.value = None

    def _make_room(self, size: int) -> int:
        evicted = 0
        mercy = _MERCY
        while self.size + size > self.bound:
            slot = self._ring.popleft()
            if slot.value is None:
                continue
            if slot.used and mercy:
                mercy -= 1
                slot.used = False
                self._ring.append(slot)
            else:
                self._remove(slot)
                evicted += 1
        return evicted
