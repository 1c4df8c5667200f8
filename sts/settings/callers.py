"""What only the whole configuration can tell of callers: whether their way of proving themselves can lead to us."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sts.clients.access_token import AccessTokenClient
from sts.clients.client import UNIX
from sts.clients.network import NetworkClient
from sts.clients.tls import TlsClient
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, near, quote
from sts.settings.listen import DEFAULT


def files(parts: Parts) -> Iterator[Finding]:
    """The files that clients name can be used; of a disabled client as well, since a reload may enable it."""
    for name, client in parts.clients.items():
        for key, problem in client.file_faults():
            yield Finding(("clients", name, key), problem)


def doors(parts: Parts) -> Iterator[Finding]:
    """A client has the forward-auth door only where it can prove itself there."""
    for name, client in parts.clients.items():
        if client.profile is not None and not client.has_forward_auth:
            problem = f"a client with `auth: {client.auth}` cannot prove itself at forward-auth"
            yield Finding(("clients", name, "profile"), problem, "leave it out; `secret`, `tls` and `network` can")


def handshakes(parts: Parts) -> Iterator[Finding]:
    """Who proves itself with a certificate can present it to us, or to a proxy that hands it on."""
    tls = parts.listen.tls if parts.listen is not None else None
    proxied = bool(parts.written.get("proxies"))
    for name, client in parts.clients.items():
        if not isinstance(client, TlsClient):
            continue
        path = ("clients", name, "auth")
        if tls is None and not proxied:
            hint = "write `listen: {address, tls}`, or `proxies` that end TLS in front of /token"
            yield Finding(path, "nobody could present a certificate", hint)
        elif tls is None and client.profile is not None:
            hint = "at forward-auth a gateway proves itself in its own handshake with us"
            yield Finding(path, "nobody could present a certificate at forward-auth without `listen.tls`", hint)
        elif tls is not None and tls.ca_file is None and client.certificates is not None and not proxied:
            hint = "write the CA of its certificates, or those that are self-signed themselves, there"
            yield Finding(path, "the handshake would refuse its certificates: `listen.tls.ca_file` is missing", hint)


def places(parts: Parts) -> Iterator[Finding]:
    """Who is known by where it is can call from there."""
    unix = (parts.listen or DEFAULT).is_unix
    for name, client in parts.clients.items():
        if isinstance(client, NetworkClient) and not any((network == UNIX) is unix for network in client.networks):
            problem = f"nobody calls from there: `listen` is {'a' if unix else 'no'} Unix socket"
            yield Finding(("clients", name, "networks"), problem, "write where it calls from, or listen there")


def disabled_issuers(parts: Parts) -> Iterator[Finding]:
    """Who proves itself with an access token has a source at work that takes it."""
    for name, client in parts.clients.items():
        if isinstance(client, AccessTokenClient) and client.enabled:
            source = parts.sources.get(client.source)
            if source is not None and not source.enabled:
                problem = f"{client.source} is disabled, so that this client cannot prove itself"
                yield Finding(("clients", name, "source"), problem, "disable the client, too, if it is meant")


def bindings(parts: Parts) -> Iterator[Finding]:
    """Tokens that are bound to the caller's certificate need callers that can present one."""
    tls = parts.listen.tls if parts.listen is not None else None
    for name, audience in parts.audiences.items():
        if audience.bind != "none" and tls is None and not parts.written.get("proxies"):
            hint = "write `listen: {address, tls}`, or `proxies` that end TLS in front of /token"
            yield Finding(("audiences", name, "bind"), "nobody could present a certificate", hint)


def issuers(parts: Parts) -> Iterator[Finding]:
    """Who proves itself with an access token names a source that is there and issues JWTs."""
    sources = parts.entries("sources")
    for name, client in parts.clients.items():
        if not isinstance(client, AccessTokenClient):
            continue
        path, source = ("clients", name, "source"), sources.get(client.source)
        if source is None:
            yield Finding(path, f"there is no source {quote(client.source)}", near(client.source, sources))
        elif source.get("type") != "jwt":
            yield Finding(path, f"{client.source} issues no JWTs", "name a source with `type: jwt`")


CHECKS: Final[tuple[Check, ...]] = (files, doors, issuers)
"""The checks of this module."""

ADVICE: Final[tuple[Check, ...]] = (handshakes, places, disabled_issuers, bindings)
"""What may well be a mistake: a client that can prove itself nowhere harms nobody."""
