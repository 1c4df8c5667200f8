import itertools
import os
import threading
import time

import pytest

from sts.errors import BAD_ALGORITHM, SOURCE_UNREACHABLE, UNKNOWN_KEY, Refusal
from sts.jose import UnfitError, import_jwks
from sts.trust.fetch import UnreachableError
from sts.trust.remote_jwks import (
    BACK_OFF,
    COOL_DOWN,
    DEFAULT_LIFE,
    FAILURE_IS_NEWS,
    FAILURES,
    QUIET,
    CallerJwks,
    Loaded,
    LookUp,
    RemoteJwks,
    warm_up,
)

HOUR = 3600.0


class Issuer:
    """What `load` does: answers with a set, fails, or holds until it is let go."""

    def __init__(self, document, max_age=300.0):
        self.document, self.max_age = document, max_age
        self.fault = None
        self.fetches = 0
        self.gate = threading.Event()
        self.gate.set()

    def load(self):
        self.fetches += 1
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        return Loaded(LookUp(import_jwks(self.document, ["ES256"])), self.max_age)


@pytest.fixture
def issuer(jwks_of):
    return Issuer(jwks_of("one", "two"))


@pytest.fixture
def jwks(issuer, clock):
    return RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=2, patience=30.0)


@pytest.fixture
def landed(until):
    """Wait until nothing is being fetched."""
    return lambda jwks: until(lambda: jwks._flight is None)


@pytest.fixture
def ask(clock):
    """Ask for a key now; the kid of what was found, or the reason of the refusal."""

    def find(jwks, kid="one", algorithm="ES256"):
        try:
            return jwks.keys_for(kid, algorithm, clock.now)[0].kid
        except Refusal as refusal:
            return refusal.reason

    return find


