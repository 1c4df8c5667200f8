"""The report of a replica, stored beside the ring: which keys it publishes, since when, and until when at most.

The guard of a rotation assumes that every replica publishes the standby within one `poll`. A replica that cannot read
the store does not: it continues to show verifiers a JWKS without the standby. Therefore each replica reports what it
publishes, and stops at `until` unless it has reported again. From the reports a writer computes whether a verifier may
still lack the standby.
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
    """The report of one replica; times in Unix seconds.

    - `host`, `pid`: the process.
    - `version`, `seen_at`: the version of the ring that it read, and when.
    - `until`: when it stops publishing unless it reports again.
    - `guard`: how many seconds a key must be published until every verifier has it. The value follows from the
      configuration of this replica, or from an earlier one under which a verifier may have fetched a JWKS that it still
      uses. It may differ from the writer's.
    - `since`: per `kid`, since when it publishes the key; 0 for the keys that it published from its start.
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
        """Return the report as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"since": dict(self.since)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the output of `facts`. Raises KeyError."""
        return cls(**{name: facts[name] for name in cls.__slots__})

    def lacked(self, kid: str) -> float:
        """Return until when verifiers may have fetched a JWKS without `kid` from this replica."""
        return self.since.get(kid, self.until)


def lacking(sightings: Iterable[Sighting], kid: str) -> tuple[float, str]:
    """Return until when a replica may have published a JWKS without `kid`, and its name; (0, "") if none did."""
    return max(((one.lacked(kid), one.replica) for one in sightings), default=(0.0, ""))


def here() -> str:
    """Return the host and the PID namespace of this process, so that a pid identifies one process."""
    host = "".join(letter if letter in _ASCII else "-" for letter in socket.gethostname())[:64]
    try:
        return f"{host}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return host


def is_alive(pid: int) -> bool:
    """Return whether a process with this id runs in this PID namespace."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended(sightings: Iterable[Sighting], host: str, alive: Callable[[int], bool], now: float) -> Iterator[Sighting]:
    """Yield the reports of `host` that have not expired at `now` although their process has died."""
    return (one for one in sightings if one.host == host and one.until > now and not alive(one.pid))
