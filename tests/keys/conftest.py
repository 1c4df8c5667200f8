"""A schedule in round numbers, a clock that the test moves, a store in memory, and Python in another process."""

import dataclasses
import subprocess
import sys

import pytest

from keys import rotation
from keys.errors import Conflict, RingMissing
from keys.lifecycle import Schedule
from keys.seal import Sealer
from keys.store_file import FileStore
from keys.transitions import Wanted

SCHEDULE = Schedule(
    rotate_every=86400.0, jwks_max_age=300.0, verifier_refresh=600.0, clock_skew=30.0, poll=5.0, store_grace=3600.0
)
START = 1_800_000_000.0


class Clock:
    """Unix seconds that pass when the test says so."""

    def __init__(self, now=START):
        self.now = now

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        return self.now


class MemoryStore:
    """A store over an attribute; `fault` is raised instead, `before_swap` is a rival's chance."""

    place = "memory"

    def __init__(self, ring=None):
        self.ring = ring
        self.fault = None
        self.before_swap = []
        self.said = {}

    def load(self):
        if self.fault is not None:
            raise self.fault
        if self.ring is None:
            raise RingMissing("there is no key ring in memory")
        return self.ring

    def report(self, sighting):
        if self.fault is not None:
            raise self.fault
        self.said[sighting.replica] = sighting

    def forget(self, replica):
        self.said.pop(replica, None)

    def sightings(self):
        return list(self.said.values())

    def listen(self, heard, stopping):
        """It tells of nothing."""

    def compare_and_swap(self, expected, ring):
        if self.before_swap:
            self.before_swap.pop(0)()
        if (self.ring.version if self.ring else None) != expected:
            raise Conflict("changed by somebody else")
        self.ring = ring


def of(schedule, longest_ttl, algorithms=("ES256",)):
    return Wanted(schedule, longest_ttl, tuple(algorithms))


@pytest.fixture
def wanted():
    """What a configuration wants: of a schedule, a longest ttl and algorithms, ES256 where none are named."""
    return of


@pytest.fixture
def schedule():
    return SCHEDULE


@pytest.fixture
def other_schedule():
    return lambda **changed: dataclasses.replace(SCHEDULE, **changed)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory_store():
    return MemoryStore()


@pytest.fixture
def new_memory_store():
    return MemoryStore


@pytest.fixture
def new_clock():
    return Clock


@pytest.fixture
def sealer():
    return Sealer([bytes(range(32))])


@pytest.fixture
def file_store(tmp_path, sealer):
    return FileStore(tmp_path / "var" / "keyring.json", sealer)


@pytest.fixture
def ring(memory_store, clock, schedule):
    """A first ring, not stored anywhere."""
    return rotation.create(memory_store, clock, of(schedule, 300.0))[0]


@pytest.fixture
def python():
    """Run Python source in a process of its own; returns the finished process."""

    def run(source, *arguments, timeout=60):
        return subprocess.run(
            [sys.executable, "-c", source, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
