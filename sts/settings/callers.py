"""What only the whole configuration can tell of callers: whether their way of proving themselves can lead to us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sts.clients.access_token import AccessTokenClient
from sts.clients.client import UNIX
from sts.clients.network import NetworkClient
from sts.clients.tls import TlsClient
from sts.credentials.certificate import CertificateSourceSettings
from sts.errors import StartError
from sts.expressions import ExpressionError, compile_rule
from sts.options import file_faults
from sts.redis_link.settings import read_ca
from sts.settings.checks import Check, Parts
from sts.settings.faults import Finding, Trail, dotted, near, quote
from sts.settings.listen import DEFAULT
from sts.x509.names import within
from sts.x509.roots import Roots


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


REDIS: Final = "redis"
_STATE: Final[Trail] = ("state", "store")
_SHARED: Final[tuple[Trail, ...]] = (("keys", "store"), ("cache", "shared"))
_USERS: Final = (*_SHARED, _STATE)


def users(written: Mapping[str, Any]) -> list[Trail]:
    """Where the configuration, as written, asks for Redis: `keys.store`, `state.store`, `cache.shared`, a table."""
    found = [path for path in _USERS if _asks(_at(written, path))]
    tables = written.get("tables")
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and REDIS in table:
            found.append(("tables", name, REDIS))
    return found


def _asks(value: object) -> bool:
    """By name, or as a server of its own (`cache.shared`)."""
    return value == REDIS or isinstance(value, dict)


def _at(written: Mapping[str, Any], path: Trail) -> object:
    section, key = path
    inner = written.get(str(section))
    return inner.get(key) if isinstance(inner, dict) else None


def redis(parts: Parts) -> Iterator[Finding]:
    """Where something says `redis`, there is a server; its CA file can be used."""
    own = ("cache", "shared")  # may bring a server of its own
    asking = [path for path in users(parts.written) if path != own or _at(parts.written, own) == REDIS]
    if asking and parts.written.get(REDIS) is None:
        hint = "such as `redis: {url: rediss://redis.example.internal:6379/0}`"
        yield Finding((REDIS,), f"`redis` is missing: {dotted(asking[0])} asks for it", hint)
    for key, problem in file_faults("ca_file", parts.redis.ca_file if parts.redis else None, read_ca):
        yield Finding((REDIS, key), problem)


def shared_secret(parts: Parts) -> Iterator[Finding]:
    """Replicas that meet in Redis need one secret: one that each machine makes by itself would part them."""
    using = users(parts.written)
    if using and parts.written.get("secret") is None:
        hint = "write `secret: {file: PATH}` or {env: NAME}, on every machine the same one"
        yield Finding(("secret",), f"`secret` is missing: {dotted(using[0])} uses Redis", hint)


def one_state(parts: Parts) -> Iterator[Finding]:
    """Machines that share keys or a cache must share marks and revocations too, or each would take what others refuse.

    That there are several machines shows in nothing else.
    """
    store = _at(parts.written, _STATE)
    seen = [path for path in users(parts.written) if path in _SHARED]
    if store in (None, "sqlite") and seen:
        problem = f"sqlite is for one machine, and {dotted(seen[0])} is for several: a revocation would reach only one"
        yield Finding(_STATE, problem, "write `state: {store: redis}`")


SHARING_CHECKS: Final[tuple[Check, ...]] = (redis, shared_secret, one_state)
"""The checks of this module."""


_NAMES: Final = frozenset({"certificate", "certificate.uri", "certificate.san", "certificate.san.uris"})
"""What a rule reads where it reads URI names."""


def presenters(parts: Parts) -> Iterator[Finding]:
    """`may_present` names certificate sources; at forward-auth `certificate_header` says how they come."""
    for name, client in parts.clients.items():
        for index, source in enumerate(client.may_present):
            path = ("clients", name, "may_present", index)
            written = parts.entries("sources").get(source)
            if written is None:
                yield Finding(path, f"there is no source {quote(source)}", near(source, parts.entries("sources")))
            elif written.get("type") != "client_certificate":
                yield Finding(path, f"{source} is no source of certificates", "its `type` is client_certificate")
        if client.profile is not None and client.may_present and client.certificate_header is None:
            hint = "in which form its requests bring certificates: client_cert, xfcc or nginx"
            yield Finding(("clients", name, "certificate_header"), "must be written beside `may_present`", hint)


def bounds(parts: Parts) -> Iterator[Finding]:
    """A CA whose URI names are read says which of them are its own (XC-07)."""
    for name, source in parts.sources.items():
        if isinstance(source, CertificateSourceSettings) and source.san_prefix is None and _reads_names(source):
            hint = "such as spiffe://partners.example/; else this CA could speak for anybody's names"
            yield Finding(("sources", name, "san_prefix"), "must be written, since a rule reads URI names", hint)


def _reads_names(source: CertificateSourceSettings) -> bool:
    rules = [*source.identity.values(), *([source.require] if source.require else [])]
    try:
        read = [path for rule in rules for path in compile_rule(rule, frozenset({source.variable})).reads]
    except ExpressionError:
        return False  # told with the rules
    return not _NAMES.isdisjoint(read)


def rivals(parts: Parts) -> Iterator[Finding]:
    """Each certificate is one source's: those with one CA divide its names between them."""
    seen: list[tuple[str, CertificateSourceSettings, frozenset[bytes]]] = []
    for name, source in parts.sources.items():
        if not isinstance(source, CertificateSourceSettings):
            continue
        try:
            names = Roots(source.ca_file).names
        except StartError:
            continue  # told with the files
        for other, theirs, their_names in seen:
            if not names.isdisjoint(their_names) and _overlap(source.san_prefix, theirs.san_prefix):
                where = parts.place(("sources", other))
                problem = f"{other} ({where}) believes the same CA: a certificate could be of either"
                hint = "give both a `san_prefix` of which none lies within the other, or make them one source"
                yield Finding(("sources", name, "san_prefix"), problem, hint)
        seen.append((name, source, names))


def _overlap(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    return one.rstrip("/:") == other.rstrip("/:") or within(one.rstrip("/:"), other) or within(other.rstrip("/:"), one)


CERTIFICATE_CHECKS: Final[tuple[Check, ...]] = (presenters, bounds, rivals)
"""The checks of this module."""
