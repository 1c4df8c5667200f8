"""The frozen values: a key and the ring of all keys. All times are Unix seconds, all lengths seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key: its halves, and the times that its state follows from.

    `kid` is the RFC 7638 thumbprint of `public` (the required JWK members). `private` is PKCS #8 DER, None once a
    revocation has left a mere tombstone. `ready_at` is when every verifier knows a key published at `published_at`.
    `active_at` is when it began to sign. `leaves_at`, written with `retired_at`, is when the last token it may have
    signed is over. `revoked_at` ends it from any state.
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
        """Refuse times that tell no story; the text names the key only."""
        if (self.retired_at is None) != (self.leaves_at is None) or (
            self.retired_at is not None and self.active_at is None
        ):
            raise ValueError(f"the times of key {self.kid} contradict each other")
        if (self.private is None) != (self.revoked_at is not None):
            raise ValueError(f"key {self.kid} has no private half though it is not revoked, or still has one")

    @property
    def signs(self) -> bool:
        """Whether it was promoted and neither retired nor revoked since, whatever the clock says."""
        return self.active_at is not None and self.retired_at is None and self.revoked_at is None

    @property
    def waits(self) -> bool:
        """Whether it is a standby: published, never promoted, not revoked."""
        return self.active_at is None and self.revoked_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """All keys in the order of their publication, and what the ring remembers of former configurations.

    `version` grows by one with every write. `longest_ttl` is the longest life of a token that any of these keys may
    sign, `keep` how long a retired key must therefore stay published: both only ever grow, because a smaller number in
    a configuration does not shorten the tokens that are out. `guard` is how long a key had to be published before it
    signs, as of the last publication. `default` is the algorithm that signs where the wanted one cannot yet, "" for the
    first that can.
    """

    version: int
    longest_ttl: float
    keep: float
    guard: float
    keys: tuple[KeyRecord, ...]
    default: str = ""

    def __post_init__(self) -> None:
        """Refuse a ring in which two keys have one name, or in which two keys sign or wait for one algorithm."""
        if len({key.kid for key in self.keys}) != len(self.keys):
            raise ValueError("the ring holds a key twice")
        for algorithm in {key.algorithm for key in self.keys}:
            own = [key for key in self.keys if key.algorithm == algorithm]
            if sum(key.signs for key in own) > 1 or sum(key.waits for key in own) > 1:
                raise ValueError(f"two keys of the ring sign, or wait, for {algorithm}")

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms that the ring has keys for that sign or wait, in the order of their first such key."""
        return tuple(dict.fromkeys(key.algorithm for key in self.keys if key.signs or key.waits))

    def find(self, kid: str) -> KeyRecord | None:
        """The key of this name, if it is in the ring."""
        return next((key for key in self.keys if key.kid == kid), None)

    def signing(self, algorithm: str) -> KeyRecord | None:
        """The key that signs for `algorithm`, if there is one."""
        return next((key for key in self.keys if key.algorithm == algorithm and key.signs), None)

    def standby(self, algorithm: str) -> KeyRecord | None:
        """The key that waits to sign for `algorithm`, if there is one."""
        return next((key for key in self.keys if key.algorithm == algorithm and key.waits), None)
