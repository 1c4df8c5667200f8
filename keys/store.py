"""Where the ring lives: what every store must keep to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event
from typing import Protocol

from keys.record import Ring
from keys.replica_report import Sighting


class Store(Protocol):
    """A place that keeps one ring, sealed and authentic, and what replicas say. Safe for several processes at once."""

    @property
    def place(self) -> str:
        """Where that is, in words for an operator; a file's path is absolute."""

    def load(self) -> Ring:
        """Read the ring. An unchanged ring may be answered with the same object as before.

        Raises RingMissing, StoreUnavailable, StoreUnauthentic.
        """

    def compare_and_swap(self, expected: int | None, ring: Ring) -> None:
        """Replace the ring of version `expected` (None: there is none) by `ring`, wholly or not at all.

        Raises Conflict if the store holds another version, StoreUnavailable, StoreUnauthentic. The new version is the
        next one, which is what makes an older ring recognisable.
        """

    def report(self, sighting: Sighting) -> None:
        """Keep what a replica says, in the place of what it said before. Raises StoreUnavailable."""

    def forget(self, replica: str) -> None:
        """Drop what a replica said. Raises StoreUnavailable."""

    def sightings(self) -> Iterable[Sighting]:
        """What all replicas said last; what is not authentic is left out. Raises StoreUnavailable."""

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Call `heard` soon after each change of the ring, and once at first, until `stopping` is set.

        Returns at once where the store tells of nothing. What is heard is a hint and proves nothing: several changes
        may be told as one, and one that did not happen. Raises StoreUnavailable where it cannot be heard any more.
        """

    def close(self) -> None:
        """Let go of connections, such as before a fork; the next use opens new ones."""
