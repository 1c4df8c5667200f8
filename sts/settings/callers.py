"""Checks of clients that need the whole configuration: whether their authentication can work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sts.clients.access_token import AccessTokenClient
from sts.clients.client import UNIX
from sts.clients.network import NetworkClient
from sts.clients.tls import TlsClient
from sts.options import file_faults
from sts.redis_link.settings import read_ca
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, Trail, dotted, near, quote
from sts.settings.listen import DEFAULT


def files(parts: Parts) -> Iterator[Finding]:
    """Check that the files of clients can be used; disabled clients count, a reload may enable them."""
    for name, client in parts.clients.items():
        for key, problem in client.file_faults():
            yield Finding(("clients", name, key), problem)


def doors(parts: Parts) -> Iterator[Finding]:
    """Check that a client with `profile` uses an authentication method that forward-auth supports."""
    for name, client in parts.clients.items():
        if client.profile is not None and not client.has_forward_auth:
            problem = f"a client with `auth: {client.auth}` cannot authenticate at forward-auth"
            yield Finding(("clients", name, "profile"), problem, "leave it out; `secret`, `tls` and `network` can")


def handshakes(parts: Parts) -> Iterator[Finding]:
    """Warn if a client that authenticates with a certificate cannot present it to us or to a trusted proxy."""
    tls = parts.listen.tls if parts.listen is not None else None
    proxied = bool(parts.written.get("proxies"))
    for name, client in parts.clients.items():
        if not isinstance(client, TlsClient):
            continue
        path = ("clients", name, "auth")
        if tls is None and not proxied:
            hint = "write `listen: {address, tls}`, or `proxies` that end TLS in front of /token"
            yield Finding(path, "no client could present a certificate", hint)
        elif tls is None and client.profile is not None:
            hint = "at forward-auth a gateway authenticates in its own TLS handshake with us"
            yield Finding(path, "no client could present a certificate at forward-auth without `listen.tls`", hint)
        elif tls is not None and tls.ca_file is None and client.certificates is not None and not proxied:
            hint = "write the CA of its certificates there, or the self-signed certificates themselves"
            yield Finding(path, "the handshake would refuse its certificates: `listen.tls.ca_file` is missing", hint)


def places(parts: Parts) -> Iterator[Finding]:
    """Warn if a client's `networks` cannot reach the socket we listen on."""
    unix = (parts.listen or DEFAULT).is_unix
    for name, client in parts.clients.items():
        if isinstance(client, NetworkClient) and not any((network == UNIX) is unix for network in client.networks):
            problem = f"no request can come from there: `listen` is {'a' if unix else 'no'} Unix socket"
            yield Finding(("clients", name, "networks"), problem, "write the client's networks, or change `listen`")


def disabled_issuers(parts: Parts) -> Iterator[Finding]:
    """Warn if the source of an `access_token` client is disabled."""
    for name, client in parts.clients.items():
        if isinstance(client, AccessTokenClient) and client.enabled:
            source = parts.sources.get(client.source)
            if source is not None and not source.enabled:
                problem = f"{client.source} is disabled, so this client cannot authenticate"
                yield Finding(("clients", name, "source"), problem, "disable the client too, if that is intended")


def bindings(parts: Parts) -> Iterator[Finding]:
    """Warn if tokens are bound to the caller's certificate, but no caller can present one."""
    tls = parts.listen.tls if parts.listen is not None else None
    for name, audience in parts.audiences.items():
        if audience.bind != "none" and tls is None and not parts.written.get("proxies"):
            hint = "write `listen: {address, tls}`, or `proxies` that end TLS in front of /token"
            yield Finding(("audiences", name, "bind"), "no client could present a certificate", hint)


def issuers(parts: Parts) -> Iterator[Finding]:
    """Check that the source of an `access_token` client exists and has `type: jwt`."""
    sources = parts.entries("sources")
    for name, client in parts.clients.items():
        if not isinstance(client, AccessTokenClient):
            continue
        path, source = ("clients", name, "source"), sources.get(client.source)
        if source is None:
            yield Finding(path, f"there is no source {quote(client.source)}", near(client.source, sources))
        elif source.get("type") != "jwt":
            yield Finding(path, f"{client.source} does not issue JWTs", "name a source with `type: jwt`")


