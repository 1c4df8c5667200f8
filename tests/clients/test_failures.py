"""The limit on failed client authentication: what it counts, what it never touches, and what it does not tell."""

import statistics
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sts.clients import registry
from sts.clients import secret as proofs
from sts.clients.failures import BURST, LANES, PER_MINUTE, SLOTS, Failures
from sts.clients.registry import Clients
from sts.clients.secret import SecretClient, digest
from sts.errors import Refusal
from sts.model import Caller, Peer

PEER = Peer("10.0.0.7")
FIRST, SECOND = "the first secret", "the second secret"


class World:
    """Two clients, a clock that stands still, and what was noticed."""

    def __init__(self):
        self.now, self.noticed = 1000.0, 0
        self.failures = Failures(lambda: self.now, self.notice)
        both = {"auth": "secret", "audiences": ["*"], "profile": "nginx"}
        self.settings = {
            "one": SecretClient.model_validate({**both, "secrets": [digest(FIRST)]}),
            "two": SecretClient.model_validate({**both, "secrets": [digest(FIRST), digest(SECOND)]}),
            "off": SecretClient.model_validate({**both, "secrets": [digest(FIRST)], "enabled": False}),
            "far": SecretClient.model_validate({**both, "secrets": [digest(FIRST)], "networks": ["192.0.2.0/24"]}),
            "bare": SecretClient.model_validate({**both, "secrets": [digest(FIRST)], "profile": None}),
        }
        self.clients = Clients(self.settings, self.failures)

    def notice(self):
        self.noticed += 1

    def prove(self, client_id="one", secret="wrong", peer=PEER, door="token"):
        return self.clients.prove(Caller(door, client_id, secret, peer))

    def fail(self, *arguments, **call):
        with pytest.raises(Refusal) as caught:
            self.prove(*arguments, **call)
        return caught.value

    def limited(self, *arguments, **call):
        return self.fail(*arguments, **call).reason.token_status == 429

    def exhaust(self, *arguments, **call):
        assert [self.limited(*arguments, **call) for _ in range(BURST + 1)] == [False] * BURST + [True]


@pytest.fixture
def world():
    return World()


def test_a_burst_of_failures_is_answered_as_such_and_then_limited(world):
    """EP-08."""
    world.exhaust()
    refusal = world.fail()
    reason = refusal.reason
    assert (reason.name, reason.error, reason.token_status, reason.forward_status) == (
        "client_refused",
        "invalid_client",
        429,
        503,
    )
    assert refusal.facts == {"why": "wrong secret", "limited": True, "peer": "10.0.0.7"}
    assert world.noticed == 2


def test_after_the_burst_there_are_a_few_each_minute(world):
    world.exhaust()
    passed = 0
    for _ in range(600):
        world.now += 0.1
        passed += not world.limited()
    assert PER_MINUTE - 1 <= passed <= PER_MINUTE + 1
    world.now += 60
    world.exhaust()


def test_the_right_secret_passes_in_the_middle_of_a_storm_and_is_not_counted(world):
    """EP-08: the peer is the gateway and carries everybody."""
    for _ in range(10 * BURST):
        world.fail("two")
        assert world.prove("two", FIRST).id == world.prove("two", SECOND).id == "two"
    fresh = World()
    for _ in range(10 * BURST):
        fresh.prove("one", FIRST)
    fresh.exhaust("one")


def test_the_right_secret_never_comes_near_the_limit(world, monkeypatch):
    """It costs the hot path nothing."""
    monkeypatch.setattr(Failures, "refusal", None)
    assert world.prove("one", FIRST).id == "one"


def test_another_peer_has_tries_of_its_own():
    # Two peers share a bucket by chance once in four thousand times, so that this one lets a few do so.
    world = World()
    world.exhaust()
    free = [world.limited(peer=Peer(f"10.0.1.{last}")) for last in range(20)]
    assert free.count(True) <= 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Peer("2001:db8:1:2::1"), Peer("2001:db8:1:2:ffff:ffff:ffff:ffff")),
        (Peer("::ffff:10.0.0.7"), Peer("10.0.0.7")),
        (Peer("", unix=True), Peer("", unix=True)),
    ],
    ids=["a host's IPv6 prefix", "an IPv4 address written as IPv6", "our Unix socket"],
)
def test_what_is_one_peer_has_the_same_tries(world, one, other):
    world.exhaust(peer=one)
    assert world.limited(peer=other)


