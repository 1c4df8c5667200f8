"""A small configuration, compiled: one source, two backends."""

from dataclasses import replace

import pytest

from sts.lookups.rows import Rows
from sts.model import NOT_APPLICABLE, TYPE_JWT, Admitted, Ask, Client, Credential, Presented, Principal
from sts.policy.consent import Consent
from sts.policy.decide import Policy
from sts.policy.rules import AudienceRules, RouteRules, SourceRules
from sts.policy.settings import AudienceSettings

NOW = 1_000_000.0
ISSUER = "https://sts.example.internal"


class _Source:
    audiences = None
    variable = "claims"
    namespace = None
    require = None

    def __init__(self, **settings):
        self.identity = {"subject": "claims.sub", "scopes": "claims.scope", "roles": "claims.roles"}
        for name, value in settings.items():
            setattr(self, name, value)


class _Route:
    def __init__(self, allow=None):
        self.allow = allow


class World:
    """Builds policies and asks them, so that a test says only what it is about."""

    def __init__(self):
        self.client = Client("gateway", frozenset({"*"}), frozenset({"*"}), None, "nginx")
        self.claims = {"sub": "alice", "scope": "read write", "roles": ["accountant"]}
        self.principal = Principal(
            kind="jwt",
            source="idp",
            issuer="https://idp.example.com",
            subject="alice",
            audience=("us",),
            reach=NOT_APPLICABLE,
            expires_at=NOW + 600,
            not_before=None,
            issued_at=NOW,
            since=NOW,
            auth_time=None,
            fresh_until=NOT_APPLICABLE,
            confirmation=None,
            act=None,
            may_act=None,
            acr=None,
            amr=None,
            jti=None,
            proof_key="thumb",
            attributes=self.claims,
        )
        self.rows = Rows({}, lambda: NOW)
        self.ask = Ask("token", Credential(TYPE_JWT, "x.y.z"), audiences=("orders",))

    def policy(self, audiences=None, source=None, routes=None, *, alone=True, min_remaining=None):
        written = audiences or {"orders": {"scopes": ["read", "write"]}}
        rules = {
            name: AudienceRules.of(name, AudienceSettings.model_validate(one), "ES256") for name, one in written.items()
        }
        sources = {"idp": SourceRules.of(_Source(**(source or {})), alone=alone)}
        return Policy(
            issuer=ISSUER,
            consents=Consent(rules, {one.aud: one for one in rules.values()}, sources),
            sources=sources,
            routes={name: RouteRules.of(_Route(allow)) for name, allow in (routes or {}).items()},
            client_ids=frozenset({"gateway", "batch"}),
            fingerprints={},
            min_remaining=min_remaining,
        )

    def decide(self, policy=None, ask=None, principal=None, not_after=NOW + 600, fresh_until=float("inf")):
        policy = policy or self.policy()
        ask = ask or self.ask
        target = policy.target(self.client, ask)
        policy.consent(self.client, [Presented("jwt", "idp", TYPE_JWT, None)], target)
        admitted = Admitted(principal or self.principal, not_after, fresh_until)
        identity = policy.identify(admitted, self.rows)
        return policy.decide(self.client, identity, admitted, target, ask, NOW, self.rows)

    def with_claims(self, **claims):
        return replace(self.principal, attributes={**self.claims, **claims})


@pytest.fixture
def world():
    return World()
