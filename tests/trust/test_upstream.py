import contextlib
import threading
import time
from contextlib import ExitStack

import pytest
from harness import wait_for

from sts.resilience.breaker import FAILURES, PAUSE
from sts.resilience.bulkhead import Bulkhead, FullError
from sts.trust.fetch import UnreachableError
from sts.trust.upstream import LONGEST_TURN, STALL, STRICT, Upstream


@pytest.fixture
def make(clock):
    def upstream(**arguments):
        return Upstream(clock, **{"max_waiters": 2, "patience": 60.0, **arguments})

    return upstream


def fail():
    raise UnreachableError("it answered 500")


def failed(upstream, times):
    for _ in range(times):
        with pytest.raises(UnreachableError):
            upstream.call(fail)


def test_what_it_answers_comes_back(make):
    assert make().call(lambda: 42) == 42


def test_a_failure_is_the_callers_and_an_operators_to_read(make):
    told = []
    upstream = make(notice=told.append)
    failed(upstream, 1)
    assert (upstream.trouble, told) == ("it answered 500", ["it answered 500"])
    upstream.call(lambda: None)
    assert (upstream.trouble, told[1:]) == ("", [""])


def test_a_fault_of_ours_passes_through_and_counts_as_a_failure(make):
    upstream = make()
    with pytest.raises(ZeroDivisionError):
        upstream.call(lambda: 1 / 0)
    assert upstream.trouble == "fault: ZeroDivisionError"


def test_nobody_waits_longer_than_the_patience(make):
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="in time"):
        make(patience=0.05).call(release.wait)
    assert time.monotonic() - began < 30
    release.set()


