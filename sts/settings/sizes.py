"""How large the tokens of each audience are likely to be, from its settings and made-up, typical values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sts.expressions import ABSENT, EvaluationError, RowsWanted, as_attribute, bind
from sts.jose import EncryptKey, compact, import_encryption_jwk, make_pair
from sts.mint import access_token
from sts.mint.encrypted import sealed
from sts.mint.settings import KeysSettings
from sts.model import Grant
from sts.policy.rules import AudienceRules
from sts.settings.checks import Parts
from sts.settings.model import Settings
from sts.trust.recipients import EncryptionSettings, FileRecipient

TEXT: Final = "x" * 36
"""What is not known otherwise: as long as a UUID, which most subjects are."""
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
    """About how many bytes a token has, for each enabled audience whose rules compile."""
    keys = parts.keys or KeysSettings()
    return {
        name: len(_typical(AudienceRules.of(name, audience, keys.algorithm), parts))
        for name, audience in parts.audiences.items()
        if audience.enabled
    }


def _typical(audience: AudienceRules, parts: Parts | Settings) -> str:
    issuer = parts.issuer or TEXT
    claims = access_token.claims(_grant(audience, parts, issuer), issuer, _NOW, _NOW, "x" * 22)
    header = {"alg": audience.algorithm, "kid": _KID, "typ": audience.settings.typ}
    token = compact(header, claims, lambda _: bytes(_SIGNATURE_BYTES[audience.algorithm]))
    encryption = audience.settings.encryption
    return token if encryption is None else sealed(token, _recipient(encryption))


def _recipient(settings: EncryptionSettings) -> EncryptKey:
    """The backend's own key where it is at hand, else one like it."""
    if settings.jwks_file is not None:
        return FileRecipient(settings.jwks_file, settings.alg).key(_NOW)
    return import_encryption_jwk(make_pair(settings.alg)[1], settings.alg)


def _grant(audience: AudienceRules, parts: Parts | Settings, issuer: str) -> Grant:
    """The decision for somebody with every scope of the audience, asked for by the client with the longest name."""
    client = max(parts.clients, key=len, default=TEXT)
    namespace = max((source.namespace or "" for source in parts.sources.values()), key=len, default="")
    subject = f"{namespace}|{TEXT}" if namespace else TEXT
    scopes = audience.settings.scopes
    return Grant(
        client_id=client,
        subject=subject,
        aud=(audience.aud,),
        scopes=scopes,
        claims=_claims(audience, _variables(parts, client, subject, scopes or ())),
        headers={},
        evidence=_EVIDENCE if audience.settings.evidence else {},
        act={"sub": client, "iss": issuer},
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
        except (EvaluationError, RowsWanted):  # made-up values need not fit, and nobody is asked for a row
            found[name] = TEXT
    return found


def _variables(parts: Parts | Settings, client: str, subject: str, scopes: tuple[str, ...]) -> dict[str, Any]:
    attributes: dict[str, Any] = {name: TEXT for source in parts.sources.values() for name in source.identity}
    attributes.update(subject=subject, scopes=scopes, roles=ROLES)
    request = {"method": "DELETE", "host": TEXT, "path": f"/{TEXT}", "scheme": "https", "ip": "255.255.255.255"}
    return {
        "identity": attributes,
        "client": {"id": client},
        "request": request,
        "route": {"name": max(parts.routes, key=len, default=TEXT)},
        "now": _NOW,
    }
