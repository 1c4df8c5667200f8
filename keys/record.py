"""The immutable values: a key, and the ring of all keys. Times are Unix seconds, durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key: its public and private half, and the times from which its state follows.

    - `kid`: the RFC 7638 thumbprint of `public` (the required JWK members).
    - `private`: PKCS #8 DER; None for a revoked key, of which only a tombstone remains.
    - `ready_at`: when every verifier has the key, which was published at `published_at`.
    - `active_at`: when the key began to sign.
    - `leaves_at`: when the last token that the key may have signed expires; set together with `retired_at`.
    - `revoked_at`: when the key was revoked, from any state.
    """

    kid: str
    algorithm: str
    public: Mapping[str, str]
    private: bytes | None = field(repr=False)
    published_at: float
    ready_at: float
    active_at: float | None = None
    retired_at: float | None = None
    leaves_at: float | None = None
    revoked_at: float | None = None

    def __post_init__(self) -> None:
        """Reject contradictory times with ValueError; the message contains only the `kid`."""
        if (self.retired_at is None) != (self.leaves_at is None) or (
            self.retired_at is not None and self.active_at is None
        ):
            raise ValueError(f"the times of key {self.kid} contradict each other")
        if (self.private is None) != (self.revoked_at is not None):
            raise ValueError(f"key {self.kid} has no private half though it is not revoked, or still has one")

    @property
    def signs(self) -> bool:
        """Whether the key was promoted and is neither retired nor revoked; independent of the clock."""
        return self.active_at is not None and self.retired_at is None and self.revoked_at is None

    @property
    def waits(self) -> bool:
        """Whether the key is a standby: published, never promoted, not revoked."""
        return self.active_at is None and self.revoked_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """All keys in the order of their publication, and the limits from present and former configurations.

    - `version`: increases by one with every write.
    - `longest_ttl`: the longest lifetime of a token that any of these keys may sign.
    - `keep`: how long a retired key must stay published because of that. Both values only increase: a smaller value in
      the configuration does not shorten tokens that were issued before.
    - `guard`: how long a key must be published before it signs, as of the last publication.
    - `default`: the algorithm that signs when the requested one has no signing key yet, "" for the first that has one.
    """

    version: int
    longest_ttl: float
    keep: float
    guard: float
    keys: tuple[KeyRecord, ...]
    default: str = ""

    def __post_init__(self) -> None:
        """Reject a duplicate `kid`, and two signing or two standby keys of one algorithm, with ValueError."""
        if len({key.kid for key in self.keys}) != len(self.keys):
            raise ValueError("the ring holds a key twice")
        for algorithm in {key.algorithm for key in self.keys}:
            own = [key for key in self.keys if key.algorithm == algorithm]
            if sum(key.signs for key in own) > 1 or sum(key.waits for key in own) > 1:
                raise ValueError(f"two keys of the ring sign, or wait, for {algorithm}")

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that have a signing or standby key, in the order of their first such key."""
        return tuple(dict.fromkeys(key.algorithm for key in self.keys if key.signs or key.waits))

    def find(self, kid: str) -> KeyRecord | None:
        """Return the key with this `kid`, None if the ring has none."""
        return next((key for key in self.keys if key.kid == kid), None)

    def signing(self, algorithm: str) -> KeyRecord | None:
        """Return the key that signs for `algorithm`, None if there is none."""
        return next((key for key in self.keys if key.algorithm == algorithm and key.signs), None)

    def standby(self, algorithm: str) -> KeyRecord | None:
        """Return the standby key of `algorithm`, None if there is none."""
        return next((key for key in self.keys if key.algorithm == algorithm and key.waits), None)
