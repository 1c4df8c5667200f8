"""Places that are shared fairly by callers, under real threads."""

import threading

import pytest
from harness import wait_for

from sts.resilience.bulkhead import Bulkhead, FullError, on_behalf_of

LONG = 60.0


class Crowd:
    """Requests of several callers that wait for a place in threads of their own."""

    def __init__(self, bulkhead):
        self.bulkhead, self.entered, self.refused, self.threads = bulkhead, [], [], []

    def add(self, who, stall=LONG, most=LONG):
        def run():
            with on_behalf_of("client", who):
                try:
                    self.entered.append((who, self.bulkhead.enter(stall, most)))
                except FullError as error:
                    self.refused.append((who, error.stalled))

        before = self.bulkhead.queued + len(self.entered) + len(self.refused)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        wait_for(lambda: self.bulkhead.queued + len(self.entered) + len(self.refused) > before, every=0.001)

    def served(self):
        return [who for who, _ in self.entered]

    def end(self):
        while self.threads:
            for _, place in self.entered:
                place.leave()
            self.entered.clear()
            self.threads = [one for one in self.threads if one.is_alive() or one.join()]


@pytest.fixture
def crowd():
    made = []

    def make(*arguments, **options):
        made.append(Crowd(Bulkhead(*arguments, **options)))
        return made[-1]

    yield make
    for one in made:
        one.end()


def enter(bulkhead, who="somebody"):
    with on_behalf_of("client", who):
        return bulkhead.enter()


def test_no_more_than_the_places_are_taken_and_each_is_free_again():
    bulkhead = Bulkhead(3)
    places = [enter(bulkhead) for _ in range(3)]
    with pytest.raises(FullError):
        enter(bulkhead)
    for place in places:
        place.leave()
    assert bulkhead.free == 3
    assert enter(bulkhead)


@pytest.mark.parametrize(("places", "share"), [(1, 1), (3, 3), (4, 3), (8, 7), (24, 21)])
def test_one_caller_leaves_a_place_to_others_where_there_are_four(places, share):
    bulkhead = Bulkhead(places)
    for _ in range(share):
        enter(bulkhead, "greedy")
    with pytest.raises(FullError):
        enter(bulkhead, "greedy")
    assert bulkhead.free == places - share
    for number in range(places - share):
        enter(bulkhead, str(number))


def test_places_that_become_free_go_to_callers_in_turn(crowd):
    one = crowd(1, queue=100)
    for who in ("first", *["greedy"] * 6, "modest", "greedy", "other"):
        one.add(who)
    for number in range(9):
        wait_for(lambda number=number: len(one.entered) == number + 1, every=0.001)
        one.entered[-1][1].leave()
    assert one.served()[:5] == ["first", "greedy", "modest", "other", "greedy"]
    wait_for(lambda: len(one.entered) == 10, every=0.001)


def test_where_the_queue_is_full_the_caller_with_most_requests_in_it_makes_room(crowd):
    one = crowd(1, queue=4)
    one.add("first")
    for who in ("greedy",) * 4:
        one.add(who)
    one.add("greedy")
    assert one.refused == [("greedy", False)]
    for who in ("one", "two", "three"):
        one.add(who)
    wait_for(lambda: len(one.refused) == 4, every=0.001)
    assert {who for who, _ in one.refused} == {"greedy"}
    one.add("four")  # all have one now: nobody is pushed out
    wait_for(lambda: ("four", False) in one.refused, every=0.001)


def test_a_full_queue_elsewhere_makes_room_too(crowd):
    shared = Bulkhead(2, queue=3)
    busy, quiet = crowd(1, queue=3, shared=shared), crowd(1, queue=3, shared=shared)
    busy.add("first")
    for _ in range(3):
        busy.add("greedy")
    quiet.add("second")
    quiet.add("modest")
    wait_for(lambda: busy.refused == [("greedy", False)], every=0.001)
    assert (quiet.refused, quiet.bulkhead.queued, shared.queued) == ([], 1, 3)


def test_a_place_that_is_left_here_serves_who_waits_there(crowd):
    shared = Bulkhead(1, queue=3)
    here, there = crowd(1, queue=3, shared=shared), crowd(1, queue=3, shared=shared)
    here.add("first")
    there.add("second")
    assert there.entered == []
    here.entered[0][1].leave()
    wait_for(lambda: there.served() == ["second"], every=0.001)
    here.entered.clear()


def test_who_waits_without_any_progress_gives_up_and_says_so(crowd):
    one = crowd(1, queue=3)
    one.add("first")
    one.add("second", stall=0.02)
    wait_for(lambda: one.refused == [("second", True)], every=0.001)
    assert one.bulkhead.queued == 0


def test_nobody_is_remembered_who_does_not_wait():
    bulkhead = Bulkhead(4, queue=4)
    for number in range(1000):
        enter(bulkhead, str(number)).leave()
    assert (len(bulkhead._taken), len(bulkhead._queues)) == (0, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_an_ipv6_network_is_one_caller(one, other, same):
    bulkhead = Bulkhead(4)
    for _ in range(3):
        enter(bulkhead, one)
    if same:
        with pytest.raises(FullError):
            enter(bulkhead, other)
    else:
        enter(bulkhead, other)
