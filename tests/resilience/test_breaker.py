"""The circuit breaker, by a clock of the test's own."""

import pytest

from sts.resilience.breaker import Breaker, BreakerOpenError


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock, limit=3, pause=1.0)


def fail(breaker, times):
    for _ in range(times):
        breaker.admit()
        breaker.failed()


def test_two_failures_turn_nobody_away(breaker):
    fail(breaker, 2)
    breaker.admit()
    assert not breaker.open


def test_three_failures_in_a_row_turn_everybody_away(breaker):
    fail(breaker, 3)
    assert breaker.open
    with pytest.raises(BreakerOpenError):
        breaker.admit()


def test_a_success_between_failures_starts_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    breaker.admit()


def test_after_the_pause_one_may_probe_and_the_others_are_still_turned_away(breaker, clock):
    fail(breaker, 3)
    clock.now += 1.0
    breaker.admit()
    with pytest.raises(BreakerOpenError):
        breaker.admit()


def test_a_probe_that_fails_begins_the_pause_anew(breaker, clock):
    fail(breaker, 3)
    clock.now += 1.0
    fail(breaker, 1)
    clock.now += 0.99
    with pytest.raises(BreakerOpenError):
        breaker.admit()


def test_a_probe_that_succeeds_lets_everybody_in(breaker, clock):
    fail(breaker, 3)
    clock.now += 1.0
    breaker.admit()
    breaker.succeeded()
    breaker.admit()
    breaker.admit()
    assert not breaker.open


def test_a_probe_that_never_ends_holds_up_the_next_one_for_a_pause_only(breaker, clock):
    fail(breaker, 3)
    clock.now += 1.0
    breaker.admit()
    clock.now += 1.0
    breaker.admit()
