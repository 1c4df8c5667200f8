"""Warnings about likely mistakes: `sts check` prints them, and the configuration is still accepted.

A check here has the form of those in `checks`: it takes the parts of a valid configuration and yields findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sts.clients.access_token import AccessTokenClient
from sts.credentials.kind import SourceSettings
from sts.expressions import ABSENT, EvaluationError, RowsWanted, as_attribute, bind, compile_rule
from sts.jose import EncryptKey, compact, import_encryption_jwk, make_pair
from sts.mint import minter
from sts.mint.minter import sealed
from sts.mint.settings import KeysSettings
from sts.model import Grant
from sts.policy.rules import AUDIENCE_VARIABLES, AudienceRules
from sts.policy.settings import AudienceSettings
from sts.settings.checks import ALL, Check, Parts
from sts.settings.faults import Finding
from sts.settings.model import Settings
from sts.trust.recipients import EncryptionSettings, FileRecipient

TEXT: Final = "x" * 36
"""A sample for unknown texts: as long as a UUID, which most subjects are."""
ROLES: Final = ("xxxxxxxxxxxxxxxxxxxx",) * 5
_NOW: Final = 1_800_000_000
_KID: Final = "x" * 43  # an RFC 7638 thumbprint
_EVIDENCE: Final = {
    "auth_time": _NOW,
    "acr": TEXT,
    "amr": ("pwd", "otp"),
    "evidence": {"iss": TEXT, "jti_hash": "x" * 43},
}
_SIGNATURE_BYTES: Final[Mapping[str, int]] = {"ES256": 64, "ES384": 96, "Ed25519": 64, "RS256": 256, "PS256": 256}


def estimate(parts: Parts | Settings) -> dict[str, int]:
    """Estimate the bytes of a token, for each enabled audience whose rules compile."""
    keys, usual = parts.keys or KeysSettings(), _Usual.of(parts)
    return {
        name: len(_typical(AudienceRules.of(name, audience, keys.algorithm), usual))
        for name, audience in parts.audiences.items()
        if audience.enabled
    }


@dataclass(frozen=True)
class _Usual:
    """What the tokens of all audiences have in common, so that thousands of audiences do not each look for it."""

    issuer: str
    client: str
    subject: str
    route: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, parts: Parts | Settings) -> _Usual:
        namespace = max((source.namespace or "" for source in parts.sources.values()), key=len, default="")
        return cls(
            issuer=parts.issuer or TEXT,
            client=max(parts.clients, key=len, default=TEXT),
            subject=f"{namespace}|{TEXT}" if namespace else TEXT,
            route=max(parts.routes, key=len, default=TEXT),
            attributes={name: TEXT for source in parts.sources.values() for name in source.identity},
        )


def _typical(audience: AudienceRules, usual: _Usual) -> str:
    claims = minter.access_token_claims(_grant(audience, usual), usual.issuer, _NOW, _NOW, "x" * 22)
    header = {"alg": audience.algorithm, "kid": _KID, "typ": audience.settings.typ}
    token = compact(header, claims, lambda _: bytes(_SIGNATURE_BYTES[audience.algorithm]))
    encryption = audience.settings.encryption
    return token if encryption is None else sealed(token, _recipient(encryption))


def _recipient(settings: EncryptionSettings) -> EncryptKey:
    """Return the backend's own key if it is in a file, else a new key of the same kind."""
    if settings.jwks_file is not None:
        return FileRecipient(settings.jwks_file, settings.alg).key(_NOW)
    return import_encryption_jwk(make_pair(settings.alg)[1], settings.alg)


def _grant(audience: AudienceRules, usual: _Usual) -> Grant:
    """Return the grant of a subject with every scope of the audience, for the client with the longest name."""
    scopes = audience.settings.scopes
    return Grant(
        client_id=usual.client,
        subject=usual.subject,
        aud=(audience.aud,),
        scopes=scopes,
        claims=_claims(audience, _variables(usual, scopes or ())),
        headers={},
        evidence=_EVIDENCE if audience.settings.evidence else {},
        act={"sub": usual.client, "iss": usual.issuer},
        typ=audience.settings.typ,
        algorithm=audience.algorithm,
        ttl=audience.settings.ttl,
        not_after=_NOW,
        fresh_until=_NOW,
        min_remaining=0.0,
        max_token_bytes=audience.settings.max_token_bytes,
        keep=False,
    )


def _claims(audience: AudienceRules, variables: Mapping[str, Any]) -> dict[str, Any]:
    scope, found = bind(variables), {}
    for name, rule in audience.claims:
        try:
            value = rule.value(scope)
            found[name] = TEXT if value is ABSENT else as_attribute(value)
        except (EvaluationError, RowsWanted):  # sample values may not fit a rule, and no table is queried
            found[name] = TEXT
    return found


def _variables(usual: _Usual, scopes: tuple[str, ...]) -> dict[str, Any]:
    attributes = usual.attributes | {"subject": usual.subject, "scopes": scopes, "roles": ROLES}
    request = {"method": "DELETE", "host": TEXT, "path": f"/{TEXT}", "scheme": "https", "ip": "255.255.255.255"}
    return {
        "identity": attributes,
        "actor": attributes,
        "client": {"id": usual.client},
        "request": request,
        "route": {"name": usual.route},
        "now": _NOW,
    }


BUFFER: Final = 4096
"""Bytes of one header buffer, the default of gateways (nginx: one memory page)."""
BESIDE: Final = 1024
"""Bytes of an answer's head without the token."""
_SHOWN: Final = 3