CHECKS: Final[tuple[Check, ...]] = (files, doors, issuers)
"""The checks of this module."""

ADVICE: Final[tuple[Check, ...]] = (handshakes, places, disabled_issuers, bindings)
"""Warnings: a client that can never authenticate is useless, but not a risk."""


REDIS: Final = "redis"
_STATE: Final[Trail] = ("state", "store")
_SHARED: Final[tuple[Trail, ...]] = (("keys", "store"), ("cache", "shared"))
_USERS: Final = (*_SHARED, _STATE)


def users(written: Mapping[str, Any]) -> list[Trail]:
    """Return where the written configuration uses Redis: `keys.store`, `state.store`, `cache.shared`, a table."""
    found = [path for path in _USERS if _asks(_at(written, path))]
    tables = written.get("tables")
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and REDIS in table:
            found.append(("tables", name, REDIS))
    return found


def _asks(value: object) -> bool:
    """Return whether a value is `redis`, or describes its own server (`cache.shared`)."""
    return value == REDIS or isinstance(value, dict)


def _at(written: Mapping[str, Any], path: Trail) -> object:
    section, key = path
    inner = written.get(str(section))
    return inner.get(key) if isinstance(inner, dict) else None


def redis(parts: Parts) -> Iterator[Finding]:
    """Check that a Redis server is configured if a setting needs it, and that its CA file can be used."""
    own = ("cache", "shared")  # may name its own server
    asking = [path for path in users(parts.written) if path != own or _at(parts.written, own) == REDIS]
    if asking and parts.written.get(REDIS) is None:
        hint = "such as `redis: {url: rediss://redis.example.internal:6379/0}`"
        yield Finding((REDIS,), f"`redis` is missing: {dotted(asking[0])} needs it", hint)
    for key, problem in file_faults("ca_file", parts.redis.ca_file if parts.redis else None, read_ca):
        yield Finding((REDIS, key), problem)


def shared_secret(parts: Parts) -> Iterator[Finding]:
    """Require a written secret with Redis: with secrets of their own, replicas could not read each other's data."""
    using = users(parts.written)
    if using and parts.written.get("secret") is None:
        hint = "write `secret: {file: PATH}` or {env: NAME}, the same on every machine"
        yield Finding(("secret",), f"`secret` is missing: {dotted(using[0])} uses Redis", hint)


def one_state(parts: Parts) -> Iterator[Finding]:
    """Check that machines that share keys or a cache also share replay marks and revocations.

    Otherwise a machine would accept a credential that another refuses. No other setting shows that there are several
    machines.
    """
    store = _at(parts.written, _STATE)
    seen = [path for path in users(parts.written) if path in _SHARED]
    if store in (None, "sqlite") and seen:
        problem = f"sqlite is for one machine, and {dotted(seen[0])} is for several: a revocation would reach only one"
        yield Finding(_STATE, problem, "write `state: {store: redis}`")


SHARING_CHECKS: Final[tuple[Check, ...]] = (redis, shared_secret, one_state)
"""The checks of this module."""


def presenters(parts: Parts) -> Iterator[Finding]:
    """Check that `may_present` names certificate sources, and that `certificate_header` is set for forward-auth."""
    for name, client in parts.clients.items():
        for index, source in enumerate(client.may_present):
            path = ("clients", name, "may_present", index)
            written = parts.entries("sources").get(source)
            if written is None:
                yield Finding(path, f"there is no source {quote(source)}", near(source, parts.entries("sources")))
            elif written.get("type") != "client_certificate":
                yield Finding(path, f"{source} is not a source of certificates", "name a `type: client_certificate`")
        if client.profile is not None and client.may_present and client.certificate_header is None:
            hint = "the form in which its requests carry certificates: client_cert, xfcc or nginx"
            yield Finding(("clients", name, "certificate_header"), "must be written with `may_present`", hint)


CERTIFICATE_CHECKS: Final[tuple[Check, ...]] = (presenters,)
"""The checks of this module."""