def asking(ask, jwks, kid, count):
    """Many threads that ask at once; their answers when they have them."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(jwks, kid)), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_nothing_is_fetched_or_started_before_the_first_use(issuer, clock):
    running = set(threading.enumerate())
    jwks = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=2)
    assert not jwks.current("any")
    assert issuer.fetches == 0
    assert set(threading.enumerate()) <= running


def test_the_first_use_fetches_and_the_next_ones_do_not(issuer, jwks, ask, clock):
    assert ask(jwks) == "one"
    clock.now += 100
    assert [ask(jwks, kid) for kid in ("one", "two", "one")] == ["one", "two", "one"]
    assert issuer.fetches == 1


def test_a_token_without_kid_is_answered_too(jwks, clock):
    assert len(jwks.keys_for(None, "ES256", clock.now)) == 2


def test_a_set_is_refreshed_in_the_background_before_its_time_is_over(issuer, jwks, ask, clock, landed, jwks_of):
    ask(jwks)
    clock.now += 0.9 * 300
    issuer.document = jwks_of("one", "new")
    issuer.gate.clear()
    assert ask(jwks) == "one"  # no wait, although the issuer does not answer
    issuer.gate.set()
    landed(jwks)
    assert issuer.fetches == 2
    assert ask(jwks, "new") == "new"


def test_cached_answers_alone_keep_the_set_fresh(issuer, jwks, clock, landed, jwks_of):
    (key,) = jwks.keys_for("one", "ES256", clock.now)
    clock.now += 0.9 * 300
    issuer.document = jwks_of("other")
    issuer.gate.clear()
    assert jwks.current(key.thumbprint)
    issuer.gate.set()
    landed(jwks)
    assert issuer.fetches == 2
    assert not jwks.current(key.thumbprint)


@pytest.mark.parametrize(
    ("max_age", "life"), [(0, 60), (59, 60), (600, 600), (3600, 3600), (86400, 3600), (None, DEFAULT_LIFE)]
)
def test_max_age_is_honoured_within_a_minute_and_an_hour(max_age, life, issuer, jwks, ask, clock, landed):
    """JK-09."""
    issuer.max_age = max_age
    ask(jwks)
    clock.now += 0.74 * life
    ask(jwks)
    landed(jwks)
    assert issuer.fetches == 1
    clock.now += 0.12 * life
    ask(jwks)
    landed(jwks)
    assert issuer.fetches == 2


def test_a_known_kid_is_not_trusted_beyond_its_time(issuer, jwks, ask, clock, jwks_of):
    """JK-09. Lessons part 2, no. 15: a key that the issuer has withdrawn must not live on because its kid is known.

    Lesson 2.15.
    """
    (key,) = jwks.keys_for("one", "ES256", clock.now)
    issuer.document = jwks_of("two")
    clock.now += 301
    assert not jwks.current(key.thumbprint)
    assert ask(jwks) is UNKNOWN_KEY


def test_a_new_kid_is_found_at_once_even_right_after_another_fetch(issuer, jwks, ask, jwks_of):
    """JK-08: only fetches for unknown kids delay fetches for unknown kids."""
    ask(jwks)
    issuer.document = jwks_of("one", "new")
    assert ask(jwks, "new") == "new"
    assert issuer.fetches == 2


def test_under_a_flood_of_made_up_kids_a_new_one_is_found_within_five_seconds(issuer, jwks, ask, clock, jwks_of):
    """JK-08: whenever it is published, and with few fetches; until then it is trouble of ours and not of the token."""
    ask(jwks)
    for step in range(600):
        ask(jwks, f"made-up-{step}")
        clock.now += 0.1
    assert issuer.fetches <= 1 + 3 + 60 / COOL_DOWN[1] + 1
    for step in range(50):
        issuer.document = jwks_of("one", f"new-{step}")
        published = clock.now
        while (answer := ask(jwks, f"new-{step}")) != f"new-{step}":
            assert answer is SOURCE_UNREACHABLE
            assert clock.now - published < 5
            ask(jwks, f"made-up-{clock.now}")
            clock.now += 0.1
        clock.now += 0.1 * step


def test_the_cool_down_begins_with_a_second_and_grows_to_its_bound_until_there_is_quiet(issuer, jwks, ask, clock):
    ask(jwks)
    fetched = []
    for step in range(300):
        before = issuer.fetches
        ask(jwks, f"made-up-{step}")
        if issuer.fetches > before:
            fetched.append(round(clock.now, 3))
        clock.now += 0.0625  # a number that adds up exactly
    gaps = [round(later - earlier, 1) for earlier, later in itertools.pairwise(fetched)]
    assert gaps == [1.0, 2.0, 4.0, 4.5, 4.5]
    clock.now = fetched[-1] + QUIET
    before = issuer.fetches
    for _ in range(2):
        ask(jwks, f"made-up-{clock.now}")
        clock.now += COOL_DOWN[0]
    assert issuer.fetches == before + 2


def test_a_kid_that_the_last_fetch_did_not_bring_is_unknown_and_another_one_is_fetched_for_soon(
    issuer, jwks, ask, clock
):
    """JK-08: the refusal and the audit tell the two apart."""
    ask(jwks)
    assert [ask(jwks, "gone") for _ in range(3)] == [UNKNOWN_KEY] * 3
    with pytest.raises(Refusal) as refused:
        jwks.keys_for("another", "ES256", clock.now)
    assert refused.value.reason is SOURCE_UNREACHABLE
    assert "fetched again" in refused.value.facts["why"]
    assert issuer.fetches == 2


def test_what_is_remembered_of_made_up_kids_is_bounded_and_forgotten_with_the_next_set(
    issuer, jwks, ask, clock, monkeypatch
):
    monkeypatch.setattr("sts.trust.remote_jwks.MAX_MISSED", 3)
    ask(jwks)
    issuer.gate.clear()
    threads, answers = [], []
    for number in range(5):
        found, had = asking(ask, jwks, f"made-up-{number}", 1)
        threads += found
        answers.append(had)
    issuer.gate.set()
    for thread in threads:
        thread.join(60)
    assert 1 <= len(jwks._missed) <= 3
    clock.now += COOL_DOWN[1]
    ask(jwks, "made-up")
    assert len(jwks._missed) == 1


def test_a_known_kid_with_another_algorithm_causes_no_fetch(issuer, jwks, ask, clock):
    ask(jwks)
    clock.now += 50
    assert ask(jwks, "one", "RS256") is BAD_ALGORITHM
    assert issuer.fetches == 1


FAULTS = [
    UnreachableError("it answered 500"),
    UnfitError("it is not JSON in UTF-8"),
    ZeroDivisionError(),
    MemoryError(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_failed_refresh_never_replaces_good_keys(fault, issuer, jwks, ask, clock, landed):
    """JK-07, JK-09. PyJWT #1162; Lesson 2.10 (CVE-2026-48524 PyJWKClient)."""
    (key,) = jwks.keys_for("one", "ES256", clock.now)
    issuer.fault = fault
    for _ in range(20):
        clock.now += 100
        assert ask(jwks) == "one"
        landed(jwks)
        assert jwks.current(key.thumbprint)
    assert jwks.trouble in {str(fault), f"fault: {type(fault).__name__}"}
    assert 5 < issuer.fetches <= 21


