"""What a replica says of itself beside the ring: which keys it publishes, since when, and until when at most.

The guard of a rotation counts on every replica publishing the standby within one `poll`. A replica that cannot see the
store does not, and goes on showing verifiers a JWKS without it. So each tells the store what it publishes, and promises
to stop at `until` unless it has told again by then: a writer knows from that whether anybody may lack the standby.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_ASCII: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One replica's word; times in Unix seconds.

    `host` and `pid` say where it runs, `since` from when on it publishes each key (0 for one that it never published
    without), `until` when it stops publishing unless it says more. `guard` is how long a key must have been published
    for every verifier to have it, by the configuration that this replica works by, or worked by when a verifier fetched
    what it may still hold: it may be another than a writer's.
    """

    replica: str
    host: str
    pid: int
    version: int
    seen_at: float
    until: float
    guard: float
    since: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """Write it as JSON takes it."""
        return {name: getattr(self, name) for name in self.__slots__} | {"since": dict(self.since)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `facts` wrote. Raises KeyError."""
        return cls(**{name: facts[name] for name in cls.__slots__})

    def lacked(self, kid: str) -> float:
        """Until when verifiers may have got a JWKS without `kid` here."""
        return self.since.get(kid, self.until)


def lacking(sightings: Iterable[Sighting], kid: str) -> tuple[float, str]:
    """Until when a replica may have shown verifiers a JWKS without `kid`, and which; (0, "") if none did."""
    return max(((one.lacked(kid), one.replica) for one in sightings), default=(0.0, ""))


def here() -> str:
    """Where this process runs: the host and its own table of processes, so that a pid means one process."""
    host = "".join(letter if letter in _ASCII else "-" for letter in socket.gethostname())[:64]
    try:
        return f"{host}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return host


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended(sightings: Iterable[Sighting], host: str, alive: Callable[[int], bool], now: float) -> Iterator[Sighting]:
    """Those of `host` whose process is gone without a word though they said that they go on after `now`."""
    return (one for one in sightings if one.host == host and one.until > now and not alive(one.pid))
