"""The decision: what this identity gets for these audiences. Only this module creates a `Grant`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sts.errors import (
    BINDING_FAILED,
    INSUFFICIENT_SCOPE,
    NO_MAPPING,
    NOT_ALLOWED,
    SUBJECT_COLLISION,
    UNSAFE_HEADER_VALUE,
    Refusal,
)
from sts.expressions import ABSENT, EvaluationError, Expression, Scope, as_attribute, bind
from sts.lookups.rows import Rows, Table
from sts.model import Actor, Admitted, Ask, Client, Grant, Identity, Limits, Presented, Principal, Trial
from sts.policy.act import actor_chain, delegate
from sts.policy.admit import admit
from sts.policy.consent import Consent, Target, within_reach
from sts.policy.headers import header_value
from sts.policy.mapping import identify
from sts.policy.opa import Opa, fresh_until
from sts.policy.reexchange import OWN, evidence, identity_again, mapping_of, source_of
from sts.policy.rules import AudienceRules, Named, RouteRules, SourceRules


def judge(audiences: Iterable[AudienceRules], scope: Scope) -> dict[str, Trial]:
    """Return the result of each audience's `shadow` rule, by the audience's name.

    Never raises: an error in a rule is its result, because the rule would refuse if it were the audience's `allow`.
    """
    return {
        one.name: Trial(_outcome(one.shadow, scope), lasts="now" not in one.shadow.reads)
        for one in audiences
        if one.shadow is not None
    }


def _outcome(rule: Expression, scope: Scope) -> Literal["allow", "deny", "error"]:
    try:
        return "allow" if rule.holds(scope) else "deny"
    except Exception:  # noqa: BLE001 - an EvaluationError or a fault of ours: a shadow rule must not affect the decision
        return "error"


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules of one revision of the configuration.

    `fingerprints` are keyed `client/<id>`, `source/<name>`, `audience/<name>`, `route/<name>`, `table/<name>`.
    `client_ids` are all configured ids. No minted `sub` may equal one, except for a credential of that client itself,
    whose source and raw subject are in `own_subjects`. `min_remaining` None means a third of the ttl, at most 30 s.
    `opa` is called for audiences with `opa: true`.
    """

    issuer: str
    consents: Consent
    sources: Mapping[str, SourceRules]
    routes: Mapping[str, RouteRules]
    client_ids: frozenset[str]
    fingerprints: Mapping[str, str]
    min_remaining: float | None
    own_subjects: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    opa: Opa | None = None

    def target(self, client: Client, ask: Ask) -> Target:
        """Return the audiences that a request names: see `Consent.target`."""
        return self.consents.target(client, ask)

    def consent(self, client: Client, presented: Sequence[Presented], target: Target) -> None:
        """Check the sources' parts of the consent, for the actor and the subject: see `Consent.check`."""
        for one in presented:
            self.consents.check(client, one, target)

    def parts(self, client: Client, presented: Sequence[Presented], target: Target, ask: Ask) -> tuple[str, ...]:
        """Return the fingerprints of all configuration entries that determine the answer to this request."""
        names = [f"client/{client.id}", *(f"source/{one.source}" for one in presented)]
        names += [f"audience/{one.name}" for one in (*target.audiences, *self.consents.minted_for(presented))]
        if ask.route is not None:
            names.append(f"route/{ask.route}")
        tables = self._tables(presented, target, ask)
        if tables:
            names.extend(f"table/{name}" for name in sorted(tables))
        return tuple(self.fingerprints[name] for name in names)

    def at_hand(self, presented: Sequence[Presented], target: Target, ask: Ask, tables: Mapping[str, Table]) -> bool:
        """Return whether deciding never waits and minting is fast: no OPA, JWE or RSA, rows in memory."""
        if any(
            one.settings.opa or one.settings.encryption is not None or one.algorithm[:2] in _SLOW
            for one in target.audiences
        ):
            return False
        return all(tables[name].in_memory for name in self._tables(presented, target, ask))

    def _tables(self, presented: Sequence[Presented], target: Target, ask: Ask) -> frozenset[str]:
        """Return the tables in which the rules for this request look up rows."""
        return self._route(ask).tables.union(
            *(self.sources[one.source].tables for one in presented), *(one.tables for one in target.audiences)
        )

    def lasts(self, presented: Sequence[Presented], target: Target, ask: Ask) -> bool:
        """Return whether an equal request gets an equal answer later: its rules use no rows, no `now` and no OPA."""
        route = self._route(ask)
        free = not (route.tables or route.reads_now or any(self.sources[one.source].tables for one in presented))
        return free and not any(one.tables or one.reads_now or one.settings.opa for one in target.audiences)

    def facts_read(self, target: Target, ask: Ask) -> tuple[tuple[str, str], ...]:
        """Return the request facts that the rules for this request read, by name; they are part of the cache key."""
        read = self._route(ask).facts.union(*(audience.facts for audience in target.audiences))
        request = _request(ask)
        return tuple((name, request.get(name, "")) for name in sorted(read))

    def admit(
        self, principal: Principal, limits: Limits, target: Target, now: float, certificate: str | None
    ) -> Admitted:
        """Check a proven credential's facts (see `policy.admit`), and whether it may reach the target."""
        within_reach(principal, target)
        return admit(principal, limits, now, certificate)

    def identify(self, admitted: Admitted, rows: Rows) -> Identity:
        """Map a principal by its source's rules, or restore the identity from one of our own tokens.

        `rows` are the rows fetched so far: see `Rows.given`.
        """
        if admitted.principal.kind == OWN:
            return identity_again(admitted, self.consents.by_aud)
        return identify(admitted, self.sources[admitted.principal.source], rows)

    def delegate(self, client: Client, subject: Admitted, actor: Admitted, identity: Identity) -> Admitted:
        """Let a proven actor, with its mapped identity, act for the subject: see `act.delegate`."""
        if identity.subject in self.client_ids:
            raise Refusal(SUBJECT_COLLISION, why="the actor has the name of a configured client")
        return delegate(client, subject, actor, identity, self.issuer)

    def decide(
        self, client: Client, identity: Identity, admitted: Admitted, target: Target, ask: Ask, now: float, rows: Rows
    ) -> Grant:
        """Decide. Every step only narrows. `rows` as for `identify`. Raises a Refusal with the reason."""
        if identity.subject in self.client_ids and not self._is_clients_own(identity.subject, admitted.principal):
            raise Refusal(SUBJECT_COLLISION, why="the subject is the id of a configured client")
        act = actor_chain(admitted, client, self.issuer)
        first = target.audiences[0]
        scopes = granted_scopes(identity, first, ask)
        scope = bind(_variables(identity, admitted.actor, client, ask, now), rows)
        route = self._route(ask)
        _require(route.allow, scope, rule="allow of the route")
        for audience in target.audiences:
            _require(audience.allow, scope, rule=f"allow of {audience.name}")
        ttl = min(audience.settings.ttl for audience in target.audiences)
        src = source_of(admitted, target)
        return Grant(
            client_id=client.id,
            subject=identity.subject,
            aud=tuple(audience.aud for audience in target.audiences),
            scopes=scopes,
            claims=_claims(target, scope),
            headers=_headers(first.headers, scope) if ask.door == "forward_auth" else {},
            act=act,
            typ=first.settings.typ,
            algorithm=first.algorithm,
            ttl=ttl,
            not_after=admitted.not_after,
            fresh_until=min(admitted.fresh_until, rows.fresh_until),
            min_remaining=min(30.0, ttl / 3) if self.min_remaining is None else self.min_remaining,
            max_token_bytes=min(audience.settings.max_token_bytes for audience in target.audiences),
            keep=not route.reads_now
            and all(one.settings.reuse == "shared" and not one.reads_now for one in target.audiences),
            src=src,
            mapped_by=None if src is None else mapping_of(target.audiences),
            since=admitted.since,
            shadow=judge(target.audiences, scope),
            evidence=evidence(admitted.principal) if first.settings.evidence else {},
            recipient=None if first.settings.encryption is None else first.name,
            bound_to=_binding(target, ask),
        )

    def narrow(
        self, grant: Grant, client: Client, identity: Identity, admitted: Admitted, target: Target, ask: Ask, now: float
    ) -> Grant:
        """Let OPA narrow the decision, for each audience with `opa: true`. May wait.

        Raises NOT_ALLOWED unless OPA answers `true`, SOURCE_UNREACHABLE if OPA gives no decision.
        """
        asked = [audience.name for audience in target.audiences if audience.settings.opa]
        if not asked:
            return grant
        principal, variables = admitted.principal, _variables(identity, admitted.actor, client, ask, now)
        question = {name: variables[name] for name in ("identity", "actor", "client", "request", "route")}
        question.update(door=ask.door, source=principal.source, kind=principal.kind, act=grant.act, scopes=grant.scopes)
        ends = [fresh_until(self.opa, {**question, "audience": name}, now) for name in asked]
        return replace(grant, fresh_until=min(grant.fresh_until, *ends))

    def _is_clients_own(self, client_id: str, principal: Principal) -> bool:
        """Return whether a credential is the client's own token (client credentials grant), not a user's."""
        said = principal.attributes.get("client_id")
        return self.own_subjects.get(client_id) == (principal.source, principal.subject) and said == principal.subject

    def _route(self, ask: Ask) -> RouteRules:
        return _NO_ROUTE if ask.route is None else self.routes[ask.route]