def test_the_last_good_set_ends_when_stale_jwks_is_over(issuer, jwks, ask, clock, landed):
    """JK-09. Lesson C.5."""
    (key,) = jwks.keys_for("one", "ES256", clock.now)
    issuer.fault = UnreachableError("it took too long")
    clock.now += 300 + HOUR - 1
    assert ask(jwks) == "one"
    landed(jwks)
    clock.now += 2
    assert ask(jwks) is SOURCE_UNREACHABLE
    assert not jwks.current(key.thumbprint)
    issuer.fault = None
    clock.now += 60
    assert ask(jwks) == "one"
    assert jwks.trouble == ""


def test_while_the_issuer_is_down_nobody_waits_for_it(issuer, jwks, ask, clock, landed):
    ask(jwks)
    issuer.fault = UnreachableError("it took too long")
    clock.now += 290
    ask(jwks)
    landed(jwks)
    clock.now += 20  # stale, and the issuer is known to be down
    issuer.gate.clear()
    assert ask(jwks) == "one"
    assert ask(jwks) == "one"
    issuer.gate.set()
    landed(jwks)


def test_after_an_idle_time_the_issuer_is_asked_before_a_stale_set_is_used(issuer, jwks, ask, clock, landed, jwks_of):
    ask(jwks)
    issuer.fault = UnreachableError("it answered 503")
    clock.now += 290
    ask(jwks)
    landed(jwks)
    issuer.fault, issuer.document = None, jwks_of("two")
    clock.now += 10 + FAILURE_IS_NEWS
    assert ask(jwks) is UNKNOWN_KEY


def test_an_unknown_kid_while_the_issuer_is_down_is_no_fault_of_the_token(issuer, jwks, ask, clock, landed):
    ask(jwks)
    issuer.fault = UnreachableError("it answered 503")
    clock.now += 50
    assert ask(jwks, "new") is SOURCE_UNREACHABLE
    assert ask(jwks, "new") is SOURCE_UNREACHABLE
    landed(jwks)
    assert issuer.fetches == 2
    assert ask(jwks) == "one"


def test_without_any_set_an_issuer_that_is_back_is_found_within_two_seconds(issuer, jwks, ask, clock, landed):
    issuer.fault = UnreachableError("ConnectionRefusedError: Connection refused")
    fetched = []
    for second in range(300):
        assert ask(jwks) is SOURCE_UNREACHABLE
        landed(jwks)
        fetched.append(second) if issuer.fetches > len(fetched) else None
        clock.now += 1
    assert fetched[:5] == [0, 1, 3, 5, 7]
    assert all(later - earlier == BACK_OFF[1] for earlier, later in itertools.pairwise(fetched[1:]))
    issuer.fault = None
    clock.now += BACK_OFF[1]  # however long it was down
    ask(jwks)
    landed(jwks)
    assert ask(jwks) == "one"


def test_only_some_may_wait_for_a_slow_issuer(issuer, jwks, ask, clock, until):
    issuer.gate.clear()
    waiting, answers = asking(ask, jwks, "one", 2)
    until(lambda: jwks._waiters.free == 0)
    assert [ask(jwks) for _ in range(10)] == [SOURCE_UNREACHABLE] * 10  # at once
    issuer.gate.set()
    for thread in waiting:
        thread.join(60)
    assert answers == ["one", "one"]
    assert issuer.fetches == 1
    clock.now += 301
    assert ask(jwks) == "one"  # the places are free again


def test_nobody_waits_longer_than_its_patience(issuer, clock, ask):
    """FA-10."""
    impatient = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=2, patience=0.05)
    issuer.gate.clear()
    began = time.monotonic()
    assert ask(impatient) is SOURCE_UNREACHABLE
    assert time.monotonic() - began < 30
    issuer.gate.set()


def test_those_who_may_not_wait_use_the_last_good_set(issuer, clock, ask, landed):
    jwks = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=1, patience=0.05)
    ask(jwks)
    landed(jwks)
    clock.now += 301
    issuer.gate.clear()
    assert ask(jwks) == "one"
    issuer.gate.set()
    landed(jwks)


def test_a_clock_that_is_set_back_makes_no_set_immortal(issuer, jwks, ask, clock, jwks_of):
    ask(jwks)
    issuer.document = jwks_of("two")
    clock.now -= 10 * HOUR
    assert ask(jwks) is UNKNOWN_KEY
    assert ask(jwks, "two") == "two"
    assert issuer.fetches == 2


