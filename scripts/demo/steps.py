"""The steps of the demo: each does one thing over HTTP, shows it, and checks that it was as promised."""

from __future__ import annotations

import json
import textwrap
import time
from typing import Any, Final

import jwt
import urllib3
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts.demo.backend import Verifier
from scripts.demo.provider import Provider
from scripts.demo.service import CLIENT, Answer, Service
from scripts.demo.show import Stage

_TRIES: Final = 20
_KEPT_S: Final = 1.0  # less than for how long the service keeps an idle connection
_SIDE_BY_SIDE: Final = (
    *("iss", "sub", "aud", "client_id", "scope", "act", "roles", "tenant"),
    *("agency_id", "email", "jti", "iat", "exp"),
)


def exchange(stage: Stage, provider: Provider, service: Service, verifier: Verifier) -> None:
    """Exchange an RS256 and an ES256 token; show claims that came in and claims that the backend verified."""
    stage.step("Token exchange at POST /token: what came in, and what the backend gets")
    for kid in provider.keys:
        inbound = provider.token(kid)
        answer = service.exchange(inbound)
        stage.check(
            f"a token signed with {provider.keys[kid][0]} is exchanged", holds=answer.status == 200, found=answer
        )
        outside = _decoded(inbound)
        inside = verifier.claims(answer.body["access_token"])
        if kid == "idp-rsa":
            stage.table(
                ("claim", "inbound, from the provider", "internal, as the backend verified it"),
                [(name, outside.get(name), inside.get(name)) for name in _SIDE_BY_SIDE],
            )
        promised = (
            inside["sub"] == "alice"
            and inside["aud"] == "orders"
            and inside["scope"] == "orders:read orders:write"
            and inside["act"]["sub"] == inside["client_id"] == CLIENT
            and inside["exp"] <= outside["exp"]
            and "email" not in inside
        )
        stage.check("the backend verified it by JWKS with PyJWT; it holds what `orders` may learn", holds=promised)
        if kid == "idp-rsa":
            body = {**answer.body, "access_token": _short(answer.body["access_token"], 30)}
            shown = json.dumps(body, ensure_ascii=False, indent=2)
            stage.say("the answer:\n" + textwrap.indent(shown, " " * 3))


def refusals(stage: Stage, provider: Provider, service: Service) -> None:
    """Six requests that must not pass, and what the caller is told."""
    stage.step("Six refusals: the caller gets a constant sentence, the facts go to the audit alone")
    forger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = _decoded(provider.token())["iat"]
    cases = (
        ("expired", provider.token(exp=now - 60, iat=now - 120), "orders", "expired"),
        ("meant for another audience", provider.token(aud="somebody-else"), "orders", "audience_mismatch"),
        ("forged: signed by another key", provider.token(key=forger), "orders", "bad_signature"),
        ("alg: none", provider.token(algorithm="none"), "orders", "bad_algorithm"),
        ("unknown issuer", provider.token(iss="https://evil.example.com"), "orders", "unknown_issuer"),
        ("no right to the audience", provider.token(), "billing", "no_consent"),
    )
    answers = [(what, service.exchange(token, audience), reason) for what, token, audience, reason in cases]
    stage.table(("what was sent", "status", "error body"), [(what, str(a.status), a.body) for what, a, _ in answers])
    for what, answer, reason in answers:
        error = "invalid_target" if reason == "no_consent" else "invalid_request"
        holds = (answer.status, answer.body.get("error_reason"), answer.body.get("error")) == (400, reason, error)
        stage.check(f"{what}: {reason}", holds=holds, found=answer)


def cached(stage: Stage, provider: Provider, service: Service) -> None:
    """The same request again is answered from the worker's cache, and is audited as such."""
    stage.step("The same request again: answered from the cache")
    first, second, events = _twice(provider, service)
    rows = []
    for answer, event in zip((first, second), events, strict=True):
        token = _decoded(answer.body["access_token"])
        facts = (str(event.get("cached")), f"{event.get('duration_us')} µs")
        rows.append((token["jti"][:12] + "…", str(answer.body["expires_in"]), *facts))
    stage.table(("jti", "expires_in", "audit: cached", "audit: duration"), rows)
    same = first.body["access_token"] == second.body["access_token"]
    stage.check("both answers hold the same token", holds=same)
    told = [event.get("cached") for event in events]
    stage.check("the audit says that the second came from the cache", holds=told == [False, True], found=told)