_SLOW = frozenset({"RS", "PS"})  # an RSA signature takes a millisecond
_NO_ROUTE = RouteRules(allow=None, facts=frozenset(), reads_now=False)


def granted_scopes(identity: Identity, audience: AudienceRules, ask: Ask) -> tuple[str, ...] | None:
    """Return the token's scopes: at most those requested, of the identity, and of the audience (RFC 8693 §5).

    Returns None for an audience without `scopes`: its tokens have none, and a request for one is refused. Raises
    INSUFFICIENT_SCOPE if more is requested than allowed, or if no scope is left.
    """
    if audience.scopes is None:
        if ask.scopes:
            raise Refusal(INSUFFICIENT_SCOPE, why="the audience has no scopes", audience=audience.name)
        return None
    allowed = audience.scopes.intersection(identity.scopes)
    if ask.scopes:
        missing = [scope for scope in ask.scopes if scope not in allowed]
        if missing:
            raise Refusal(INSUFFICIENT_SCOPE, why="more is requested than allowed", scope=" ".join(ask.scopes))
        return tuple(dict.fromkeys(ask.scopes))
    if not allowed:
        raise Refusal(INSUFFICIENT_SCOPE, why="the identity has none of the audience's scopes", audience=audience.name)
    return tuple(sorted(allowed))


