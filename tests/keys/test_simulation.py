"""The life of keys among replicas, operators and verifiers that do their worst, on a virtual clock (`keys_world`).

The law: every token verifies at every verifier from mint to `exp`; no verifier ever meets an unknown `kid`, outside the
window that a revocation announced; after that no verifier believes the revoked key. Each guard is broken once: then the
simulation must find a breach, else it would prove nothing.
"""

import contextlib
import dataclasses
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st
from keys_world import START, virtual

from keys import lifecycle, transitions
from keys.heartbeat import Presence
from keys.lifecycle import Schedule

MONTH = 30 * 86400.0
replica = st.integers(0, 2)
operator = st.integers(0, 1)

STEPS = {
    "wait": st.sampled_from([1.0, 4.0, 60.0, 400.0, 3600.0, 4000.0]) | st.floats(0.1, 20_000.0),
    "rotate": operator,
    "rotate_in_time": operator,
    "crash before": operator,
    "crash after": operator,
    "cut": replica,
    "mend": replica,
    "kill": replica,
    "stop": replica,
    "begin": replica,
    "restart": replica,
    "revoke": st.integers(0, 3),
    "ttl": st.sampled_from([1.0, 300.0, 7200.0]),
    "max_age": st.sampled_from([10.0, 300.0, 3600.0]),
    "grace": st.sampled_from([60.0, 3600.0, 9000.0]),
    "algorithms": st.sampled_from([("ES256",), ("Ed25519",), ("ES256", "Ed25519"), ("Ed25519", "ES256")]),
    "roll_out": st.none(),
}
OFTEN = ["wait", "rotate_in_time", "rotate_in_time", "begin"]
SKEWS = st.sampled_from([(15.0, -15.0, 0.0), (15.0, -15.0, -15.0)])


def scripts(names, max_size=40):
    """Scripts of the steps `names`; a name that is there twice comes twice as often."""
    step = st.one_of([st.tuples(st.just(name), STEPS[name]) for name in names])
    return st.lists(step, min_size=4, max_size=max_size)


def play(world, script):
    """Let one script happen, and then let every token that is out come to its end."""
    acts = {
        "ttl": lambda value: world.configure(ttl=value),
        "max_age": lambda value: world.configure(jwks_max_age=value),
        "grace": lambda value: world.configure(store_grace=value),
        "algorithms": lambda value: world.configure(algorithms=value),
        "crash before": lambda value: world.rotate(value, crash="before"),
        "crash after": lambda value: world.rotate(value, crash="after"),
    }
    for act, value in script:
        acts.get(act, getattr(world, act, None))(value)
        world.judge()
        if world.now > START + MONTH:
            break
    world.wait(8000.0)


ROLLED_OUT_LATE = [
    *[("max_age", 10.0), ("rotate_in_time", 0), ("wait", 3600.0)],
    *[("roll_out", None), ("rotate", 0), ("rotate_in_time", 0)],
]
"""The last replica takes a shorter max-age just before a rotation: what was fetched from it is held for longer."""


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(script=scripts([*STEPS, *OFTEN]), skews=SKEWS)
@example(script=ROLLED_OUT_LATE, skews=(15.0, -15.0, 0.0))
def test_no_token_is_refused_no_kid_is_unknown_and_no_revoked_key_is_believed(script, skews):
    """RO-02, RO-03, RO-05, RO-06, JW-40."""
    note(f"{script} {skews}")
    with virtual() as world:
        play(world(skews), script)


def no_max_age(patch):
    patch(Schedule, "guard", property(lambda s: s.verifier_refresh + s.clock_skew + s.poll))


def no_refresh(patch):
    patch(Schedule, "guard", property(lambda s: s.jwks_max_age + s.clock_skew + s.poll))


def no_skew(patch):
    patch(Schedule, "guard", property(lambda s: s.jwks_max_age + s.verifier_refresh + s.poll))


def no_poll(patch):
    patch(Schedule, "guard", property(lambda s: s.jwks_max_age + s.verifier_refresh + s.clock_skew))


def no_standby(patch):
    real = lifecycle.guard_missing
    patch(transitions, "guard_missing", lambda *arguments: (0.0 * real(*arguments)[0], ""))


