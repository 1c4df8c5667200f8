"""A month in the life of a ring: operators, configurations and replicas do what they like, the laws hold.

The clock is virtual. Two replicas, with clocks that differ by as much as they may, look at the store every `poll`
seconds and are cut off from it at times. After every step both mint a token of the longest life that the configuration
allows; verifiers fetch at the worst moments, just before something changes.
"""

import dataclasses
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from keys import rotation
from keys.errors import Conflict, GuardRefused, NoUsableKey, RingMissing, StoreUnavailable
from keys.keyring import Keyring
from keys.lifecycle import Schedule, State, is_published, state

START = 1_800_000_000.0
MONTH = 30 * 86400.0
ORDER = list(State)
FIRST = Schedule(
    rotate_every=86400.0, jwks_max_age=300.0, verifier_refresh=600.0, clock_skew=30.0, poll=5.0, store_grace=3600.0
)

steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1.0, 4.0, 60.0, 934.0, 3600.0, 4000.0, 86400.0, 200_000.0])),
    st.tuples(st.just("wait"), st.floats(0.1, 20_000.0)),
    st.tuples(st.just("rotate"), st.booleans()),
    st.tuples(st.just("rotate"), st.just(True)),
    st.tuples(st.just("cut"), st.integers(0, 1)),
    st.tuples(st.just("mend"), st.integers(0, 1)),
    st.tuples(st.just("ttl"), st.sampled_from([1.0, 300.0, 600.0, 7200.0])),
    st.tuples(st.just("max_age"), st.sampled_from([10.0, 300.0, 3600.0])),
    st.tuples(st.just("grace"), st.sampled_from([60.0, 3600.0, 9000.0])),
)


class Shared:
    """The store that both replicas and the operators use; a view of it can be cut off."""

    place = "memory"

    def __init__(self):
        self.ring = None

    def load(self):
        if self.ring is None:
            raise RingMissing("empty")
        return self.ring

    def compare_and_swap(self, expected, ring):
        if (self.ring.version if self.ring else None) != expected:
            raise Conflict("changed")
        self.ring = ring

    def view(self):
        shared = self

        class View:
            place, cut = "memory", False

            def load(self):
                if self.cut:
                    raise StoreUnavailable("cut off")
                return shared.load()

        return View()


class Month:
    """The world of one example."""

    def __init__(self, skew):
        self.now, self.schedule, self.ttl = START, FIRST, 300.0
        self.store = Shared()
        rotation.create(self.store, "ES256", self.clock, self.schedule, self.ttl)
        self.first = self.store.ring.keys[0].kid
        self.records = {}  # every key that ever was, as last seen in the store
        self.states = {}
        self.tokens = []
        self.verifiers = []  # until when a JWKS is kept, and the kids in it
        # half the skew either way, so that the two differ by the whole of it at most
        self.replicas = [self.replica(skew), self.replica(-skew)]
        self.judge()

    def clock(self):
        return self.now

    def replica(self, skew):
        view = self.store.view()
        keyring = Keyring(view, self.schedule, lambda: self.now + skew)
        return SimpleNamespace(view=view, keyring=keyring, skew=skew, seen_at=self.now, grace=FIRST.store_grace)

    def wait(self, seconds):
        """Time passes; a replica that sees the store has looked at it within the last `poll` seconds."""
        self.now += seconds
        for replica in self.replicas:
            if not replica.view.cut:
                self.look(replica)

    def look(self, replica):
        replica.keyring.refresh()
        replica.seen_at, replica.grace = self.now, self.schedule.store_grace

    def rotate(self, in_time):
        """Rotate now, or as soon as it is allowed; the replicas do not see it before the next wait."""
        self.fetch()
        if in_time:
            self.wait(rotation.plan(self.store.ring, "ES256", self.now, self.schedule).guard_missing)
        before = self.store.ring
        try:
            rotation.rotate(self.store, "ES256", self.clock, self.schedule, self.ttl)
        except GuardRefused:
            assert self.store.ring is before

    def fetch(self):
        """Verifiers take the JWKS of every replica that sees the store, and keep it for as long as they may."""
        kept_until = self.now + self.schedule.jwks_max_age + self.schedule.verifier_refresh
        for replica in self.replicas:
            if not replica.view.cut:
                jwks = replica.keyring.jwks(self.now + replica.skew)
                self.verifiers.append((kept_until, {key["kid"] for key in jwks["keys"]}))

    def mint(self, number):
        replica = self.replicas[number]
        here = self.now + replica.skew
        try:
            signer = replica.keyring.signer("ES256", here)
        except NoUsableKey:
            assert replica.view.cut, "a replica that sees the store must be able to sign"
            assert self.now - replica.seen_at > replica.grace
            return
        self.tokens.append((signer.kid, here + self.ttl))
        if signer.kid != self.first:
            published_for = self.now - self.records[signer.kid].published_at
            assert published_for >= 10 + 600 + FIRST.poll, (
                "a key signs that has not been published for the guard's time"
            )
            for until, kids in self.verifiers:
                assert until < self.now or signer.kid in kids, "a verifier meets an unknown kid"

    def cut(self, number):
        self.replicas[number].view.cut = True

    def mend(self, number):
        self.replicas[number].view.cut = False
        self.look(self.replicas[number])

    def configure(self, **changed):
        """A new configuration: it is written into the ring before anybody works by it."""
        self.fetch()
        self.ttl = changed.pop("ttl", self.ttl)
        self.schedule = dataclasses.replace(self.schedule, **changed)
        rotation.note_longest_ttl(self.store, self.clock, self.schedule, self.ttl)
        for replica in self.replicas:
            replica.keyring.reschedule(self.schedule)
            replica.grace = min(replica.grace, self.schedule.store_grace)

    def judge(self):
        """The laws that hold at every moment."""
        self.records |= {key.kid: key for key in self.store.ring.keys}
        published = {key.kid for key in self.store.ring.keys if is_published(key, self.now)}
        self.tokens = [token for token in self.tokens if token[1] > self.now]
        for kid, _ in self.tokens:
            assert kid in published, "a token outlives its published key"
        for kid, record in self.records.items():
            found = ORDER.index(state(record, self.now))
            assert found >= self.states.get(kid, 0), "a state moved back"
            self.states[kid] = found
        signing = [key for key in self.store.ring.keys if state(key, self.now) is State.ACTIVE]
        waiting = [key for key in self.store.ring.keys if state(key, self.now) is State.PUBLISHED]
        assert (len(signing), len(waiting)) == (1, 1)


@settings(max_examples=120)
@given(script=st.lists(steps, min_size=10, max_size=60), skew=st.floats(-15.0, 15.0))
def test_no_token_outlives_its_key_no_key_signs_too_early_and_no_state_moves_back(script, skew):
    month = Month(skew)
    acts = {
        "ttl": lambda value: month.configure(ttl=value),
        "max_age": lambda value: month.configure(jwks_max_age=value),
        "grace": lambda value: month.configure(store_grace=value),
    }
    for act, value in script:
        acts.get(act, getattr(month, act, None))(value)
        month.mint(0)
        month.mint(1)
        month.judge()
        if month.now > START + MONTH:
            break
    for _, expires_at in sorted(month.tokens, key=lambda token: token[1]):
        month.now = max(month.now, expires_at - 0.001)
        month.judge()
