"""The errors of `keys`. No message contains key material."""

from __future__ import annotations


class KeysError(Exception):
    """The base class of the errors that `keys` raises; the message is a sentence for the operator."""


class NoUsableKey(KeysError):  # noqa: N818 - says what is the matter
    """No key can sign: the ring has none for the algorithm, or the store has been unreachable for too long."""


class SelfTestFailed(KeysError):  # noqa: N818 - says what is the matter
    """The published half of a key does not verify what its private half signs; such a key must never become active."""


class StoreUnavailable(KeysError):  # noqa: N818 - says what is the matter
    """The store cannot be read or written now."""


class RingMissing(KeysError):  # noqa: N818 - says what is the matter
    """The store is readable and contains no ring."""


class StoreUnauthentic(KeysError):  # noqa: N818 - says what is the matter
    """The content of the store was not written with our seal keys, or is not a ring."""


class RolledBack(StoreUnauthentic):
    """The store contains an authentic ring that is older than the one this replica has seen.

    Also raised for a different ring of the same version.
    """


class Conflict(KeysError):  # noqa: N818 - says what is the matter
    """Another writer changed the ring first; this write did not happen."""


class KeyUnfit(KeysError):  # noqa: N818 - says what is the matter
    """A key cannot be imported: another type, too short, unreadable, or already in the ring."""


class GuardRefused(KeysError):  # noqa: N818 - says what is the matter
    """The standby key has not been published for long enough.

    `seconds` is the time until every verifier has the key. `replica` is the name of the replica that may have published
    a JWKS without the key, "" if the key itself is too new.
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
