"""The configurations of the services that are measured: one worker each, and what is usual beside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import yaml

from scripts.demo.provider import AUDIENCE
from scripts.demo.provider import ISSUER as IDP
from scripts.demo.service import CLIENT, GATEWAY

BIG_IDP: Final = "https://big.example.com"
OPAQUE_PREFIX: Final = "op_"
MANY: Final = 10_000
_PART: Final = 2500
GROUPS_RULE: Final = "claims.groups.split(',').map(g, g.trim()).filter(g, g.startsWith('app-orders-'))"
LEDGER: Final = "ledger"
INTROSPECTED: Final = (
    f'{{"active":true,"sub":"alice","aud":"{AUDIENCE}","scope":"orders:read orders:write","exp":4102444800}}'
)
"""What the introspection server answers, whatever it is asked."""

_IDENTITY: Final = {
    "subject": "claims.sub",
    "scopes": "claims.scope",
    "roles": "claims.roles",
    "tenant": "claims.agency_id",
}
_SCOPES: Final = ["orders:read", "orders:write"]
_LIFE: Final = "6h"  # longer than a run: what is warm stays warm


def plain() -> dict[str, Any]:
    """Return the smallest useful configuration: one source, one audience, one route, RS256 in and ES256 out.

    `{issuer}`, `{port}` and `{jwks_uri}` in its values are left to whoever starts the service.
    """
    client = yaml.safe_load(GATEWAY)["clients"][CLIENT]
    return {
        "issuer": "{issuer}",
        "listen": "127.0.0.1:{port}",
        "workers": 1,
        "audit": {"file": "audit.jsonl"},
        "clients": {CLIENT: {**client, "profile": "nginx"}},
        "sources": {
            "corporate-idp": {
                "type": "jwt",
                "issuer": IDP,
                "jwks_uri": "{jwks_uri}",
                "algorithms": ["RS256", "ES256"],
                "audience": AUDIENCE,
                "identity": dict(_IDENTITY),
            }
        },
        "audiences": {"orders": _audience(headers={"X-User-ID": "identity.subject", "X-Tenant-ID": "identity.tenant"})},
        "routes": {"orders": _route("orders")},
    }


def ed25519() -> dict[str, Any]:
    """Return `plain`, but tokens are signed with Ed25519."""
    return plain() | {"keys": {"algorithm": "Ed25519"}}


def roomy() -> dict[str, Any]:
    """Return `plain` with a cache for 100 000 tokens."""
    return plain() | {"cache": {"memory": "2GB"}}


def kinds(introspection: str) -> dict[str, Any]:
    """Return a configuration with every other kind that is measured; `introspection` is the port of that server."""
    whole = plain()
    whole["clients"][CLIENT] |= {"audiences": ["*"], "sources": ["*"]}
    corporate = whole["sources"]["corporate-idp"]
    big = {**corporate, "issuer": BIG_IDP, "identity": {**_IDENTITY, "roles": GROUPS_RULE}}
    whole["sources"] |= {
        "big-idp": big,
        "legacy-as": {
            "type": "introspection",
            "endpoint": f"http://127.0.0.1:{introspection}/introspect",
            "client_id": "sts",
            "client_secret": "bench-secret",
            "audience": AUDIENCE,
            "match": {"prefix": OPAQUE_PREFIX},
            "cache_ttl": "1h",
            "identity": {"subject": "claims.sub", "scopes": "claims.scope"},
        },
        "partner-keys": {
            "type": "api_key",
            "prefix": "sk_live_",
            "identity": {"subject": "key.owner", "scopes": "key.scopes", "tenant": "key.tenant"},
        },
    }
    for name, source in whole["sources"].items():
        source |= {"audiences": ["*"], "namespace": name}
    encryption = {"jwks_file": f"{LEDGER}.jwks.json", "alg": "ECDH-ES+A256KW"}
    whole["audiences"] |= {
        LEDGER: _audience(format="jwe", encryption=encryption),
        "once": _audience(reuse="unique"),
    }
    whole["routes"] |= {LEDGER: _route(LEDGER), "once": _route("once")}
    return whole


def grown() -> dict[str, Any]:
    """Return `plain` beside what `many` makes, which is in files of its own."""
    whole = plain()
    whole["clients"][CLIENT]["sources"] = ["corporate-idp"]
    whole["sources"]["corporate-idp"] |= {"audiences": ["orders"], "namespace": ""}
    return whole | {"include": ["many-*.yaml"]}


def many() -> Iterator[dict[str, Any]]:
    """Yield 10 000 sources, audiences, routes and clients in parts: a file of a configuration has a largest size."""
    for begin in range(0, MANY, _PART):
        yield _part(range(begin, begin + _PART))


def _part(numbers: range) -> dict[str, Any]:
    usual = plain()
    client, source = usual["clients"][CLIENT], usual["sources"]["corporate-idp"]
    whole: dict[str, Any] = {"clients": {}, "sources": {}, "audiences": {}, "routes": {}}
    for number in numbers:
        name = f"{number:05}"
        audience = f"audience-{name}"
        whole["audiences"][audience] = _audience()
        whole["routes"][f"route-{name}"] = _route(audience)
        whole["clients"][f"client-{name}"] = {
            **client,
            "secrets": [f"sha256:{hashlib.sha256(f'secret of client {name}'.encode()).hexdigest()}"],
            "audiences": [audience],
            "sources": [f"source-{name}"],
        }
        whole["sources"][f"source-{name}"] = {
            **source,
            "issuer": f"https://idp-{name}.example.com",
            "jwks_uri": "http://127.0.0.1:9/jwks.json",
            "audiences": [audience],
            "namespace": name,
        }
    return whole


def text(configuration: dict[str, Any]) -> str:
    """Write a configuration as YAML."""
    return yaml.dump(configuration, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes equal parts again: the service refuses anchors."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _audience(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - values of YAML
    claims = {"tenant": "identity.tenant", "roles": "identity.roles"}
    return {"ttl": _LIFE, "scopes": list(_SCOPES), "claims": claims, **more}


def _route(audience: str) -> dict[str, Any]:
    return {
        "host": "api.example.com",
        "path": f"/{audience}/**",
        "methods": ["GET"],
        "audience": audience,
        "scopes": ["orders:read"],
    }
