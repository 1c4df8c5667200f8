"""The protocol of a ring store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event
from typing import Protocol

from keys.record import Ring
from keys.replica_report import Sighting


class Store(Protocol):
    """Keeps one ring, sealed and authentic, and the reports of replicas. Several processes may use it at once."""

    @property
    def place(self) -> str:
        """The place of the ring, for messages to an operator; the path of a file is absolute."""

    def load(self) -> Ring:
        """Read the ring. The same object may be returned for an unchanged ring.

        Raises RingMissing, StoreUnavailable, StoreUnauthentic.
        """

    def compare_and_swap(self, expected: int | None, ring: Ring) -> None:
        """Replace the ring of version `expected` (None: the store has none) by `ring`, completely or not at all.

        The version of `ring` is the next number, so that an older ring is detectable. Raises Conflict if the store has
        another version, StoreUnavailable, StoreUnauthentic.
        """

    def report(self, sighting: Sighting) -> None:
        """Store the report of a replica, and replace its previous one. Raises StoreUnavailable."""

    def forget(self, replica: str) -> None:
        """Delete the report of a replica. Raises StoreUnavailable."""

    def sightings(self) -> Iterable[Sighting]:
        """Return the last report of each replica, without reports that are not authentic. Raises StoreUnavailable."""

    def listen(self, heard: Callable[[], None], stopping: Event) -> None:
        """Call `heard` once at the start and soon after each change of the ring, until `stopping` is set.

        Returns at once if the store sends no notices. A notice is a hint and does not prove a change: several changes
        may cause one notice, and a notice may arrive without a change. Raises StoreUnavailable if listening fails.
        """

    def close(self) -> None:
        """Close the connections, for instance before a fork; the next use opens new ones."""
