"""Where the ring lives: two verbs, which every store must keep to."""

from __future__ import annotations

from typing import Protocol

from keys.record import Ring


class Store(Protocol):
    """A place that keeps one ring, sealed and authentic. Safe for several processes at once."""

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
