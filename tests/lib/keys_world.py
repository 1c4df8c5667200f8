"""A world on a virtual clock around one key ring: replicas, operators, caches and verifiers that do their worst.

All clocks differ by as much as they may. Replicas are cut off from the store, killed, stopped and started. Verifiers
fetch from every replica at the worst moments, just before something changes, and keep a JWKS for as long as they may.
Operators rotate, revoke, crash, retry and change the configuration. `judge` is the law; it is asked after every step.
"""

import contextlib
import dataclasses
import functools
from types import SimpleNamespace
from unittest import mock

from keys import keyring, revocation_impact, rotation, signer, transitions
from keys.errors import Conflict, GuardRefused, KeysError, NoUsableKey, RingMissing, StoreUnavailable
from keys.keyring import Keyring
from keys.lifecycle import Schedule, State, is_published, state
from keys.transitions import Wanted

START = 1_800_000_000.0
SCHEDULE = Schedule(
    rotate_every=86400.0, jwks_max_age=300.0, verifier_refresh=600.0, clock_skew=30.0, poll=5.0, store_grace=3600.0
)
ORDER = list(State)
EDGE = 0.001


class CrashError(Exception):
    """The operator's machine stops."""


class Shared:
    """The store that everybody uses; `view` is one process's way to it, which can be cut."""

    def __init__(self):
        self.ring, self.said = None, {}

    def view(self):
        return View(self)


class View:
    place = "memory"

    def __init__(self, shared):
        self.shared, self.cut, self.crash = shared, False, ""

    def _reach(self):
        if self.cut:
            raise StoreUnavailable("cut off")

    def load(self):
        self._reach()
        if self.shared.ring is None:
            raise RingMissing("empty")
        return self.shared.ring

    def compare_and_swap(self, expected, ring):
        self._reach()
        if self.crash == "before":
            raise CrashError
        if (self.shared.ring.version if self.shared.ring else None) != expected:
            raise Conflict("changed")
        self.shared.ring = ring
        if self.crash == "after":
            raise CrashError

    def report(self, sighting):
        self._reach()
        self.shared.said[sighting.replica] = sighting

    def forget(self, replica):
        self._reach()
        self.shared.said.pop(replica, None)

    def sightings(self):
        self._reach()
        return list(self.shared.said.values())


@dataclasses.dataclass(frozen=True)
class Token:
    kid: str
    until: float  # `exp` by the clock of who minted it; who takes it for longer, his clock being behind, may be refused
    minter: object


@dataclasses.dataclass(frozen=True)
class Held:
    """A JWKS that some verifier may hold until `until`, and the replica that it came from."""

    kids: frozenset
    until: float
    replica: str


