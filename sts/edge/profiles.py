"""The header names in which one kind of gateway describes the request that it checks.

A client has exactly one profile, and only that profile's headers are read. An end user can send other headers through
the gateway, so a fallback to them would let the user choose the request that is checked. This module does not prove
that the headers come from the gateway; the authentication of the client does. A gateway that adds a header instead of
replacing it sends two: our server drops both (`sts.server.message`). If another proxy joins them with a comma, that
shows only where the joined value is invalid.
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

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")  # RFC 9110 §5.6.2 `token`: allows no comma
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*?)\.?(?::[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Profile:
    """The lower-case header names of one kind of gateway. `scheme` and `address` may be missing in a request.

    `target` contains the raw request target as the end user sent it; `address` is the user's as the gateway saw it.
    """

    name: str
    method: str
    target: str
    host: str
    scheme: str
    address: str

    @property
    def headers(self) -> tuple[str, ...]:
        """The names of all headers that the profile reads."""
        return self.method, self.target, self.host, self.scheme, self.address

    def facts(self, headers: Mapping[str, str]) -> RequestFacts:
        """Return the request that the gateway checks.

        Raises PROFILE_HEADER_MISSING if method, target or host is absent, empty or repeated, AMBIGUOUS_PATH for the
        target (see `normalise`), NO_ROUTE for a host that no route can name.
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
    """Return whether a request has the headers of a CORS preflight (Fetch standard, "CORS-preflight request")."""
    return bool(headers.get("origin")) and bool(headers.get("access-control-request-method"))


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise Refusal(PROFILE_HEADER_MISSING, why="absent or empty", header=name)
    return value


def _read_host(value: str) -> str:
    """Return the host in lower case without port and final dot. The end user chooses it, so a bad one is not a 503."""
    authority = _AUTHORITY.fullmatch(value)
    host = authority[1].lower() if authority else ""
    if not HOST.fullmatch(host):
        raise Refusal(NO_ROUTE, why="not a host")
    return host


def _read_address(value: str) -> str:
    """Return an IP address in its canonical form, or "" for any other text: a rule that reads it then refuses."""
    try:
        address = ip_address(value)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return ""
        return str(address.ipv4_mapped or address)
    return str(address)
