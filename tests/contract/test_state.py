"""What every store of the state promises, tried on real ones: SQLite, Redis, Valkey."""

import threading
import time

import pytest
from harness import in_time, wait_for
from patient_stores import QUICK_S

from sts.errors import REPLAYED, STATE_UNAVAILABLE, UNKNOWN_KEY
from sts.state import (
    AlreadyMarkedError,
    ConflictError,
    Follower,
    OnceOnly,
    StateUnavailableError,
    decode,
    encode,
)
from sts.state.api_keys import ApiKeys
from sts.state.continuity import Continuity, accept
from sts.state.key_records import NAMESPACE, ApiKey, KeyRecords, digest, make
from sts.state.settings import StateSettings
from sts.state.state import ABSENT, BATCH, PAGE, Cursor, Write, batches, records

NOW = 1_800_000_000.0
GENEROUS_S = 20
"""What a store in trouble may cost on the busiest machine, in seconds; by itself none would ever answer."""


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(store):
    return store.open()


def soon(seconds=60):
    return time.time() + seconds


# Marks


def test_a_mark_is_set_once(state):
    """CA-04."""
    state.mark(b"one", soon())
    state.mark(b"another", soon())
    with pytest.raises(AlreadyMarkedError):
        state.mark(b"one", soon())


def test_any_bytes_are_a_key_of_their_own(state):
    for key in (b"", b"\x00", b"\x00\x00", bytes(range(256)), b"\xff" * 32):
        state.mark(key, soon())
        with pytest.raises(AlreadyMarkedError):
            state.mark(key, soon())


def test_a_mark_stays_for_another_handle(store, state):
    state.mark(b"one", soon())
    with pytest.raises(AlreadyMarkedError):
        store.open().mark(b"one", soon())


def test_a_mark_is_free_again_when_it_is_over(state):

    def held(seconds):
        state.mark(b"one %d" % seconds, time.time() + seconds)
        return None if _marks(state, b"one %d" % seconds) else seconds

    seconds = in_time(held, (1, 10, 30))
    wait_for(lambda: _marks(state, b"one %d" % seconds))


def _marks(state, key):
    try:
        state.mark(key, soon())
    except AlreadyMarkedError:
        return False
    return True


def test_a_mark_whose_time_is_over_already_still_stands_for_a_moment(state):
    """A leeway or a slow store must not open a gap."""
    state.mark(b"one", time.time() - 5)
    with pytest.raises(AlreadyMarkedError):
        state.mark(b"one", soon())


def test_the_same_mark_from_two_processes_at_once_is_set_exactly_once(store):
    store.open()  # makes it
    one, other = store.marker(), store.marker()
    for number in range(150):
        at = time.time() + 0.004
        for process in (one, other):
            process.stdin.write(f"key-{number} {at}\n")
            process.stdin.flush()
        assert sorted(process.stdout.readline() for process in (one, other)) == ["marked\n", "replayed\n"], number


