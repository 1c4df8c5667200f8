"""Checks that need the whole configuration: referenced names, consent, subjects, conflicting entries.

Each check takes the readable parts of the configuration and yields findings. It checks every valid entry, and uses the
names of the invalid ones, so that one fault does not hide another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

from sts.cache.tokens import CacheSettings
from sts.clients.client import ClientSettings
from sts.clients.secret import SecretClient
from sts.credentials.kind import SourceSettings
from sts.edge.forward_auth import ForwardAuthSettings
from sts.edge.profiles import PROFILES
from sts.edge.routes import RouteSettings, ties
from sts.lookups.opa import OpaSettings
from sts.lookups.settings import TableSettings
from sts.mint.settings import KeysSettings
from sts.options import show_duration
from sts.policy.headers import header_name
from sts.policy.settings import AudienceSettings
from sts.redis_link import RedisSettings
from sts.settings.faults import Finding, Trail, near, not_yet, quote
from sts.settings.listen import Listen

ALL: Final = "*"
LATER_PROFILES: Final = frozenset({"envoy", "traefik", "caddy", "haproxy", "apisix", "kong"}) - PROFILES.keys()
"""Profiles of the documented contract that are not supported yet."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The readable parts: the valid entries of each section, and `written`, the values as they are in the files."""

    written: Mapping[str, Any]
    place: Callable[[Trail], str]
    issuer: str | None = None
    listen: Listen | None = None
    redis: RedisSettings | None = None
    keys: KeysSettings | None = None
    cache: CacheSettings | None = None
    forward_auth: ForwardAuthSettings | None = None
    opa: OpaSettings | None = None
    clients: Mapping[str, ClientSettings] = field(default_factory=dict)
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    audiences: Mapping[str, AudienceSettings] = field(default_factory=dict)
    tables: Mapping[str, TableSettings] = field(default_factory=dict)
    routes: Mapping[str, RouteSettings] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, dict[str, Any]]:
        """Return the entries of a section as written, defaults merged; faulty and disabled entries are included."""
        found = self.written.get(section)
        entries = found if isinstance(found, dict) else {}
        return {name: entry if isinstance(entry, dict) else {} for name, entry in entries.items()}


Check = Callable[[Parts], Iterator[Finding]]


def names(parts: Parts) -> Iterator[Finding]:
    """Check that every audience and source that an entry names exists."""
    audiences, sources = parts.entries("audiences"), parts.entries("sources")
    for name, client in parts.clients.items():
        yield from _known(("clients", name, "audiences"), client.audiences, audiences, "audience")
        yield from _known(("clients", name, "sources"), client.sources or (), sources, "source")
        yield from _known(("clients", name, "actors"), client.actors, sources, "source")
        yield from _backends(name, client.backend_of, audiences)
        if client.default_audience is not None:
            path = ("clients", name, "default_audience")
            yield from _known(path, client.default_audience, audiences, "audience")
            listed = {ALL, client.default_audience}.intersection(client.audiences)
            if client.default_audience in audiences and not listed:
                yield Finding(path, "is not one of the client's `audiences`", "list it there as well")
    for name, source in parts.sources.items():
        yield from _known(("sources", name, "audiences"), source.audiences or (), audiences, "audience")
    for name, route in parts.routes.items():
        if route.audience is not None:
            yield from _known(("routes", name, "audience"), route.audience, audiences, "audience")


def _known(path: Trail, wanted: str | tuple[str, ...], known: Mapping[str, object], what: str) -> Iterator[Finding]:
    single = isinstance(wanted, str)
    for index, name in enumerate((wanted,) if isinstance(wanted, str) else wanted):
        if name not in known and (single or name != ALL):
            yield Finding(path if single else (*path, index), f"there is no {what} {quote(name)}", near(name, known))


def _backends(client: str, backend_of: tuple[str, ...], audiences: Mapping[str, object]) -> Iterator[Finding]:
    """Check that `backend_of` lists names: "*" would let the client use every backend's tokens."""
    for index, name in enumerate(backend_of):
        if name not in audiences:
            path = ("clients", client, "backend_of", index)
            yield Finding(path, f"there is no audience {quote(name)}", near(name, audiences))


def consent(parts: Parts) -> Iterator[Finding]:
    """With two or more sources, require all three parts of the consent, and each source's namespace."""
    sources = parts.entries("sources")
    if len(sources) < 2:
        return
    why = "must be written, since there are several sources"
    for name, client in parts.entries("clients").items():
        if client.get("sources") is None:
            hint = 'name the sources whose credentials this client may hand in; ["*"] for all'
            yield Finding(("clients", name, "sources"), why, hint)
    for name, source in sources.items():
        if source.get("audiences") is None:
            hint = 'name the audiences that may be reached from here; ["*"] for all'
            yield Finding(("sources", name, "audiences"), why, hint)
        if source.get("namespace") is None:
            hint = 'a prefix that keeps its subjects apart from other sources\'; "" for none'
            yield Finding(("sources", name, "namespace"), why, hint)


