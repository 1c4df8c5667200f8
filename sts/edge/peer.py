"""Who is at the other end of the socket, and what of it may be believed."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sts.clients.client import Network, within
from sts.edge.certificate_headers import ALL_HEADERS
from sts.model import Peer

_CREDENTIALS: Final = struct.Struct("iII")  # Linux's struct ucred: process, user, group
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# The last ones are those of configured gateways and proxies, which may add none of the others.
_FORWARDED: Final = (
    frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "x-gateway-secret"}) | ALL_HEADERS
)
_FORWARDED_PREFIXES: Final = ("x-forwarded", "x-original-", "x-envoy-", "cf-")


def peer_of(environ: Mapping[str, Any]) -> Peer:
    """The other end of the socket, by the socket itself.

    The family is always asked for: whoever connects to a Unix socket chooses the name of the own end, and one called
    "10.0.0.1" arrives as `REMOTE_ADDR`.
    """
    connection = environ.get("gunicorn.socket")
    if connection is not None and connection.family == socket.AF_UNIX:
        return Peer("", unix=True, uid=_uid_of(connection))
    return Peer(environ.get("REMOTE_ADDR", ""), certificates=getattr(connection, "certificates", ()))


def _uid_of(connection: Any) -> int | None:  # noqa: ANN401 - a socket, or what a test puts in its place
    """The user at the other end of a Unix socket, when it was opened; None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(uid)


def is_operator(environ: Mapping[str, Any], networks: tuple[Network | str, ...]) -> bool:
    """Whether a request may read operational detail: its peer is in `networks`, and it was not forwarded.

    A reverse proxy on the same host is a loopback peer for the whole internet, so any header that proxies add is
    enough to refuse. This does not prove that there is no proxy: one that adds none of them looks like its host.
    """
    names = [name[5:].lower().replace("_", "-") for name in environ if name[:5] == "HTTP_"]
    return not is_forwarded(names) and within(peer_of(environ), networks)


def is_forwarded(names: Iterable[str]) -> bool:
    """Whether one of these headers (lower-case) is one that proxies add: then the peer need not be who sent it."""
    return any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) for name in names)


def correlation_id(headers: Mapping[str, str]) -> str:
    """The caller's own `X-Request-ID`, a label for the audit; "" where it is not 1 to 128 of `A-Za-z0-9._-`."""
    value = headers.get("x-request-id", "")
    return value if _CORRELATION_ID.fullmatch(value) else ""