def test_the_same_mark_from_many_threads_at_once_is_set_exactly_once(state):
    for number in range(20):
        found, start = [], threading.Barrier(8)

        def mark(key, found=found, start=start):
            start.wait()
            found.append(_marks(state, key))

        threads = [threading.Thread(target=mark, args=[b"key-%d" % number]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found.count(True) == 1


def test_a_process_killed_before_it_marks_burns_nothing_and_one_killed_after_forgets_nothing(store, state):
    before = store.marker()
    before.stdin.write(f"proven {time.time() + 30}\n")  # it has proven, and waits to mark
    before.stdin.flush()
    before.kill()
    before.wait()
    state.mark(b"proven", soon())
    after = store.marker()
    after.stdin.write("marked 0\n")
    after.stdin.flush()
    assert after.stdout.readline() == "marked\n"
    after.kill()
    after.wait()
    with pytest.raises(AlreadyMarkedError):
        state.mark(b"marked", soon())


# Records


def test_a_record_is_read_as_it_was_written(state):
    version = state.put("keys", "a", b"\x00\xff value", expected=0)
    found = state.get("keys", "a")
    assert (found.key, found.value, found.version, found.until) == ("a", b"\x00\xff value", version, float("inf"))
    assert state.get("keys", "b") is None
    assert state.get("other", "a") is None


def test_of_two_who_change_one_record_the_second_is_told(state):
    first = state.put("keys", "a", b"1", expected=0)
    with pytest.raises(ConflictError):
        state.put("keys", "a", b"2", expected=0)
    second = state.put("keys", "a", b"2", expected=first)
    with pytest.raises(ConflictError):
        state.put("keys", "a", b"3", expected=first)
    with pytest.raises(ConflictError):
        state.delete("keys", "a", expected=first)
    assert state.get("keys", "a").value == b"2"
    state.put("keys", "a", b"4", expected=None)
    assert second < state.get("keys", "a").version


def test_a_deleted_record_is_not_there_and_its_versions_do_not_come_again(state):
    first = state.put("keys", "a", b"1", expected=0)
    state.delete("keys", "a", expected=first)
    assert state.get("keys", "a") is None
    assert state.list("keys") == ()
    state.delete("keys", "a")
    state.delete("keys", "never there", expected=0)
    assert state.put("keys", "a", b"1", expected=0) > first


def test_a_record_is_over_at_its_end(store, clock):
    state = store.open(clock)
    version = state.put("keys", "a", b"1", expected=0, until=NOW + 10)
    assert state.get("keys", "a").until == NOW + 10
    clock.now += 10
    assert state.get("keys", "a") is None
    assert state.list("keys") == ()
    assert state.put("keys", "a", b"2", expected=0) > version


def test_a_list_is_sorted_and_knows_its_namespace(state):
    for key in ("b", "a", "c"):
        state.put("keys", key, key.encode(), expected=0)
    state.put("other", "d", b"", expected=0)
    assert [record.key for record in state.list("keys")] == ["a", "b", "c"]


def test_many_records_are_written_in_one_step_and_each_conflict_is_named(state):
    first = state.put("keys", "a", b"there", expected=ABSENT)
    writes = [
        Write("a", b"new", ABSENT),
        Write("b", b"2", ABSENT),
        Write("c", b"3", None, 1.0),
        Write("d", None, None),
    ]
    done = state.put_many("keys", writes)
    assert done[0] is None
    assert done[1] > first
    assert done[3] == ABSENT
    assert state.keys("keys")[:2] == ("a", "b")
    assert [(one.key, one.value) for one in state.get_many("keys", ["b", "z", "c", "a"])] == [
        ("b", b"2"),
        ("a", b"there"),
    ]
    assert state.get_many("keys", []) == ()
    assert state.keys("other") == ()


def test_all_records_are_read_a_batch_at_a_time(state):
    count = 2 * BATCH + 1
    for batch in batches([Write(f"{number:05}", b"x", ABSENT) for number in range(count)]):
        assert None not in state.put_many("keys", batch)
    asked = []
    real = state.get_many

    class Counting:
        keys = state.keys

        def get_many(self, namespace, keys):
            asked.append(len(keys))
            return real(namespace, keys)

    assert [one.key for one in records(Counting(), "keys")] == [f"{number:05}" for number in range(count)]
    assert asked == [BATCH, BATCH, 1]


def test_a_value_names_its_format_and_only_this_one_and_the_one_before_are_read():
    kept = encode(3, {"a": 1})
    assert decode(kept, 3) == (3, {"a": 1})
    assert decode(kept, 4) == (3, {"a": 1})
    for reader in (2, 5):
        with pytest.raises(StateUnavailableError, match="has format 3"):
            decode(kept, reader)
    for damaged in (b"", b"3", b"3 {", b"3 []", b"x {}"):
        with pytest.raises(StateUnavailableError):
            decode(damaged, 3)


# Changes


def test_changes_come_once_in_order_and_a_deletion_is_one(state):
    begun = state.changes("keys", None)
    assert (begun.reset, begun.records, begun.more) == (True, (), False)
    state.put("keys", "a", b"1", expected=0)
    state.put("other", "x", b"1", expected=0)
    state.put("keys", "b", b"2", expected=0)
    state.put("keys", "a", b"3", expected=None)
    state.delete("keys", "b")
    found = state.changes("keys", begun.cursor)
    assert [(record.key, record.value) for record in found.records] == [("a", b"3"), ("b", None)]
    assert not found.reset
    again = state.changes("keys", found.cursor)
    assert (again.records, again.reset) == ((), False)


def test_many_changes_come_page_by_page(state):
    for number in range(PAGE + 5):
        state.put("keys", f"{number:05}", b"", expected=0)
    first = state.changes("keys", None)
    assert (len(first.records), first.more, first.reset) == (PAGE, True, True)
    rest = state.changes("keys", first.cursor)
    assert (len(rest.records), rest.more, rest.reset) == (5, False, False)
    assert len(state.list("keys")) == PAGE + 5


def test_who_knows_another_store_begins_anew(state):
    state.put("keys", "a", b"1", expected=0)
    cursor = state.changes("keys", None).cursor
    for other in (Cursor("another", cursor.sequence), Cursor(cursor.epoch, cursor.sequence + 1)):
        found = state.changes("keys", other)
        assert found.reset
        assert [record.key for record in found.records] == ["a"]


def test_who_has_not_looked_for_long_learns_that_something_was_deleted(store, clock):
    state = store.open(clock)
    state.put("keys", "a", b"1", expected=0)
    cursor = state.changes("keys", None).cursor
    state.delete("keys", "a")
    clock.now += 2 * 3600
    state.put("keys", "b", b"1", expected=0)  # sweeps
    found = state.changes("keys", cursor)
    assert found.reset
    assert [record.key for record in found.records] == ["b"]


def test_a_follower_sees_changes_and_what_is_gone(store, state):
    heard = []
    follower = Follower(store.open(), "keys", lambda known: heard.append(sorted(known)))
    assert follower.age == float("inf")
    follower.refresh()
    version = state.put("keys", "a", b"1", expected=0)
    assert follower.refresh()
    assert not follower.refresh()
    state.put("keys", "b", b"1", expected=0)
    state.delete("keys", "a", expected=version)
    follower.refresh()
    assert sorted(follower.records) == ["b"]
    assert heard == [["a"], ["b"]]
    assert follower.age < 60


@pytest.fixture
def follow(store, tmp_path):
    """Followers of one machine; each is one more worker, or the next start."""

    def follow(**more):
        handle = store.open()
        continuity = Continuity(handle, "keys", tmp_path / "seen", time.time)
        return Follower(handle, "keys", continuity=continuity, **more)

    return follow


@pytest.mark.parametrize("again", [False, True])
def test_an_emptied_store_is_an_outage_that_keeps_what_was_known_until_it_is_accepted(store, state, follow, again):
    state.put("keys", "a", b"1", expected=0)
    follower = follow()
    follower.refresh()
    store.empty()
    with pytest.raises(StateUnavailableError, match=r"emptied.*sts state accept"):
        follower.refresh()
    fresh = store.open()
    fresh.put("keys", "b", b"1", expected=0)
    with pytest.raises(StateUnavailableError, match="emptied or replaced"):
        follower.refresh()
    assert sorted(follower.records) == ["a", "b"]  # neither what was there nor what came since is lost
    other = follow()
    if again:
        follower = other  # a worker that starts meanwhile
        with pytest.raises(StateUnavailableError, match="emptied or replaced"):
            follower.refresh()
        assert (follower.age, sorted(follower.records)) == (float("inf"), ["b"])
    accept(fresh, ["keys"], time.time())
    for one in (follower, other, follow()):
        one.refresh()
        assert (sorted(one.records), one.lost) == (["b"], "")
    store.empty()  # what was accepted was that store and no other
    with pytest.raises(StateUnavailableError, match="emptied"):
        follower.refresh()


def test_a_store_that_is_put_back_to_an_older_copy_is_an_outage_until_it_is_accepted(store, state, follow):
    state.put("keys", "a", b"1", expected=0)
    accept(state, ["keys"], time.time())
    copy = store.copy()
    state.put("keys", "b", b"1", expected=0)
    follow().refresh()
    store.put_back(copy)
    follower = follow()
    with pytest.raises(StateUnavailableError, match="older than it was"):
        follower.refresh()  # an acceptance in the copy is older, too
    accept(store.open(), ["keys"], time.time())
    follower.refresh()
    assert sorted(follower.records) == ["a"]


def test_a_namespace_without_any_record_is_missed_as_well(store, follow):
    follower = follow()
    follower.refresh()
    store.empty()
    with pytest.raises(StateUnavailableError, match="emptied"):
        follower.refresh()


def test_a_full_store_that_nobody_has_seen_before_is_taken_as_it_is(store, follow):
    follower = follow()
    store.full()
    follower.refresh()
    follower.refresh()
    assert (follower.records, follower.lost) == ({}, "")


def test_a_damaged_file_of_what_was_seen_is_no_reason_to_believe_the_store(state, follow, tmp_path):
    state.put("keys", "a", b"1", expected=0)
    follow().refresh()
    (tmp_path / "seen").write_text("{")
    follower = follow()
    with pytest.raises(StateUnavailableError, match="sts state accept"):
        follower.refresh()
    accept(state, ["keys"], time.time())
    follower.refresh()
    follow().refresh()


def test_when_marks_may_be_lost_a_proof_is_refused_or_counted_as_configured(state, refused):
    told = []
    with refused(STATE_UNAVAILABLE):
        OnceOnly(state, [b"k" * 32], "deny", lost=lambda: "emptied").mark("dpop", "a-jti", until=soon())
    allowing = OnceOnly(state, [b"k" * 32], "allow", told.append, lost=lambda: "emptied")
    allowing.mark("dpop", "a-jti", until=soon())
    assert told == ["emptied"]
    with refused(REPLAYED):  # what is marked from now on counts
        allowing.mark("dpop", "a-jti", until=soon())


def test_an_api_key_that_an_emptied_store_lacks_is_no_unknown_key(store, state, refused, tmp_path):
    records = KeyRecords(state, [b"k" * 32])
    (known_id, known), (_, lost) = make("sk_"), make("sk_")
    now = int(time.time())
    records.put(ApiKey(id=known_id, source="s", owner="o", digest=digest(known), created_at=now))
    seen = Continuity(state, NAMESPACE, tmp_path / "seen", time.time)
    keys = ApiKeys(records, time.time, StateSettings(), continuity=seen)
    keys.follower.look()
    with refused(UNKNOWN_KEY):
        keys.prove("s", "sk_", lost)
    store.empty()
    keys.follower.look()
    assert keys.prove("s", "sk_", known).id == known_id  # as it was last seen, until `max_stale`
    with refused(STATE_UNAVAILABLE):
        keys.prove("s", "sk_", lost)
    seen = Continuity(state, NAMESPACE, tmp_path / "seen", time.time)
    started = ApiKeys(KeyRecords(store.open(), [b"k" * 32]), time.time, StateSettings(), continuity=seen)
    started.follower.look()
    with refused(STATE_UNAVAILABLE):
        started.prove("s", "sk_", known)


def test_a_follower_looks_by_itself(store, state):
    follower = Follower(store.open(), "keys")
    follower.start()
    try:
        state.put("keys", "a", b"1", expected=0)
        wait_for(lambda: follower.records)
    finally:
        follower.stop()


# Trouble


@pytest.mark.parametrize("trouble", ["down", "slow"])
def test_a_store_in_trouble_is_told_quickly_and_serves_again_when_it_is_back(store, state, trouble):
    state.mark(b"before", soon())
    state.put("keys", "a", b"1", expected=0)
    quick = store.open(patience=QUICK_S)
    getattr(store, trouble)()
    started = time.monotonic()
    with pytest.raises(StateUnavailableError):
        quick.mark(b"during", soon())
    assert time.monotonic() - started < GENEROUS_S
    store.back()
    wait_for(lambda: _works(quick) and _works(state))
    if store.kind == "sqlite" or trouble == "slow":  # the test's Redis keeps nothing on a disk
        with pytest.raises(AlreadyMarkedError):
            state.mark(b"before", soon())
        assert state.get("keys", "a").value == b"1"


def test_a_full_store_goes_on_reading_and_refuses_only_what_must_be_written(store, state):
    version = state.put("keys", "a", b"1", expected=0)
    follower = Follower(state, "keys")
    store.full()
    for number in range(3):
        with pytest.raises(StateUnavailableError, match="full"):
            state.mark(b"%d" % number + bytes(20_000), soon())
        with pytest.raises(StateUnavailableError, match="full"):
            state.put("keys", "b", bytes(20_000), expected=0)
        follower.refresh()
        assert (sorted(follower.records), state.get("keys", "a").version) == (["a"], version)
        assert [record.key for record in state.list("keys")] == ["a"]
    store.roomy()
    state.mark(b"0" + bytes(20_000), soon())  # what was refused burnt no mark
    state.put("keys", "b", bytes(20_000), expected=0)


def test_a_full_store_to_which_nothing_was_written_yet_is_read(store):
    fresh = store.open()
    store.full()
    found = fresh.changes("keys", None)
    assert (found.records, found.reset, found.more) == ((), True, False)
    assert fresh.changes("keys", found.cursor).records == ()


def test_a_full_redis_takes_a_revocation(store, state):
    """It stops a misuse: it must not wait until an operator has made room."""
    if store.kind == "sqlite":
        return  # a full disk takes nothing
    store.full()
    version = state.put("revocations", "subject:a", b"1 {}", expected=0)
    assert state.changes("revocations", None).records[0].version == version


def _works(state):
    try:
        state.mark(str(time.time()).encode(), soon())
    except StateUnavailableError:
        return False
    return True


def test_threads_at_a_store_in_trouble_are_all_free_in_time(store):
    state, found = store.open(patience=QUICK_S), []
    store.slow()

    def mark(number):
        try:
            state.mark(b"%d" % number, soon())
        except StateUnavailableError:
            found.append(number)

    threads = [threading.Thread(target=mark, args=[number]) for number in range(24)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    assert time.monotonic() - started < GENEROUS_S


def test_a_lost_reply_is_neither_a_replay_nor_a_conflict(store, state):
    """LIB-R02."""
    if store.proxy is None:
        return  # nothing lies between a process and its file
    state.mark(b"warm", soon())
    store.proxy.lose(1)
    state.mark(b"one", soon())
    with pytest.raises(AlreadyMarkedError):
        state.mark(b"one", soon())
    version = state.put("keys", "a", b"1", expected=0)
    store.proxy.lose(1)
    version = state.put("keys", "a", b"2", expected=version)
    assert state.get("keys", "a").value == b"2"
    store.proxy.lose(1)
    state.delete("keys", "a", expected=version)
    assert state.get("keys", "a") is None


def test_what_is_used_once_is_refused_the_second_time_with_nothing_of_it_in_the_store(store, state, refused):
    once = OnceOnly(state, [b"k" * 32], "deny")
    once.mark("dpop", "thumbprint", "a-jti", until=soon())
    once.mark("dpop", "thumbprinta", "-jti", until=soon())
    once.mark("assertion", "thumbprint", "a-jti", until=soon())
    with refused(REPLAYED):
        once.mark("dpop", "thumbprint", "a-jti", until=soon())
    if store.kind == "sqlite":
        assert b"a-jti" not in b"".join(path.read_bytes() for path in store.var.glob("state.db*"))
    else:
        assert store.server.client().keys("*jti*") == []


def test_what_was_used_under_the_previous_secret_is_refused_under_the_new_one_and_the_other_way_round(state, refused):
    old, both = OnceOnly(state, [b"k" * 32], "deny"), OnceOnly(state, [b"n" * 32, b"k" * 32], "deny")
    old.mark("dpop", "first", until=soon())
    with refused(REPLAYED):
        both.mark("dpop", "first", until=soon())
    both.mark("dpop", "second", until=soon())
    for other in (old, OnceOnly(state, [b"n" * 32], "deny")):
        with refused(REPLAYED):
            other.mark("dpop", "second", until=soon())


@pytest.mark.parametrize("trouble", ["down", "slow"])
def test_on_an_outage_a_proof_is_refused_or_waved_through_as_configured(store, refused, trouble):
    state, told = store.open(patience=QUICK_S), []
    getattr(store, trouble)()
    with refused(STATE_UNAVAILABLE) as caught:
        OnceOnly(state, [b"k" * 32], "deny").mark("dpop", "a-jti", until=soon())
    assert "a-jti" not in str(caught.value.facts)
    OnceOnly(state, [b"k" * 32], "allow", told.append).mark("dpop", "a-jti", until=soon())
    assert told
