"""The bounded memory: its bound, its order of eviction, the life of what it holds, and many threads at once."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sts.cache.memory import OVERHEAD, Memory

SIZE = 1000  # with the overhead of each value
keys = st.sampled_from([bytes([n]) for n in range(12)])


def put(memory, key, value="value", *, ends=100.0, now=0.0, size=SIZE):
    memory.put(key, value, size=size - OVERHEAD, ends=ends, now=now)


def test_a_value_is_found_until_its_life_ends_and_not_at_that_instant():
    memory = Memory(10 * SIZE)
    put(memory, b"a", ends=10.0)
    assert memory.get(b"a", 9.999) == "value"
    assert memory.get(b"a", 10.0) is None
    assert memory.get(b"b", 0.0) is None


def test_a_later_value_replaces_an_earlier_one():
    memory = Memory(10 * SIZE)
    put(memory, b"a", "one")
    put(memory, b"a", "two")
    assert (memory.get(b"a", 0.0), len(memory), memory.size) == ("two", 1, SIZE)


def test_a_value_beyond_the_whole_bound_is_not_kept_and_evicts_nobody():
    memory = Memory(3 * SIZE)
    put(memory, b"a")
    put(memory, b"b", size=3 * SIZE + 1)
    assert (memory.get(b"a", 0.0), memory.get(b"b", 0.0)) == ("value", None)


def test_the_oldest_goes_first_unless_it_was_used():
    memory = Memory(3 * SIZE)
    for key in (b"a", b"b", b"c"):
        put(memory, key)
    memory.get(b"a", 0.0)
    put(memory, b"d")
    assert [key for key in (b"a", b"b", b"c", b"d") if memory.get(key, 0.0)] == [b"a", b"c", b"d"]
    assert memory.evictions == 1


def test_having_been_used_once_spares_a_value_once():
    memory = Memory(3 * SIZE)
    for key in (b"a", b"b", b"c"):
        put(memory, key)
    memory.get(b"a", 0.0)
    for key in (b"d", b"e", b"f"):
        put(memory, key)
    assert memory.get(b"a", 0.0) is None


def test_what_has_ended_already_takes_no_room():
    memory = Memory(3 * SIZE)
    put(memory, b"a", ends=10.0, now=10.0)
    assert (len(memory), memory.size) == (0, 0)


def test_values_that_nobody_uses_cannot_flush_one_that_is_used():
    """Lesson C.1."""
    memory = Memory(10 * SIZE)
    put(memory, b"used")
    for number in range(1000):
        assert memory.get(b"used", 0.0) == "value"
        put(memory, b"%d" % number)


def test_what_has_ended_makes_room_before_anything_alive_does():
    memory = Memory(10 * SIZE)
    put(memory, b"alive", ends=1000.0)
    for number in range(9):
        put(memory, b"short %d" % number, ends=10.0)
        memory.get(b"short %d" % number, 0.0)  # used lately, and dead all the same
    for number in range(9):
        put(memory, b"new %d" % number, ends=1000.0, now=10.0)
    assert memory.get(b"alive", 10.0) == "value"
    assert (memory.evictions, len(memory)) == (0, 10)


def test_a_write_does_not_walk_over_everything_that_is_used():
    memory = Memory(1000 * SIZE)
    for number in range(1000):
        put(memory, b"%d" % number)
        memory.get(b"%d" % number, 0.0)
    put(memory, b"new")
    spared = sum(not slot.used for slot in memory._slots.values())
    assert memory.evictions == 1
    assert spared <= 65  # bounded, so that no request waits for thousands of others' tokens


def test_removed_values_leave_nothing_behind_that_grows():
    memory = Memory(10 * SIZE)
    for number in range(5000):
        put(memory, b"a", ends=1e9 - number)
    assert (len(memory), memory.size) == (1, SIZE)
    assert len(memory._ring) < 50
    assert len(memory._heap) < 50


def test_changes_are_told_with_what_was_evicted():
    told = []
    memory = Memory(2 * SIZE, lambda *numbers: told.append(numbers))
    for key in (b"a", b"b", b"c"):
        put(memory, key)
    assert told == [(1, SIZE, 0), (2, 2 * SIZE, 0), (2, 2 * SIZE, 1)]


@given(
    st.lists(
        st.tuples(keys, st.integers(OVERHEAD, 4 * SIZE), st.integers(0, 60), st.booleans()),
        max_size=60,
    )
)
def test_the_bound_and_every_life_hold_whatever_is_put(puts):
    memory = Memory(5 * SIZE)
    last = {}
    for now, (key, size, life, look) in enumerate(puts):
        value = object()
        put(memory, key, value, size=size, ends=float(now + life), now=float(now))
        last[key] = (value, now + life)
        held = [slot for slot in memory._slots.values() if slot.value is not None]
        assert memory.size == sum(slot.size for slot in held) <= memory.bound
        if look:
            for other, (newest, ends) in last.items():
                found = memory.get(other, float(now))
                assert found is None or (found is newest and now < ends)


def test_a_look_up_needs_no_lock_that_a_writer_holds():
    memory = Memory(10 * SIZE)
    put(memory, b"a")
    with memory._lock:  # a writer that was stopped in the middle
        found = []
        reader = threading.Thread(target=lambda: found.append(memory.get(b"a", 0.0)))
        reader.start()
        reader.join(60)
    assert found == ["value"]


@pytest.fixture
def hasty_threads():
    """Let Python change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_readers_beside_writers_see_whole_values_of_their_own_key_and_nothing_else():
    memory = Memory(20 * SIZE)
    faults = []
    names = [b"%d" % number for number in range(40)]

    def write(offset):
        for number in range(3000):
            key = names[(number * 7 + offset) % len(names)]
            put(memory, key, (key, number), ends=float(number % 50 + 1), now=float(number % 40))

    def read():
        for number in range(6000):
            key = names[number % len(names)]
            found = memory.get(key, float(number % 40))
            if found is not None and found[0] != key:
                faults.append((key, found))

    def guarded(work, *arguments):
        try:
            work(*arguments)
        except Exception as fault:  # noqa: BLE001 - told below
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(write, offset)) for offset in (0, 3)]
    threads += [threading.Thread(target=guarded, args=(read,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert memory.size == sum(slot.size for slot in memory._slots.values()) <= memory.bound
