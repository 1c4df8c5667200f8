"""Which header names one kind of gateway uses to say which request it asks about.

A client has exactly one profile, and only that profile's headers are read: an end user can send any other
convention's headers through the gateway, so a fallback to them would let the user choose what is decided about.
That the headers come from the gateway is proven by the client's own proof and by nothing here. A gateway that adds
them instead of replacing them sends two: the server hands on none of both (`sts.server.master`), and where another one
joins them with a comma, that can be seen only where the doubled value is none any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from sts.edge.routes import HOST, normalise
from sts.errors import NO_ROUTE, PROFILE_HEADER_MISSING, Refusal
from sts.model import RequestFacts

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")  # RFC 9110 §5.6.2 `token`: a comma is none
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*?)\.?(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Profile:
    """The lower-case names of the headers of one kind of gateway. `scheme` and `address` may be missing in a request.

    `target` holds the raw request target as the end user sent it; `address` is the user's as the gateway saw it.
    """

    name: str
    method: str
    target: str
    host: str
    scheme: str
    address: str

    @property
    def headers(self) -> tuple[str, ...]:
        """All that it reads."""
        return self.method, self.target, self.host, self.scheme, self.address

    def facts(self, headers: Mapping[str, str]) -> RequestFacts:
        """Read which request the gateway asks about.

        Raises PROFILE_HEADER_MISSING where method, target or host is absent, empty or doubled, AMBIGUOUS_PATH for
        the target (see `normalise`), NO_ROUTE for a host that no route can name.
        """
        method = _required(headers, self.method)
        target = _required(headers, self.target)
        host = _required(headers, self.host)
        if not _METHOD.fullmatch(method):
            raise Refusal(PROFILE_HEADER_MISSING, why="not one method", header=self.method)
        if "," in host:
            raise Refusal(PROFILE_HEADER_MISSING, why="not one host", header=self.host)
        scheme = headers.get(self.scheme, "").lower()
        return RequestFacts(
            method=method,
            host=_read_host(host),
            path=normalise(target),
            scheme=scheme if scheme in ("http", "https") else "",
            ip=_read_address(headers.get(self.address, "")),
        )


PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="nginx",
            method="x-original-method",
            target="x-original-uri",
            host="x-original-host",
            scheme="x-original-proto",
            address="x-original-addr",
        ),
    )
}


def is_preflight(headers: Mapping[str, str]) -> bool:
    """Whether a request carries what makes an OPTIONS a CORS preflight (Fetch standard, "CORS-preflight request")."""
    return bool(headers.get("origin")) and bool(headers.get("access-control-request-method"))


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise Refusal(PROFILE_HEADER_MISSING, why="absent or empty", header=name)
    return value


def _read_host(value: str) -> str:
    """Lower-case, without port and final dot. The end user chooses this value, so a bad one is no fault of ours."""
    authority = _AUTHORITY.fullmatch(value)
    host = authority[1].lower() if authority else ""
    if not HOST.fullmatch(host):
        raise Refusal(NO_ROUTE, why="not a host")
    return host


def _read_address(value: str) -> str:
    """An IP address in its canonical form, or "" for anything else: a rule that reads it then refuses."""
    try:
        address = ip_address(value)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return ""
        return str(address.ipv4_mapped or address)
    return str(address)
