"""The compiled configuration that decisions use: one object per source, audience and route.

All rules are compiled when a revision is built, so that a request only evaluates them.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from sts.expressions import Expression, compile_rule
from sts.policy.settings import AudienceSettings

ALL: Final = "*"
AUDIENCE_VARIABLES: Final = frozenset({"identity", "actor", "client", "request", "route", "now"})
REQUEST_FACTS: Final = ("method", "host", "path", "scheme", "ip")


class SourceRuleSettings(Protocol):
    """The settings of a source, of any kind, that the policy reads."""

    @property
    def variable(self) -> str:
        """The variable with the proven credential in its rules."""

    @property
    def audiences(self) -> tuple[str, ...] | None:
        """The audiences that the source may reach, None for all."""

    @property
    def namespace(self) -> str | None:
        """The prefix of its subjects."""

    @property
    def require(self) -> str | None:
        """The condition that its credentials must meet."""

    @property
    def identity(self) -> Mapping[str, str]:
        """A rule for each attribute."""


class RouteRuleSettings(Protocol):
    """The settings of a route that the policy reads."""

    @property
    def allow(self) -> str | None:
        """The route's own condition."""


Named = tuple[tuple[str, Expression], ...]


@dataclass(frozen=True, slots=True)
class SourceRules:
    """The rules that map one source's principals to identities. `namespace` None leaves subjects unchanged.

    `variable` is the name of the proven credential in the rules; `tables` are the tables that the rules use.
    """

    variable: str
    audiences: frozenset[str]
    namespace: str | None
    require: Expression | None
    identity: Named
    tables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: SourceRuleSettings, *, alone: bool) -> SourceRules:
        """Compile the rules; `alone` is true if the configuration has only this source."""
        variables = frozenset({settings.variable})
        require = compile_rule(settings.require, variables) if settings.require else None
        identity = _compile(settings.identity, variables)
        return cls(
            variable=settings.variable,
            audiences=frozenset({ALL} if settings.audiences is None else settings.audiences),
            namespace=None if alone and settings.namespace is None else settings.namespace or "",
            require=require,
            identity=identity,
            tables=_looked_up(require, identity),
        )


@dataclass(frozen=True, slots=True)
class AudienceRules:
    """One backend. `facts` are the request facts that its rules read; `reads_now` is whether a rule reads the clock.

    `backend` is true if some client is this backend, so that its tokens may come back to be exchanged again. `mapping`
    identifies the rules of `claims`: one of our own tokens is read only by the mapping that wrote it. The facts that
    `shadow` reads are in `facts`, because its result is stored with a cached token for all requests which get that
    token. They are not in `reads_now`: a shadow rule must not keep tokens out of the cache.
    """

    name: str
    aud: str
    algorithm: str
    settings: AudienceSettings
    mapping: str
    scopes: frozenset[str] | None
    allow: Expression | None
    shadow: Expression | None
    claims: Named
    headers: Named
    facts: frozenset[str]
    reads_now: bool
    backend: bool = False
    tables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, settings: AudienceSettings, algorithm: str, *, backend: bool = False) -> AudienceRules:
        """Compile the rules; `algorithm` is the configured `keys.algorithm`."""
        allow = compile_rule(settings.allow, AUDIENCE_VARIABLES) if settings.allow else None
        shadow = compile_rule(settings.shadow, AUDIENCE_VARIABLES) if settings.shadow else None
        claims = _compile(settings.claims, AUDIENCE_VARIABLES)
        headers = _compile(settings.headers, AUDIENCE_VARIABLES)
        read = reads([*([allow] if allow else []), *(rule for _, rule in (*claims, *headers))])
        return cls(
            name=name,
            aud=settings.aud or name,
            algorithm=settings.algorithm or algorithm,
            settings=settings,
            mapping=_mapping(settings.claims),
            scopes=None if settings.scopes is None else frozenset(settings.scopes),
            allow=allow,
            shadow=shadow,
            claims=claims,
            headers=headers,
            facts=_facts(settings, read | (shadow.reads if shadow else frozenset())),
            reads_now="now" in read,
            backend=backend,
            tables=_looked_up(allow, (*claims, *headers)),
        )


@dataclass(frozen=True, slots=True)
class RouteRules:
    """A route's own condition."""

    allow: Expression | None
    facts: frozenset[str]
    reads_now: bool
    tables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: RouteRuleSettings) -> RouteRules:
        """Compile the rule."""
        allow = compile_rule(settings.allow, AUDIENCE_VARIABLES) if settings.allow else None
        read = reads([allow] if allow else [])
        return cls(allow=allow, facts=request_facts(read), reads_now="now" in read, tables=_looked_up(allow))


def _mapping(claims: Mapping[str, str]) -> str:
    """Return 16 characters (96 bits of SHA-256) that differ between different mappings.

    Only operators write mappings, so the length must exclude a collision by chance, not an attacker's search.
    """
    text = json.dumps(sorted(claims.items()))
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:12]).decode()


def _facts(settings: AudienceSettings, read: frozenset[str]) -> frozenset[str]:
    """Return the request facts on which an audience's answer depends; OPA receives all of them."""
    return frozenset(REQUEST_FACTS) if settings.opa else request_facts(read)


def reads(rules: Iterable[Expression]) -> frozenset[str]:
    """Return everything that any of `rules` reads, as dotted paths."""
    return frozenset(path for rule in rules for path in rule.reads)


def _looked_up(condition: Expression | None, named: Named = ()) -> frozenset[str]:
    rules = [*([condition] if condition else []), *(rule for _, rule in named)]
    return frozenset(table for rule in rules for table, _ in rule.lookups)


def request_facts(read: frozenset[str]) -> frozenset[str]:
    """Return the request facts among the paths `read`; all of them if `request` is read as a whole.

    They become part of the cache key. A fact that is missing here could answer one request with another's token.
    """
    if "request" in read:
        return frozenset(REQUEST_FACTS)
    return frozenset(fact for fact in REQUEST_FACTS if any(_is_or_below(path, f"request.{fact}") for path in read))


def _is_or_below(path: str, fact: str) -> bool:
    return path == fact or path.startswith(fact + ".")


def _compile(texts: Mapping[str, str], variables: frozenset[str]) -> Named:
    return tuple((name, compile_rule(text, variables)) for name, text in texts.items())