def _binding(target: Target, ask: Ask) -> str | None:
    """Return the thumbprint to which the token is bound: the caller's own certificate, never the credential's.

    Returns None if no audience requires a binding. Raises BINDING_FAILED for a caller without a proven certificate: a
    bearer token would not meet the requirement.
    """
    if all(audience.settings.bind == "none" for audience in target.audiences):
        return None
    if ask.caller_certificate is None:
        raise Refusal(BINDING_FAILED, why="the audience's tokens are bound to the caller's certificate: it has none")
    return ask.caller_certificate


def _require(allow: Expression | None, scope: Scope, *, rule: str) -> None:
    """Allow only if the rule is exactly `true`: an error, an absent key and any other value refuse."""
    if allow is None:
        return
    try:
        holds = allow.holds(scope)
    except EvaluationError as error:
        raise Refusal(NOT_ALLOWED, rule=rule, why=str(error)) from None
    if not holds:
        raise Refusal(NOT_ALLOWED, rule=rule, why="it is not true")


def _claims(target: Target, scope: Scope) -> dict[str, Any]:
    """Return the mapped claims; with several audiences only those that all of them define by the same rule."""
    first, *others = target.audiences
    texts = [one.settings.claims for one in others]
    shared = [(name, rule) for name, rule in first.claims if all(text.get(name) == rule.text for text in texts)]
    return dict(_evaluate(shared, scope))


def _headers(rules: Named, scope: Scope) -> dict[str, str]:
    """Return the identity headers. Raises UNSAFE_HEADER_VALUE for a value that is not safe in a header."""
    written = {}
    for name, value in _evaluate(rules, scope):
        try:
            written[name] = header_value(value)
        except ValueError as error:
            raise Refusal(UNSAFE_HEADER_VALUE, header=name, why=str(error)) from None
    return written


def _evaluate(rules: Named | list[tuple[str, Expression]], scope: Scope) -> list[tuple[str, Any]]:
    values = []
    for name, rule in rules:
        try:
            value = rule.value(scope)
            if value is not ABSENT:
                values.append((name, as_attribute(value)))
        except EvaluationError as error:
            raise Refusal(NO_MAPPING, attribute=name, why=str(error)) from None
    return values


def _variables(identity: Identity, actor: Actor | None, client: Client, ask: Ask, now: float) -> dict[str, Any]:
    """Return the variables of a rule. A missing fact is an absent key: a rule that needs it refuses."""
    return {
        "identity": identity.attributes,
        "actor": {} if actor is None else actor.attributes,
        "client": {"id": client.id},
        "request": _request(ask),
        "route": {} if ask.route is None else {"name": ask.route},
        "now": int(now),
    }


def _request(ask: Ask) -> dict[str, str]:
    request = ask.request
    if request is None:
        return {}
    facts = {"method": request.method, "host": request.host, "path": request.path}
    facts.update({"scheme": request.scheme} if request.scheme else {}, **({"ip": request.ip} if request.ip else {}))
    return facts