def no_ttl(patch):
    patch(Schedule, "keep", lambda s, ttl: s.signs_on + s.clock_skew + 0 * ttl)


def no_skew_in_keep(patch):
    patch(Schedule, "keep", lambda s, ttl: s.signs_on + ttl)


def no_grace(patch):
    patch(Schedule, "keep", lambda s, ttl: s.poll + ttl + s.clock_skew)


def forgotten_ttl(patch):
    def noted(ring, _now, wanted):
        return dataclasses.replace(ring, keep=wanted.schedule.keep(wanted.longest_ttl))

    patch(transitions, "noted", noted)


def forgotten_guard(patch):
    real = transitions._published

    def published(ring, pair, now):
        return dataclasses.replace(real(ring, pair, now), ready_at=now)

    patch(transitions, "_published", published)
    replicas_forget(patch)  # either of both memories would do here


def replicas_forget(patch):
    patch(Presence, "_longest", lambda _self, guard: guard)


def nobody_asked(patch):
    patch(lifecycle, "lacking", lambda _sightings, _kid: (0.0, ""))


def published_for_ever(patch):
    patch(Presence, "until", property(lambda _self: float("inf")))


def killed_is_forgotten(patch):
    patch(
        transitions,
        "guard_missing",
        lambda standby, now, schedule, sightings: lifecycle.guard_missing(
            standby, now, schedule, [one for one in sightings if one.until > now]
        ),
    )


def new_algorithm_signs_at_once(patch):
    real = transitions.added

    def added(ring, fresh, now):
        known = {key.algorithm for key in ring.keys}
        ring = real(ring, fresh, now)
        keys = [
            dataclasses.replace(key, active_at=now) if key.waits and key.algorithm not in known else key
            for key in ring.keys
        ]
        return dataclasses.replace(ring, keys=tuple(keys))

    patch(transitions, "added", added)


def revoked_is_published(patch):
    patch(
        lifecycle,
        "state",
        lambda record, now: (
            lifecycle.State.REMOVED if record.leaves_at and record.leaves_at <= now else lifecycle.State.ACTIVE
        ),
    )


def other_configurations_do_not_count(patch):
    real = Presence.tell
    patch(
        Presence, "tell", lambda s, ring, at, schedule: real(s, ring, at, dataclasses.replace(schedule, jwks_max_age=0))
    )


PLAIN = ["wait", "rotate_in_time"]
MUTANTS = {
    no_max_age: PLAIN,
    no_refresh: PLAIN,
    no_skew: [*PLAIN, "rotate_in_time", "restart"],
    no_poll: [*PLAIN, "rotate_in_time", "restart"],
    no_standby: ["wait", "rotate"],
    no_ttl: [*PLAIN, "ttl"],
    no_skew_in_keep: [*PLAIN, "cut"],
    no_grace: [*PLAIN, "cut"],
    forgotten_ttl: [*PLAIN, "ttl"],
    forgotten_guard: [*PLAIN, "max_age"],
    replicas_forget: ["wait", "rotate", "rotate_in_time", "max_age", "roll_out"],
    nobody_asked: [*PLAIN, "cut", "mend"],
    published_for_ever: [*PLAIN, "cut"],
    killed_is_forgotten: ["wait", "rotate", "rotate", "cut", "restart", "restart"],
    new_algorithm_signs_at_once: ["wait", "algorithms"],
    revoked_is_published: ["wait", "revoke"],
    other_configurations_do_not_count: [*PLAIN, "max_age"],
}
"""Each guard broken, and the steps that matter to it: what is looked for among everything takes much longer."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_guard_is_needed(mutant):
    """RO-02, RO-03."""

    @settings(
        max_examples=2000,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(script=scripts(MUTANTS[mutant], 15), skews=SKEWS)
    def search(script, skews):
        with virtual() as world:
            play(world(skews), script)

    patches = []
    mutant(lambda *arguments: patches.append(mock.patch.object(*arguments)))
    with contextlib.ExitStack() as broken:
        for one in patches:
            broken.enter_context(one)
        with pytest.raises(AssertionError):
            search()
