"""A worker's copy of a namespace, where its store misbehaves."""

import threading

import pytest

from sts.state import Changes, Cursor, Follower, Record, StateUnavailableError


class Store:
    """Answers what it is told to; keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def changes(self, _namespace, since):
        self.asked.append(since)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Steady:
    now = 0.0

    def __call__(self):
        return self.now


def page(sequence, *keys, reset=False, more=False):
    records = tuple(Record(key, b"1", sequence) for key in keys)
    return Changes(Cursor("store", sequence), records, reset, more)


def test_a_fault_is_told_once_and_is_over_with_the_next_look_that_succeeds():
    told, steady = [], Steady()
    down = StateUnavailableError("it is down")
    store = Store(page(1, "a", reset=True), down, down, page(1), down)
    follower = Follower(store, "keys", on_fault=told.append, monotonic=steady)
    for _ in range(5):
        follower.look()
        steady.now += 1
    assert told == ["it is down", "it is down"]
    assert follower.fault == "it is down"
    assert sorted(follower.records) == ["a"]
    assert follower.age == 2


def test_a_fault_of_ours_counts_as_an_outage():
    follower = Follower(Store(ZeroDivisionError()), "keys")
    follower.look()
    assert "ZeroDivisionError" in follower.fault
    assert follower.age == float("inf")


def test_a_beginning_of_many_pages_is_taken_over_as_a_whole():
    follower = Follower(Store(page(1, "a", reset=True), page(1, "b", reset=True, more=True), page(2, "c")), "keys")
    follower.refresh()
    follower.refresh()
    assert sorted(follower.records) == ["b", "c"]


def test_of_pages_that_break_off_nothing_is_taken_over():
    broken = StateUnavailableError("it is down")
    follower = Follower(Store(page(1, "a", reset=True), page(1, "b", reset=True, more=True), broken), "keys")
    follower.refresh()
    with pytest.raises(StateUnavailableError):
        follower.refresh()
    assert sorted(follower.records) == ["a"]


def test_everything_is_read_anew_once_a_minute():
    steady = Steady()
    store = Store(page(5, "a", reset=True), page(5), page(5, "b", reset=True))
    follower = Follower(store, "keys", monotonic=steady)
    follower.refresh()
    steady.now = 59
    follower.refresh()
    steady.now = 60
    follower.refresh()
    assert store.asked == [None, Cursor("store", 5), None]
    assert sorted(follower.records) == ["b"]


def test_what_the_listener_cannot_read_counts_as_unseen():
    def refuse(_):
        raise StateUnavailableError("format 9")

    follower = Follower(Store(page(1, "a", reset=True)), "keys", refuse)
    follower.look()
    assert follower.fault == "format 9"
    assert follower.age == float("inf")
    assert not follower.records


def test_it_looks_once_a_second_so_that_every_change_is_known_within_two(monkeypatch):
    """AK-02, RV-06: what no clock of a busy machine can show is how long it means to wait between two looks."""
    pauses = []

    class Stopping(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return len(pauses) == 3

    store = Store(page(1, "a", reset=True), page(2, "b"), page(3, "c"))
    follower = Follower(store, "keys")
    monkeypatch.setattr(follower, "_stopping", Stopping())
    follower.start()
    follower.stop()
    assert sorted(follower.records) == ["a", "b", "c"]
    assert pauses == [1.0] * 3
