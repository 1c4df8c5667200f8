"""One tree of errors for all that can go wrong with keys. No text here ever holds key material."""

from __future__ import annotations


class KeysError(Exception):
    """The root of every error that `keys` raises on purpose; its text is a sentence for the operator."""


class NoUsableKey(KeysError):  # noqa: N818 - says what is the matter
    """There is nothing to sign with: no such algorithm, or the store has been out of sight for too long."""


class SelfTestFailed(KeysError):  # noqa: N818 - says what is the matter
    """A private key does not sign what its published half verifies; it must never become active."""


class StoreUnavailable(KeysError):  # noqa: N818 - says what is the matter
    """The store cannot be read or written at the moment."""


class RingMissing(KeysError):  # noqa: N818 - says what is the matter
    """The store can be read and holds no ring."""


class StoreUnauthentic(KeysError):  # noqa: N818 - says what is the matter
    """The store holds something that was not written with our seal keys, or is not a ring at all."""


class RolledBack(StoreUnauthentic):
    """The store holds an authentic ring that is older than one this replica has already seen, or differs from it."""


class Conflict(KeysError):  # noqa: N818 - says what is the matter
    """Somebody else changed the ring first: nothing was written."""


class KeyUnfit(KeysError):  # noqa: N818 - says what is the matter
    """A key from elsewhere cannot be taken: of another kind, too short, unreadable, or in the ring already."""


class GuardRefused(KeysError):  # noqa: N818 - says what is the matter
    """The standby has not been published for long enough; `seconds` are missing until every verifier has it.

    `replica` is the one that may have shown verifiers a JWKS without it, "" where the standby itself is too young.
    """

    def __init__(self, seconds: float, replica: str = "") -> None:
        text = f"verifiers may still lack it for {seconds:.0f} s"
        if replica:
            text = f"the replica {replica} did not publish the standby key in time, or is out of sight: {text}"
        else:
            text = f"the standby key has not been published for long enough: {text}"
        super().__init__(text)
        self.seconds = seconds
        self.replica = replica