def _twice(provider: Provider, service: Service) -> tuple[Answer, Answer, list[dict[str, Any]]]:
    """Exchange one token twice on one connection, so with one worker; the answers and their audit events."""
    for _ in range(_TRIES):
        inbound, began = provider.token(), time.monotonic()
        first, second = service.exchange(inbound), service.exchange(inbound)
        if time.monotonic() - began < _KEPT_S:  # on a slow machine the connection may have ended in between
            break
    return first, second, service.audited()[-2:]


def forward_auth(
    stage: Stage, provider: Provider, service: Service, verifier: Verifier, nginx_port: int | None
) -> None:
    """The second door: a gateway asks for each request; through a real nginx if there is one."""
    stage.step("Forward-auth: the gateway asks whether a request may pass, and with which headers")
    original = {
        "X-Original-Method": "GET",
        "X-Original-URI": "/orders/1",
        "X-Original-Host": "api.example.com",
        "Authorization": f"Bearer {provider.token()}",
    }
    answer = service.forward_auth(original)
    names = ("authorization", "x-user-id", "x-tenant-id", "x-token-expires-at", "cache-control")
    stage.table(("header of the 200", "value"), [(name, _short(answer.headers.get(name))) for name in names])
    token = answer.headers.get("authorization", "").removeprefix("Bearer ")
    holds = answer.status == 200 and verifier.claims(token)["scope"] == "orders:read"
    stage.check("200 with the internal token, which holds the route's scope alone", holds=holds, found=answer)
    denied = service.forward_auth({**original, "X-Original-URI": "/billing/1"})
    stage.check("a path without a route is denied with 403", holds=denied.status == 403, found=denied)
    if nginx_port is None:
        stage.say("no nginx is installed, so the service was asked directly (`make test` installs one where it can)")
    else:
        _through_nginx(stage, provider, nginx_port)


def _through_nginx(stage: Stage, provider: Provider, port: int) -> None:
    stage.say("through a real nginx, with the configuration of deploy/gateways/nginx:")
    gateway = urllib3.HTTPConnectionPool("127.0.0.1", port, retries=False)
    forged = {"Host": "api.example.com", "X-User-ID": "admin", "X-Tenant-ID": "everybody"}
    bearer = {"Authorization": f"Bearer {provider.token()}"}
    sent = (
        ("a good token", "/orders/1", {**forged, **bearer}),
        ("no token", "/orders/1", forged),
        ("an expired token", "/orders/1", {**forged, "Authorization": f"Bearer {provider.token(exp=1, iat=0)}"}),
        ("a public path", "/health", {**forged, **bearer}),
    )
    rows = []
    seen: dict[str, tuple[int, dict[str, Any]]] = {}
    for what, path, headers in sent:
        reply = gateway.request("GET", path, headers=headers, redirect=False)
        backend = json.loads(reply.data) if reply.status == 200 else {"headers": {}, "claims": None}
        seen[what] = reply.status, backend
        got = [backend["headers"].get(name) for name in ("x-user-id", "x-tenant-id")]
        rows.append((what, str(reply.status), *got, (backend["claims"] or {}).get("sub")))
    gateway.close()
    stage.table(("request with forged X-User-ID: admin", "status", "X-User-ID", "X-Tenant-ID", "verified sub"), rows)
    good, public = seen["a good token"][1], seen["a public path"][1]
    holds = good["headers"].get("x-user-id") == "alice" and (good["claims"] or {}).get("sub") == "alice"
    stage.check("the backend verified the internal token; the forged headers were replaced", holds=holds, found=good)
    statuses = [seen[what][0] for what in ("no token", "an expired token")]
    stage.check("no token and an expired one are stopped with 401", holds=statuses == [401, 401], found=statuses)
    bare = seen["a public path"][0] == 200 and not {"authorization", "x-user-id", "x-tenant-id"} & set(
        public["headers"]
    )
    stage.check("a public path passes, with neither token nor identity headers", holds=bare, found=public)


def _decoded(token: str) -> dict[str, Any]:
    """The claims of a token, for showing; nothing is verified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def _short(value: str | None, kept: int = 40) -> str | None:
    return value if value is None or len(value) <= 60 else f"{value[:kept]}… ({len(value)} characters)"