def test_as_many_as_may_wait_are_let_in_and_the_others_told_at_once(make):
    release, inside = threading.Event(), threading.Semaphore(0)
    upstream = make()

    def hang():
        inside.release()
        release.wait(60)
        return "late"

    answers = []
    threads = [threading.Thread(target=lambda: answers.append(upstream.call(hang))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=60)
    with pytest.raises(UnreachableError, match="too many"):
        upstream.call(lambda: None)
    release.set()
    for thread in threads:
        thread.join()
    assert answers == ["late", "late"]
    assert upstream.call(lambda: "again") == "again"


def test_a_burst_at_a_quick_service_is_answered_whole(make, monkeypatch):
    monkeypatch.setattr("sts.trust.upstream.LONGEST_TURN", 60.0)
    monkeypatch.setattr("sts.trust.upstream.STALL", (60.0, 60.0))  # this machine may be slow, the service is quick
    upstream, answers = make(max_waiters=5), []

    def quick():
        time.sleep(0.005)
        return "answer"

    threads = [threading.Thread(target=lambda: answers.append(upstream.call(quick))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["answer"] * 30


@pytest.fixture
def turns(monkeypatch):
    """For how long each request was ready to wait for its turn without any answer, and then for all; none has one."""
    waits = []

    def enter(bulkhead, stall=0.0, most=0.0):
        if bulkhead.free:
            return entered(bulkhead)
        waits.append((stall, most))
        raise FullError("too many", stalled=stall > 0)

    entered = Bulkhead.enter
    monkeypatch.setattr(Bulkhead, "enter", enter)
    return waits


def test_who_waits_for_a_turn_in_vain_is_the_last_one_to_wait_for_some_time(make, clock, turns):
    release, inside = threading.Event(), threading.Event()
    upstream = make(max_waiters=1)
    thread = threading.Thread(target=upstream.call, args=[lambda: (inside.set(), release.wait(60))])
    thread.start()
    assert inside.wait(60)
    for later, stall in ((0, STALL[0]), (0, 0.0), (STRICT, STALL[0])):
        clock.now += later
        with pytest.raises(UnreachableError, match="too many"):
            upstream.call(lambda: None)
        assert turns.pop() == (stall, LONGEST_TURN)
    release.set()
    thread.join()


@pytest.mark.parametrize(("took", "stall"), [(0.001, STALL[0]), (0.4, 0.8), (0.9, STALL[1]), (1.1, 0.0), (None, 0.0)])
def test_a_turn_is_waited_for_as_long_as_the_service_is_quick(make, clock, took, stall, turns):
    """`took` is for how long its last answer was waited for, None if there was none."""
    release, inside = threading.Event(), threading.Event()
    upstream = make(max_waiters=1)

    def slow():
        clock.now += took

    if took is not None:
        upstream.call(slow)
    else:
        failed(upstream, 1)
    thread = threading.Thread(target=upstream.call, args=[lambda: (inside.set(), release.wait(60))])
    thread.start()
    assert inside.wait(60)
    with pytest.raises(UnreachableError, match="too many"):
        upstream.call(lambda: None)
    assert turns == [(pytest.approx(stall), LONGEST_TURN)]
    release.set()
    thread.join()


def test_what_nobody_waits_for_any_more_still_counts_as_under_way(make):
    release = threading.Event()
    upstream = make(max_waiters=1, patience=0.05)
    with pytest.raises(UnreachableError, match="in time"):
        upstream.call(release.wait)
    with pytest.raises(UnreachableError, match="too many"):
        upstream.call(lambda: None)
    release.set()


def test_services_that_share_their_waiters_leave_room_for_the_others(make):
    shared = Bulkhead(1)
    release = threading.Event()
    one, other = make(all_waiters=shared, patience=0.05), make(all_waiters=shared)
    with pytest.raises(UnreachableError, match="in time"):
        one.call(release.wait)
    with pytest.raises(UnreachableError, match="too many"):
        other.call(lambda: None)
    release.set()


def test_after_several_failures_nobody_is_sent_during_a_pause(make, clock):
    upstream = make()
    failed(upstream, FAILURES)
    sent = []
    with pytest.raises(UnreachableError, match="not asked"):
        upstream.call(lambda: sent.append("during the pause"))
    clock.now += PAUSE
    upstream.call(lambda: sent.append("behind it"))
    assert sent == ["behind it"]


def test_behind_a_pause_one_tries_before_the_others(make, clock):
    upstream = make()
    failed(upstream, FAILURES)
    clock.now += PAUSE
    inside, release = threading.Event(), threading.Event()

    def probe():
        inside.set()
        return release.wait(60)

    thread = threading.Thread(target=upstream.call, args=[probe])
    thread.start()
    assert inside.wait(60)
    with pytest.raises(UnreachableError, match="not asked"):
        upstream.call(lambda: None)
    release.set()
    thread.join()
    assert upstream.call(lambda: "open") == "open"


def test_a_service_that_is_back_after_a_long_time_is_found_at_once(make, clock):
    """The pause does not grow, however long it was down."""
    upstream = make()
    failed(upstream, FAILURES)
    for _ in range(100):
        clock.now += PAUSE
        failed(upstream, 1)
        with pytest.raises(UnreachableError, match="not asked"):
            upstream.call(lambda: None)
    clock.now += PAUSE
    assert upstream.call(lambda: "open") == "open"


def test_who_waits_for_somebody_elses_answer_takes_a_place_and_leaves_one_to_who_asks(make):
    upstream = make(max_waiters=4)
    with ExitStack() as held:
        held.enter_context(upstream.place())
        held.enter_context(upstream.place())
        with pytest.raises(UnreachableError, match="too many requests wait"), upstream.place():
            pass
        assert upstream.call(lambda: 42) == 42
    with upstream.place():
        pass


def test_who_waits_where_there_is_one_place_has_it_as_soon_as_the_question_is_over(make, monkeypatch):
    """Fewer than 16 threads are one place: a crowd with one token must not be refused by a server that is quick."""
    monkeypatch.setattr("sts.trust.upstream.LONGEST_TURN", 60.0)
    monkeypatch.setattr("sts.trust.upstream.STALL", (60.0, 60.0))
    upstream, release, had = make(max_waiters=1), threading.Event(), []

    def wait():
        with contextlib.suppress(UnreachableError), upstream.place():
            had.append(True)

    asking = threading.Thread(target=upstream.call, args=(lambda: release.wait(60),))
    asking.start()
    wait_for(lambda: upstream._waiters.free == 0)
    waiting = threading.Thread(target=wait)
    waiting.start()
    release.set()
    asking.join()
    waiting.join()
    assert had == [True]