def test_whoever_makes_up_ids_has_no_more_tries_than_the_lanes_allow(world):
    answered = sum(not world.limited(f"made-up-{number}") for number in range(2 * BURST * LANES))
    assert answered <= BURST * LANES


def test_memory_is_bounded_whatever_callers_make_up(world):
    for number in range(3 * SLOTS):
        world.fail(f"id-{number}", peer=Peer(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"))
    assert len(world.failures._buckets) <= SLOTS


def test_the_limit_does_not_tell_which_ids_exist(world):
    """Whoever exhausts a peer's lanes with made-up ids finds known and unknown ones limited alike."""
    for number in range(BURST * LANES * 10):
        world.fail(f"made-up-{number}")
    assert all(world.limited(client_id) for client_id in (*world.settings, "unknown", "another"))


def test_each_refusal_counts_so_that_the_limit_does_not_tell_that_a_secret_is_right():
    """A right secret of a disabled client, or from elsewhere, looks like a wrong one for as long as one likes."""
    for client_id, door in (("off", "token"), ("far", "token"), ("bare", "forward_auth")):
        for secret in (FIRST, "wrong", "", None):
            World().exhaust(client_id, secret, door=door)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two", "off", "far", "nobody"]), st.sampled_from([FIRST, SECOND, "wrong", None])
        ),
        max_size=120,
    )
)
@settings(max_examples=30, deadline=None)
def test_whatever_came_before_right_credentials_pass_and_all_others_do_not(calls):
    """EP-08."""
    world = World()
    for client_id, secret in calls:
        right = (client_id, secret) in {("one", FIRST), ("two", FIRST), ("two", SECOND)}
        if right:
            assert world.prove(client_id, secret).id == client_id
        else:
            assert world.fail(client_id, secret=secret).reason.name == "client_refused"
        assert world.prove("two", SECOND).id == "two"


def test_failures_at_the_same_time_are_each_counted_once(world):
    statuses = Counter()

    def storm():
        found = Counter(world.fail().reason.token_status for _ in range(BURST))
        statuses.update(found)

    threads = [threading.Thread(target=storm) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {401: BURST, 429: 5 * BURST}


@pytest.mark.parametrize("client_id", ["one", "two", "nobody"])
@pytest.mark.parametrize("secret", [FIRST, SECOND, "wrong", "", None])
def test_every_caller_costs_the_same_comparisons(world, monkeypatch, client_id, secret):
    """EP-07. By count, as a clock shows only large differences: known or not, one secret or two, right or wrong."""
    done = []

    class Counted:
        @staticmethod
        def compare_digest(one, other):
            done.append((len(one), len(other)))
            return real(one, other)

    real = proofs.hmac.compare_digest
    monkeypatch.setattr(proofs, "hmac", Counted)
    with_refusal = (client_id, secret) not in {("one", FIRST), ("two", FIRST), ("two", SECOND)}
    if with_refusal:
        world.fail(client_id, secret=secret)
    else:
        world.prove(client_id, secret)
    assert done == [(32, 32), (32, 32)]


@pytest.mark.parametrize("limited", [False, True])
def test_an_unknown_client_takes_as_long_as_a_wrong_secret(limited):
    """EP-07."""
    world = World()
    ids = {"known": "one", "with two secrets": "two", "unknown": "nobody"}
    if limited:
        for client_id in ids.values():
            for _ in range(BURST):
                world.fail(client_id)
    times = {name: [] for name in ids}
    for _ in range(1500):
        for name, client_id in ids.items():  # by turns, so that what disturbs the machine disturbs all
            began = time.thread_time_ns()
            try:
                world.prove(client_id)
            except Refusal:
                times[name].append(time.thread_time_ns() - began)
        if not limited:
            world.now += 60
    medians = {name: statistics.median(found) for name, found in times.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


def test_the_directory_knows_one_way_to_refuse():
    """A second one would be a refusal that the limit does not count."""
    names = vars(registry)
    assert not {name for name in names if name.startswith(("CLIENT_REFUSED", "CLIENT_LIMITED"))}