def namespaces(parts: Parts) -> Iterator[Finding]:
    """Check that sources share a namespace only if all of them state that their subjects are the same."""
    sources = parts.entries("sources")
    sharing: dict[str, list[str]] = {}
    for name, entry in sources.items():
        if isinstance(entry.get("namespace"), str):
            sharing.setdefault(entry["namespace"], []).append(name)
    for namespace, together in sharing.items():
        for name in together:
            if len(together) > 1 and sources[name].get("same_subjects") is not True:
                others = ", ".join(other for other in together if other != name)
                problem = (
                    f"the namespace {quote(namespace)} is also that of {others}: "
                    "each could issue credentials for the other's users"
                )
                hint = "give each its own, or write `same_subjects: true` at all of them if their subjects are the same"
                yield Finding(("sources", name, "namespace"), problem, hint)


def issuers(parts: Parts) -> Iterator[Finding]:
    """Check that each `iss` belongs to one source, and that none is our own issuer."""
    seen: dict[str, str] = {}
    for name, source in parts.sources.items():
        issuer, path = source.claims_issuer(), ("sources", name, "issuer")
        if issuer is None:
            continue
        if issuer == parts.issuer:
            yield Finding(
                path, "is our own issuer: our tokens would be accepted as credentials", "name the other issuer"
            )
        if issuer in seen:
            other = ("sources", seen[issuer], "issuer")
            yield Finding(path, f"is also the issuer of {other[1]} ({parts.place(other)})", "one source per issuer")
        seen.setdefault(issuer, name)


def prefixes(parts: Parts) -> Iterator[Finding]:
    """Check that each opaque token and each API key belongs to one source; none is tried at several (IN-06)."""
    named = {name: (one.prefix_path, one.credential_prefix()) for name, one in parts.sources.items()}
    yield from _rivals({name: (path, prefix) for name, (path, prefix) in named.items() if prefix is not None})


def credential_headers(parts: Parts) -> Iterator[Finding]:
    """Check that each credential header belongs to one token type, since its value is read as that type."""
    seen: dict[str, tuple[str, str]] = {}
    for name, source in parts.sources.items():
        header, token_type = source.credential_header() or ("", "")
        other, theirs = seen.setdefault(header.lower(), (name, token_type))
        if token_type != theirs:
            problem = f"{header} is also the header of {other}, whose credentials are of another type"
            yield Finding(("sources", name, "header"), problem, "choose another header for one of the two")


def source_faults(parts: Parts) -> Iterator[Finding]:
    """Run the checks that each kind declares: of one source, and of two sources of the kind."""
    for name, source in parts.sources.items():
        for key, problem, hint in source.faults():
            yield Finding(("sources", name, key), problem, hint)
    for (other, theirs), (name, mine) in combinations(parts.sources.items(), 2):
        clash = mine.clash(theirs) if type(mine) is type(theirs) else None
        if clash is not None:
            place = f"{other} ({parts.place(('sources', other))})"
            yield Finding(("sources", name, clash.key), clash.problem.replace("{other}", place), clash.hint)


def _rivals(named: Mapping[str, tuple[Trail, str]]) -> Iterator[Finding]:
    seen: list[tuple[str, str]] = []
    for name, (path, prefix) in named.items():
        for other, theirs in seen:
            if prefix.startswith(theirs) or theirs.startswith(prefix):
                problem = f"{quote(prefix)} and {quote(theirs)} of {other} overlap: a credential could belong to either"
                yield Finding(("sources", name, *path), problem, "choose prefixes that do not begin with each other")
        seen.append((name, prefix))


def auds(parts: Parts) -> Iterator[Finding]:
    """Check that each `aud` is unique, so that no backend accepts a token for another backend."""
    named = parts.entries("audiences")
    seen: dict[str, str] = {}
    for name, audience in parts.audiences.items():
        path = ("audiences", name, "aud")
        aud = audience.aud or name
        if aud != name and aud in named:
            yield Finding(path, f"{quote(aud)} is the name of another audience", "choose another `aud`")
            continue
        if aud in seen:
            other = parts.place(("audiences", seen[aud], "aud"))
            yield Finding(path, f"{quote(aud)} is also the `aud` of {seen[aud]} ({other})", "each audience has its own")
        seen.setdefault(aud, name)