class World:
    """One example. `skew` is half of what two clocks may differ by; replicas and operators get their share of it."""

    def __init__(self, skews=(15.0, -15.0, 0.0)):
        self.now, self.wanted = START, Wanted(SCHEDULE, 300.0, ("ES256",))
        self.shared = Shared()
        self.operators = [self.shared.view(), self.shared.view()]
        self.records, self.states = {}, {}
        self.tokens, self.held = [], []
        self.excused = {}  # kid -> until when a verifier may lack it, as a revocation announced
        self.ended = {}  # revoked kid -> (until when it is believed, replicas that are out of sight with theirs)
        self.pids = iter(range(1, 10**6))
        self.running = set()
        self.skews = skews
        self.replicas = [None, None, None]
        rotation.create(self.operators[0], self.clock_of(0), self.wanted)
        for number in range(3):
            self.begin(number)
        self.judge()

    # what happens

    def clock_of(self, number):
        """Operators' clocks differ by all that they may."""
        return lambda: self.now + (15.0, -15.0)[number]

    def begin(self, number):
        """A process starts, where none runs; it takes the configuration in force."""
        if self.replicas[number] is not None:
            return
        view, skew, pid = self.shared.view(), self.skews[number], next(self.pids)
        rotation.prepare(view, lambda: self.now + skew, self.wanted)
        self.running.add(pid)
        with mock.patch("keys.heartbeat.getpid", return_value=pid):
            made = Keyring(view, self.wanted.schedule, lambda: self.now + skew)
        self.replicas[number] = SimpleNamespace(
            view=view,
            keyring=made,
            skew=skew,
            pid=pid,
            looked=self.now,
            wanted=self.wanted,
            name=next(one.replica for one in self.shared.said.values() if one.pid == pid),
        )

    def up(self):
        return [replica for replica in self.replicas if replica is not None]

    def kill(self, number):
        """Nobody is told."""
        self.fetch()
        if self.replicas[number] is not None:
            self.running.discard(self.replicas[number].pid)
            self.replicas[number] = None

    def stop(self, number):
        """It says that it publishes no more, if it can."""
        self.fetch()
        if self.replicas[number] is not None:
            self.replicas[number].keyring.stop()
            self.kill(number)

    def restart(self, number):
        self.kill(number)
        self.begin(number)

    def cut(self, number):
        if self.replicas[number] is not None:
            self.replicas[number].view.cut = True

    def mend(self, number):
        if self.replicas[number] is not None:
            self.replicas[number].view.cut = False
            self.look(self.replicas[number])

    def look(self, replica):
        self.fetch([replica])  # the worst moment is just before
        replica.looked = self.now
        with contextlib.suppress(StoreUnavailable):
            replica.keyring.refresh()
        self.fetch([replica])

    def wait(self, seconds):
        """Time passes, and each replica looks at the store every `poll` seconds; long quiet times are skipped."""
        target = self.now + seconds
        while True:
            due = min((one.looked + one.wanted.schedule.poll for one in self.up()), default=target + 1)
            if due > target:
                break
            self.now = max(self.now, due - EDGE)
            for one in self.up():
                if one.looked + one.wanted.schedule.poll <= due:
                    self.look(one)
            self.judge()
            if target - self.now > 60:
                self._skip(target - 20)
        self.now = target

    def _skip(self, target):
        """Nothing happens but what the clock does: keys leave, tokens expire, replicas that are cut off give up."""
        ends = [key.leaves_at for key in self.shared.ring.keys if key.leaves_at]
        ends += [token.until for token in self.tokens]
        ends += [one.looked + one.wanted.schedule.store_grace for one in self.up()]
        moments = {edge for end in ends for edge in (end - 40, end - 16, end - EDGE, end + EDGE, end + 16)}
        for moment in sorted(moments):
            if self.now < moment < target:
                self.now = moment
                for one in self.up():
                    if not one.view.cut:
                        self.look(one)
                self.fetch()
                self.judge()
        self.now = max(self.now, target)
        for one in self.up():
            if not one.view.cut:
                self.look(one)

    def rotate(self, operator, crash=""):
        self.fetch()
        view = self.operators[operator]
        view.crash = crash
        with contextlib.suppress(GuardRefused, CrashError):
            rotation.rotate(view, self.clock_of(operator), self.wanted)
        view.crash = ""
        self.judge()

    def rotate_in_time(self, operator):
        """As soon as it is allowed, by that operator's clock: the tightest case."""
        view = self.operators[operator]
        plans = [
            rotation.plan(self.shared.ring, name, self.clock_of(operator)(), self.wanted.schedule, view.sightings())
            for name in self.wanted.algorithms
        ]
        missing = max(plan.guard_missing for plan in plans)
        if missing < 6000:
            self.wait(missing)
        self.rotate(operator)

    def revoke(self, which):
        """Revoke the key that signs (0), waits (1), is retired (2), or all (3), and announce what that means."""
        self.fetch()
        view, before, schedule = self.operators[0], self.shared.ring, self.wanted.schedule
        clock = self.clock_of(0)
        living = [key for key in before.keys if key.revoked_at is None]
        kinds = [lambda key: key.signs, lambda key: key.waits, lambda key: not (key.signs or key.waits)]
        found = [key.kid for key in living if which < 3 and kinds[which](key)]
        if which < 3 and not found:
            return
        at = self.now
        ring = rotation.revoke_all(view, clock, self.wanted) if which == 3 else rotation.revoke(view, clock, found[0])
        for key in ring.keys:
            if key.kid not in {one.kid for one in before.keys if one.signs} and key.signs:
                self.excused[key.kid] = float("inf")  # until it is announced
        self.wait(schedule.poll + EDGE)  # the command waits as well
        outside = revocation_impact.bounds(before, ring, clock(), schedule, view.sightings())
        announced = self.now + schedule.clock_skew
        lost = {name: announced + seconds for name, seconds in outside.out_of_sight}
        for key in ring.keys:
            if self.excused.get(key.kid) == float("inf"):
                self.excused[key.kid] = announced + outside.unknown if outside.unknown else at + schedule.poll + EDGE
            if key.revoked_at is not None and key.kid not in self.ended:
                self.ended[key.kid] = (announced + outside.believed, lost)
        self.judge()

    def configure(self, **changed):
        """A new configuration: it is written into the ring before anybody works by it; one replica takes it later."""
        self.fetch()
        algorithms = changed.pop("algorithms", self.wanted.algorithms)
        ttl = changed.pop("ttl", self.wanted.longest_ttl)
        self.wanted = Wanted(dataclasses.replace(self.wanted.schedule, **changed), ttl, algorithms)
        rotation.prepare(self.operators[1], self.clock_of(1), self.wanted)
        for replica in self.up()[:-1]:
            self.take(replica)

    def roll_out(self, _=None):
        """The last one takes the configuration, too."""
        for replica in self.up():
            self.take(replica)

    def take(self, replica):
        if replica.wanted is not self.wanted and not replica.view.cut:
            rotation.prepare(replica.view, lambda: self.now + replica.skew, self.wanted)
            replica.keyring.refresh()
            replica.wanted = self.wanted
            replica.keyring.reschedule(self.wanted.schedule)

    # what the others do

    def fetch(self, replicas=None):
        """Somebody fetches from each replica, a cache on the way included, and keeps it for as long as anybody may."""
        for replica in self.up() if replicas is None else replicas:
            schedule = replica.wanted.schedule
            with contextlib.suppress(NoUsableKey):
                jwks = replica.keyring.jwks(self.now + replica.skew)
                kids = frozenset(key["kid"] for key in jwks["keys"])
                # `verifier_refresh` is what operators say of the verifiers that there are, so the longest counts
                until = self.now + schedule.jwks_max_age + schedule.verifier_refresh
                self.held.append(Held(kids, until, replica.name))
        if len(self.held) > 40:
            longest = {}
            for one in self.held:
                if one.until >= self.now:
                    longest[one.kids, one.replica] = max(longest.get((one.kids, one.replica), 0), one.until)
            self.held = [Held(kids, until, replica) for (kids, replica), until in longest.items()]

    def mint(self):
        """Every replica mints a token of each algorithm, as long-lived as its configuration allows."""
        for replica in self.up():
            here = self.now + replica.skew
            for name in replica.wanted.algorithms:
                try:
                    kid = replica.keyring.signer(name, here).kid
                except NoUsableKey:
                    assert replica.view.cut, "a replica that sees the store must be able to sign"
                    continue
                self.tokens.append(Token(kid, self.now + replica.wanted.longest_ttl, replica))

    # the law

    def judge(self):
        self.mint()
        ring = self.shared.ring
        self.records |= {key.kid: key for key in ring.keys}
        latest = {}
        for token in self.tokens:
            if token.until > self.now:
                key = (token.kid, id(token.minter))
                latest[key] = max(latest.get(key, token), token, key=lambda one: one.until)
        self.tokens = list(latest.values())
        revoked = {kid for kid, record in self.records.items() if record.revoked_at is not None}
        good = {one.kid for one in self.tokens} - revoked
        for token in self.tokens:
            self._judge_availability(token, revoked)
        for held in self.held:
            if held.until > self.now:
                lacking = {kid for kid in good - held.kids if self.excused.get(kid, 0) < self.now}
                assert not lacking, "a verifier meets an unknown kid"
                for kid in held.kids & self.ended.keys():
                    believed, lost = self.ended[kid]
                    assert self.now <= lost.get(held.replica, believed), "a revoked key is believed for too long"
        for kid, record in self.records.items():
            found = ORDER.index(state(record, self.now))
            assert found >= self.states.get(kid, 0), "a state moved back"
            self.states[kid] = found

    def _judge_availability(self, token, revoked):
        """Who minted a token publishes its key as long as the token lives; so does everybody else that publishes."""
        if token.kid in revoked or token.minter not in self.up():
            return
        try:
            shown = token.minter.keyring.jwks(self.now + token.minter.skew)
        except NoUsableKey as error:
            raise AssertionError(f"a token outlives the JWKS of its replica: {error}") from None
        assert token.kid in {key["kid"] for key in shown["keys"]}, "a token outlives its published key"
        record = self.records[token.kid]
        assert is_published(self.shared.ring.find(token.kid) or record, self.now - 15), "a token outlives its key"


@functools.cache
def _signer(kid, algorithm):
    return SimpleNamespace(kid=kid, algorithm=algorithm)


@contextlib.contextmanager
def virtual():
    """Keys of the right names without cryptography (it is not what is simulated), and processes without processes."""
    worlds = []
    numbers = iter(range(10**9))

    def generate(algorithm):
        kid = f"key-{next(numbers)}"
        public = {"kty": "OKP", "crv": algorithm, "x": kid}
        return signer.Pair(kid=kid, algorithm=algorithm, public=public, private=b"private")

    def made(*arguments, **more):
        worlds.append(World.__new__(World))
        worlds[-1].running = set()
        worlds[-1].__init__(*arguments, **more)
        return worlds[-1]

    def signer_of(record):
        return _signer(record.kid, record.algorithm)

    with (
        mock.patch.object(rotation, "generate", generate),
        mock.patch.object(transitions, "signer_of", signer_of),
        mock.patch.object(keyring, "signer_of", signer_of),
        mock.patch("keys.heartbeat.here", return_value="host"),
        mock.patch("keys.heartbeat.is_alive", lambda pid: pid in worlds[-1].running),
    ):
        yield made


__all__ = ["START", "KeysError", "World", "virtual"]
