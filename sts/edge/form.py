"""The strict reader of `application/x-www-form-urlencoded` requests (RFC 6749 Appendix B, RFC 8693 §2.1)."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from sts.clients.client import Network, within
from sts.edge.certificate_headers import ALL_HEADERS
from sts.errors import MALFORMED, TOO_LARGE, Refusal
from sts.model import Incoming, Peer

MAX_BODY_BYTES: Final = 64 * 1024
MAX_PARAMETERS: Final = 64

# The usual reasons, with HTTP's specific status.
METHOD_NOT_ALLOWED: Final = replace(MALFORMED, token_status=405)
UNSUPPORTED_MEDIA_TYPE: Final = replace(MALFORMED, token_status=415)
BODY_TOO_LARGE: Final = replace(TOO_LARGE, token_status=413)

_MEDIA_TYPE: Final = re.compile(
    r'application/x-www-form-urlencoded[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE
)
_PRINTABLE: Final = bytes(range(0x21, 0x7F))
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters of a request by name. A parameter without a value counts as absent (RFC 6749 §3.2)."""

    values: Mapping[str, tuple[str, ...]]

    def one(self, name: str) -> str | None:
        """Return the value of a parameter that may occur once, None if it is absent."""
        found = self.values.get(name)
        return found[0] if found else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of a parameter that may be repeated, in order."""
        return self.values.get(name, ())


def read_form(incoming: Incoming, repeatable: frozenset[str] = frozenset()) -> Form:
    """Read the form of a POST request; only parameters in `repeatable` may occur more than once.

    Raises MALFORMED or TOO_LARGE, with the HTTP status 405, 413 or 415 for those faults. A query string is refused and
    not ignored, because logs would contain it (RFC 6749 §2.3.1, RFC 9700 §4.3.2).
    """
    if incoming.method != "POST":
        raise Refusal(METHOD_NOT_ALLOWED, why="not POST")
    if incoming.target.partition("?")[2]:
        raise Refusal(MALFORMED, why="a query string")
    if not _MEDIA_TYPE.fullmatch(incoming.headers.get("content-type", "")):
        raise Refusal(UNSUPPORTED_MEDIA_TYPE, why="not a form in UTF-8")
    if incoming.fault == "too_large" or len(incoming.body) > MAX_BODY_BYTES:
        raise Refusal(BODY_TOO_LARGE, why="the body", max_bytes=MAX_BODY_BYTES)
    if incoming.fault:
        raise Refusal(MALFORMED, why="the body is incomplete")
    return parse(incoming.body, repeatable)


def parse(body: bytes, repeatable: frozenset[str] = frozenset()) -> Form:
    """Parse a form body. Raises MALFORMED or TOO_LARGE.

    Everything that the encoding does not produce is refused: raw spaces, controls and non-ASCII, a `%` without two
    digits, escapes that are not UTF-8. A repeated parameter is refused even if one of the values is empty.
    """
    if body.translate(None, delete=_PRINTABLE):
        raise Refusal(MALFORMED, why="the form is not encoded correctly")
    pairs = [piece.partition("=") for piece in body.decode("ascii").split("&") if piece]
    if len(pairs) > MAX_PARAMETERS:
        raise Refusal(BODY_TOO_LARGE, why="too many parameters", max_parameters=MAX_PARAMETERS)
    values: dict[str, tuple[str, ...]] = {}
    for encoded_name, _, encoded_value in pairs:
        name, value = _decode(encoded_name), _decode(encoded_value)
        before = values.get(name)
        if before is not None and name not in repeatable:
            raise Refusal(MALFORMED, why="a repeated parameter")
        values[name] = (before or ()) + ((value,) if value else ())
    return Form(values)


def _decode(text: str) -> str:
    spaced = text.replace("+", " ")
    if "%" not in spaced:
        return spaced
    if _LONE_PERCENT.search(spaced):
        raise Refusal(MALFORMED, why="the form is not encoded correctly")
    try:
        return unquote_to_bytes(spaced).decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal(MALFORMED, why="the form is not UTF-8") from None


PEER: Final = "sts.peer"
"""The key under which the server puts the `Peer` into the environment of a page's request."""

_CREDENTIALS: Final = struct.Struct("iII")  # Linux's struct ucred: process, user, group
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# The headers in ALL_HEADERS are sent by configured gateways and proxies too, which may add none of the others.
_FORWARDED: Final = (
    frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "x-gateway-secret"}) | ALL_HEADERS
)
_FORWARDED_PREFIXES: Final = ("x-forwarded", "x-original-", "x-envoy-", "cf-")


def peer_of(connection: socket.socket, address: Any) -> Peer:  # noqa: ANN401 - the form depends on the socket's family
    """Return the other end of an accepted connection, as reported by the socket itself.

    The socket's family is always checked: a client of a Unix socket can bind its own end to any name, and a name such
    as "10.0.0.1" would arrive as its address. Raises OSError if the peer has closed the connection.
    """
    if connection.family != socket.AF_UNIX:
        return Peer(address[0])
    option = getattr(socket, "SO_PEERCRED", None)  # not every system reports the user at the other end
    if option is None:
        return Peer("", unix=True)
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return Peer("", unix=True, uid=int(uid))


def is_operator(environ: Mapping[str, Any], networks: tuple[Network | str, ...]) -> bool:
    """Return whether a request may read operational detail: its peer is in `networks`, and it was not forwarded.

    A reverse proxy on the same host is a loopback peer for the whole internet, so any header that proxies add refuses
    the request. This does not prove that there is no proxy: one that adds no such header looks like its host.
    """
    names = [name[5:].lower().replace("_", "-") for name in environ if name[:5] == "HTTP_"]
    peer = environ.get(PEER)
    return peer is not None and not is_forwarded(names) and within(peer, networks)


def is_forwarded(names: Iterable[str]) -> bool:
    """Return whether one of these headers (lower-case) is one that proxies add: the peer then may not be the sender."""
    return any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES) for name in names)


def correlation_id(headers: Mapping[str, str]) -> str:
    """Return the caller's own `X-Request-ID` for the audit; "" unless it is 1 to 128 characters of `A-Za-z0-9._-`."""
    value = headers.get("x-request-id", "")
    return value if _CORRELATION_ID.fullmatch(value) else ""