def scopes(parts: Parts) -> Iterator[Finding]:
    """Check that a route to an audience with `scopes` requires some of them, and to one without requires none."""
    for name, route in parts.routes.items():
        audience = parts.audiences.get(route.audience or "")
        if audience is None:
            continue
        path = ("routes", name, "scopes")
        if audience.scopes is None:
            if route.scopes:
                yield Finding(path, f"the audience {route.audience} has no scopes", "leave them out, or add them there")
            continue
        if not route.scopes:
            hint = f"name those that this route needs, of: {', '.join(audience.scopes)}"
            yield Finding(path, f"must be written, since the audience {route.audience} has scopes", hint)
        for index, scope in enumerate(route.scopes or ()):
            if scope not in audience.scopes:
                problem = f"{quote(scope)} is not a scope of the audience {route.audience}"
                yield Finding((*path, index), problem, near(scope, audience.scopes))


def tied_routes(parts: Parts) -> Iterator[Finding]:
    """Check that no request matches two routes equally well."""
    for one, other in ties(parts.routes):
        problem = f"some requests match it and the route {one} ({parts.place(('routes', one))}) equally well"
        hint = "make one of them more specific: its host, more literal segments, or its methods"
        yield Finding(("routes", other), problem, hint)


def profiles(parts: Parts) -> Iterator[Finding]:
    """Check that every profile exists; there is no fallback to another profile's headers."""
    for name, client in parts.clients.items():
        profile, path = client.profile, ("clients", name, "profile")
        if profile in LATER_PROFILES:
            yield Finding(path, *not_yet(profile))
        elif profile is not None and profile not in PROFILES:
            yield Finding(path, f"there is no profile {quote(profile)}", near(profile, PROFILES))


NOBODYS: Final = "sha256:" + "0" * 64
"""A placeholder for a digest in examples: no secret with it is known, so clients may share it."""


def secrets(parts: Parts) -> Iterator[Finding]:
    """Check that each secret belongs to one client: with a shared secret, each could act as the other."""
    seen: dict[str, str] = {}
    for name, client in parts.clients.items():
        written = client.secrets if isinstance(client, SecretClient) else ()
        for index, digest in enumerate(written):
            path = ("clients", name, "secrets", index)
            owner = seen.setdefault(digest.get_secret_value(), name)
            if digest.get_secret_value() == NOBODYS:
                continue
            if owner != name:
                hint = "`sts clients secret` creates a new one"
                yield Finding(path, f"is also a secret of the client {owner}", hint)
            elif digest in written[:index]:
                yield Finding(path, "is written twice", "keep one of them")


def headers(parts: Parts) -> Iterator[Finding]:
    """Check that an identity header is not reserved by us or a gateway, and has one spelling."""
    token_header = (parts.forward_auth or ForwardAuthSettings()).token_header
    spelled: dict[str, str] = {}
    for name, audience in parts.audiences.items():
        for header in audience.headers:
            path, folded = ("audiences", name, "headers", header), header.lower()
            first = spelled.setdefault(folded, header)
            try:
                header_name(header)
            except ValueError as error:
                yield Finding(path, str(error), "choose another name")
                continue
            if folded == token_header.lower():
                yield Finding(path, f"{header} is `forward_auth.token_header`", "choose another")
            elif header != first:
                yield Finding(path, f"{header} and {first} are the same header name", f"write it as {first}")


def opa(parts: Parts) -> Iterator[Finding]:
    """Check that `opa` is configured if an audience uses it; disabled audiences count, so enabling one cannot fail."""
    if parts.written.get("opa") is None:
        for name, audience in parts.audiences.items():
            if audience.opa:
                hint = "such as `opa: {url: http://127.0.0.1:8181/v1/data/sts/allow}`"
                yield Finding(("audiences", name, "opa"), "the top-level `opa` is missing", hint)


def cached(parts: Parts) -> Iterator[Finding]:
    """Check that `cache.min_remaining` is below the ttl of some audience with `reuse: shared`.

    Disabled audiences count, so that disabling one cannot fail. With a faulty audience the longest ttl is unknown, and
    the check is skipped.
    """
    least = parts.cache.min_remaining if parts.cache is not None else None
    shared = {name: audience.ttl for name, audience in parts.audiences.items() if audience.reuse == "shared"}
    if least is None or not shared or parts.entries("audiences").keys() - parts.audiences.keys():
        return
    longest = max(shared, key=lambda name: shared[name])
    ttl = show_duration(shared[longest])
    if least >= shared[longest]:
        problem = f"{show_duration(least)} is not below the longest ttl, {ttl} of {longest}: no token would be cached"
        hint = f"write less than {ttl}, or leave it out; `reuse: unique` excludes an audience from the cache"
        yield Finding(("cache", "min_remaining"), problem, hint)


CHECKS: Final[tuple[Check, ...]] = (
    *(names, consent, namespaces, issuers, prefixes, credential_headers, source_faults, auds, scopes, tied_routes),
    *(profiles, secrets, headers, opa, cached),
)
"""The checks of this module, in the order of the sections."""