def test_current_does_not_wait_for_the_lock(jwks, clock):
    (key,) = jwks.keys_for("one", "ES256", clock.now)
    clock.now += 290
    with jwks._lock:
        assert jwks.current(key.thumbprint)


def test_every_fetch_is_noticed(issuer, clock, ask, landed, until):
    heard = []
    jwks = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=2, notice=heard.append)
    ask(jwks)
    issuer.fault = UnreachableError("it answered 500")
    clock.now += 290
    ask(jwks)
    landed(jwks)
    until(lambda: heard == ["", "it answered 500"])


def test_without_a_thread_the_request_is_refused_and_the_next_one_tries_again(jwks, ask, monkeypatch):
    def cannot(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        assert ask(jwks) is SOURCE_UNREACHABLE
    assert ask(jwks) == "one"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_it_works_in_a_process_that_was_forked_after_it_was_made(jwks, ask):
    child = os.fork()
    if child == 0:
        os._exit(0 if ask(jwks) == "one" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(jwks) == "one"


def test_threads_that_ask_at_once_cause_one_fetch(issuer, clock, ask):
    """JK-08."""
    jwks = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=50)
    threads, answers = asking(ask, jwks, "one", 30)
    for thread in threads:
        thread.join(60)
    assert answers == ["one"] * 30
    assert issuer.fetches == 1


def test_nobody_waits_for_an_issuer_that_failed_several_times(issuer, jwks, ask, clock, landed):
    issuer.fault = UnreachableError("it took too long")
    for _ in range(FAILURES):
        ask(jwks)
        landed(jwks)
        clock.now += BACK_OFF[1]
    issuer.gate.clear()
    assert ask(jwks) is SOURCE_UNREACHABLE
    issuer.fault = None
    issuer.gate.set()
    landed(jwks)
    assert ask(jwks) == "one"


def test_nobody_waits_for_a_callers_keys_that_never_came(issuer, clock, ask, landed, jwks_of):
    """The time of an answer must not tell that there is such a caller."""
    jwks = CallerJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=2)
    issuer.gate.clear()
    assert ask(jwks) is SOURCE_UNREACHABLE
    issuer.gate.set()
    landed(jwks)
    assert ask(jwks) == "one"
    issuer.document = jwks_of("one", "new")
    assert ask(jwks, "new") == "new"  # while its server answers, a rotation loses no call
    issuer.fault = UnreachableError("it took too long")
    clock.now += COOL_DOWN[1]
    ask(jwks, "made-up")
    landed(jwks)
    issuer.gate.clear()
    clock.now += COOL_DOWN[1]
    assert ask(jwks, "made-up") is SOURCE_UNREACHABLE
    issuer.gate.set()


def test_all_that_come_at_once_to_a_cold_set_wait_for_its_fetch(issuer, clock, ask, monkeypatch):
    monkeypatch.setattr("sts.trust.remote_jwks.GRACE", 60.0)  # this machine may be slow, the issuer is quick
    jwks = RemoteJwks(issuer.load, clock, stale_jwks=HOUR, max_waiters=1)
    issuer.gate.clear()
    threads, answers = asking(ask, jwks, "one", 20)
    issuer.gate.set()
    for thread in threads:
        thread.join(60)
    assert answers == ["one"] * 20
    assert issuer.fetches == 1


def test_a_warm_up_waits_for_the_sets_that_come_and_not_for_a_dead_issuer(jwks_of, clock):
    issuers = [Issuer(jwks_of("one")) for _ in range(40)]
    issuers[1].gate.clear()
    issuers[2].fault = UnreachableError("it answered 500")
    sets = [RemoteJwks(one.load, clock, stale_jwks=HOUR, max_waiters=1) for one in issuers]
    began = time.monotonic()
    warm_up(sets, time.monotonic, 5.0)
    assert time.monotonic() - began < 30
    assert [one._held is not None for one in sets] == [True, False, False] + [True] * 37
    issuers[1].gate.set()


def test_a_warm_up_ends_in_time_where_nothing_answers(jwks_of, clock):
    issuers = [Issuer(jwks_of("one")) for _ in range(40)]
    for one in issuers:
        one.gate.clear()
    sets = [RemoteJwks(one.load, clock, stale_jwks=HOUR, max_waiters=1) for one in issuers]
    warm_up(sets, time.monotonic, 0.05)
    assert sum(one.fetches for one in issuers) == 32  # no more at once
    for one in issuers:
        one.gate.set()
