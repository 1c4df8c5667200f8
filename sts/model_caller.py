"""Who calls, as long as nothing is proven: what a door has found of the caller's way to identify itself."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from sts.model import DoorName, Peer

Evidence = Literal["secret", "assertion", "bearer", "connection"]


@dataclass(frozen=True, slots=True)
class Caller:
    """What a caller says of itself: unproven. `door` is where it knocked.

    At most one of `secret`, `assertion` (RFC 7523) and `bearer` is there: a request uses one way of authentication.
    `peer.certificates` is what the caller proved to hold, to us or to a proxy that may say so. `forwarded` says that a
    header stands there which proxies add, so that the peer need not be the caller.
    `read` is what the door has read of the request to find this, handed back to it by `ask`, so that it is parsed once.
    """

    door: DoorName
    unverified_client_id: str
    secret: str | None = field(repr=False)
    peer: Peer
    read: Any = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)
    bearer: str | None = field(default=None, repr=False)
    forwarded: bool = False

    @property
    def evidence(self) -> Evidence:
        """What it presents to prove itself; "connection" where there is nothing but what the connection says."""
        if self.secret is not None:
            return "secret"
        if self.assertion is not None:
            return "assertion"
        return "connection" if self.bearer is None else "bearer"

    @property
    def thumbprint(self) -> str | None:
        """The SHA-256 of the certificate that it holds, as `x5t#S256` writes it (RFC 8705 §3.1); None without one."""
        return thumbprint(self.peer.certificates[0]) if self.peer.certificates else None


def thumbprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate (DER), as `x5t#S256` writes it (RFC 8705 §3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode("ascii")
