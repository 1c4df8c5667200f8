"""A bounded cache in this process. It never returns an expired value.

A look-up takes no lock: it reads one dictionary and marks the value as used. Only writers take the lock. Therefore the
order of eviction is "second chance" (CLOCK) and not strict LRU, which would move an element at each look-up: the oldest
value is evicted, unless it was used since the last pass.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

Changed = Callable[[int, int, int], None]
"""Called with the number of values, their bytes, and how many values this write evicted."""

OVERHEAD: Final = 400
"""The overhead of one value in bytes: key, slot, dictionary, ring and heap, measured at their maximum."""

_MERCY: Final = 64
"""How many used values one write may spare before it evicts the oldest one; this limits the time of a write."""


class _Slot(Generic[Value]):
    """One value with its data. If `value` is None, it was removed; ring and heap drop the slot later."""

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
    """Values by key, together at most `bound` bytes. Threads may share it, processes may not."""

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
        """Return the value under `key`, None if there is none or it has expired (`now` in Unix seconds). Lock-free."""
        slot = self._slots.get(key)
        if slot is None or now >= slot.ends:
            return None
        slot.used = True
        return slot.value

    def put(self, key: bytes, value: Value, *, size: int, ends: float, now: float) -> None:
        """Keep `value` of `size` bytes until `ends` (Unix seconds); a value larger than `bound` is not kept.

        Room is made first by dropping expired values, so that they never displace current ones, then by eviction.
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
        if max(len(self._ring), len(self._heap)) > 2 * len(self._slots) + 16:  # too many removed slots remain
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