def token_sizes(parts: Parts) -> Iterator[Finding]:
    """Warn if a typical token would be refused for its size, or the largest does not fit a gateway's header buffer."""
    for name, typical in estimate(parts).items():
        limit, path = parts.audiences[name].max_token_bytes, ("audiences", name, "max_token_bytes")
        if typical > limit:
            problem = f"a typical token has about {typical} bytes and would be refused: the limit is {limit} bytes"
            yield Finding(
                path, problem, "map fewer or shorter `claims`, or raise it together with the gateway's buffers"
            )
        elif limit > BUFFER - BESIDE:
            problem = (
                f"tokens of up to {limit} bytes do not fit a header buffer of 4 KB, which gateways have by default; "
                f"a typical one has about {typical}"
            )
            hint = "raise the gateway's buffers (nginx: `proxy_buffer_size` of the auth location), or write at most"
            yield Finding(path, problem, f"{hint} {BUFFER - BESIDE}")


def shared_subjects(parts: Parts) -> Iterator[Finding]:
    """Warn if two sources without a namespace reach one audience: the audience cannot separate their subjects."""
    bare = {name: source for name, source in parts.sources.items() if source.enabled and source.namespace == ""}
    for name, source in bare.items():
        for other in [other for other in bare if other > name]:
            together = [one for one in parts.audiences if _reaches(source, one) and _reaches(bare[other], one)]
            if together:
                shown = ", ".join(together[:_SHOWN]) + (", …" if len(together) > _SHOWN else "")
                problem = f"no namespace separates its subjects from those of {other}, at {shown}"
                hint = "`alice` of one is `alice` of the other; write a `namespace` unless that is intended"
                yield Finding(("sources", name, "namespace"), problem, hint)


def unused_sources(parts: Parts) -> Iterator[Finding]:
    """Warn if no client may present credentials of a source: all of them are refused."""
    clients = [client for client in parts.clients.values() if client.enabled]
    listed = {name for client in clients for name in client.sources or (ALL,)}
    proofs = {client.source for client in clients if isinstance(client, AccessTokenClient)}
    for name, source in parts.sources.items():
        if clients and source.enabled and listed.isdisjoint({ALL, name}) and name not in proofs:
            problem = "no client lists it in `sources`: each of its credentials is refused (no_consent)"
            yield Finding(("sources", name), problem, f"add {name} to the `sources` of the clients that present them")


def scopeless_sources(parts: Parts) -> Iterator[Finding]:
    """Warn if a source maps no scopes but every audience it reaches requires some; unmapped scopes count as none."""
    listed = {name for client in parts.clients.values() if client.enabled for name in client.sources or (ALL,)}
    for name, source in parts.sources.items():
        if not source.enabled or "scopes" in source.identity or listed.isdisjoint({ALL, name}):
            continue
        reached = [one for one, audience in parts.audiences.items() if audience.enabled and _reaches(source, one)]
        if reached and all(parts.audiences[one].scopes is not None for one in reached):
            shown = ", ".join(reached[:_SHOWN]) + (", …" if len(reached) > _SHOWN else "")
            problem = f"maps no `scopes`, but its audiences ({shown}) need some: each is refused (insufficient_scope)"
            hint = "map the credential's scopes, such as `claims.scope`, or write the scopes of all its credentials"
            yield Finding(("sources", name, "identity"), problem, hint)


def handed_on(parts: Parts) -> Iterator[Finding]:
    """Warn if a source in a client's `may_present` is missing in its `sources`."""
    for name, client in parts.clients.items():
        listed = client.sources or (ALL,)
        for index, source in enumerate(client.may_present):
            if ALL not in listed and source not in listed:
                problem = "is not one of the client's `sources`: what it presents is refused (no_consent)"
                yield Finding(("clients", name, "may_present", index), problem, "list it there as well")


def actors(parts: Parts) -> Iterator[Finding]:
    """Warn if a client may not use the sources of its actors, or if no rule restricts which actors may act."""
    unread = [name for name, one in parts.audiences.items() if one.enabled and not (one.opa or _reads_actor(one))]
    for name, client in [(name, client) for name, client in parts.clients.items() if client.actors]:
        for index, source in enumerate(client.actors):
            if {ALL, source}.isdisjoint(client.sources or (ALL,)):
                problem = "is not one of the client's `sources`: an actor token of it is refused (no_consent)"
                yield Finding(("clients", name, "actors", index), problem, "list it there as well")
        reached = [one for one in unread if not {ALL, one}.isdisjoint(client.audiences)]
        if reached:
            shown = ", ".join(reached[:_SHOWN]) + (", …" if len(reached) > _SHOWN else "")
            problem = f"any credential of these sources may act for any subject: no `allow` of {shown} reads `actor`"
            hint = "write a rule, such as `allow: \"!has(actor.subject) || actor.subject == 'nightly-job'\"`"
            yield Finding(("clients", name, "actors"), problem, hint)


def _reads_actor(audience: AudienceSettings) -> bool:
    if audience.allow is None:
        return False
    read = compile_rule(audience.allow, AUDIENCE_VARIABLES).reads
    return any(path.partition(".")[0] == "actor" for path in read)


def unread_headers(parts: Parts) -> Iterator[Finding]:
    """Warn about a `certificate_header` without `profile`: only forward-auth reads certificates from headers."""
    for name, client in parts.clients.items():
        if client.certificate_header is not None and client.profile is None:
            hint = "at /token a certificate is a `subject_token`, or comes from one of `proxies`"
            yield Finding(("clients", name, "certificate_header"), "is for forward-auth: `profile` is missing", hint)


def _reaches(source: SourceSettings, audience: str) -> bool:
    return source.audiences is None or not {ALL, audience}.isdisjoint(source.audiences)


CHECKS: Final[tuple[Check, ...]] = (
    *(handed_on, actors, unread_headers, unused_sources, scopeless_sources, shared_subjects, token_sizes),
)
"""The checks of this module, in the order of the sections."""
