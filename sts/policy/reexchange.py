"""Our own tokens as credentials: a backend hands back one that was minted for it, to call the next backend with.

Whatever comes of it only narrows: the identity is what the token says, its scopes are the token's, it ends with the
token, and the source that the token was once made from must list the new audience, as if its credential had come.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sts.errors import NO_MAPPING, Refusal
from sts.expressions import EvaluationError, as_attribute
from sts.jose import text_or_texts
from sts.model import NOT_APPLICABLE, Admitted, Identity, Principal
from sts.policy.consent import Target
from sts.policy.rules import AudienceRules

OWN: Final = "own"
"""The kind of a credential that is a token of ours."""

_PLAIN: Final = re.compile(r"identity\.([A-Za-z_][A-Za-z0-9_]*)")


def source_of(admitted: Admitted, target: Target) -> str | None:
    """The `src` of the minted token: the source, where a backend of the target may exchange the token again.

    None also for a credential that says more than its source about where it leads, which nobody could hold a token of
    ours to: with a `may_act` (RFC 8693 §4.4), or with audiences of its own; and with an actor of another source or with
    audiences of its own, whose consent would be asked no more.
    """
    principal, actor = admitted.principal, admitted.actor
    if principal.may_act not in (None, NOT_APPLICABLE) or principal.reach is not NOT_APPLICABLE:
        return None
    if actor is not None and actor.source != principal.source:
        return None
    return principal.source if any(audience.backend for audience in target.audiences) else None


def mapping_of(audiences: Sequence[AudienceRules]) -> str:
    """The mapping of a token's claims, `aud_map`: that of each of its audiences, in the order of its `aud`."""
    return ".".join([audience.mapping for audience in audiences])


def identity_again(admitted: Admitted, by_aud: Mapping[str, AudienceRules]) -> Identity:
    """Read the identity back from a token of ours, whose claims are proven.

    Subject and scopes are the token's. Of its other claims only those are attributes again that its audience maps from
    exactly one attribute: what a rule has changed or made up for one backend means nothing to another.

    Raises NO_MAPPING for a token that another mapping has written, before a reload or on a replica with another
    configuration: by the names of this one a tenant called "admin" could be read as a role. One that does not say
    which mapping wrote it is refused as well.
    """
    claims = admitted.principal.attributes
    audiences = [by_aud[aud] for aud in text_or_texts(claims["aud"], "aud")]
    if claims.get("aud_map") != mapping_of(audiences):
        raise Refusal(NO_MAPPING, why="the token was minted under another `claims` mapping of its audience")
    subject, scopes = claims["sub"], tuple(str(claims.get("scope", "")).split())
    attributes: dict[str, Any] = {}
    for name, rule in [one for audience in audiences for one in audience.claims]:
        plain = _PLAIN.fullmatch(rule.text.strip())
        if plain and name in claims:
            attributes[plain[1]] = _attribute(name, claims[name])
    attributes |= {"subject": subject, "scopes": scopes}
    return Identity(subject=subject, scopes=scopes, attributes=attributes)


def _attribute(name: str, value: object) -> object:
    try:
        return as_attribute(value)
    except EvaluationError as error:
        raise Refusal(NO_MAPPING, attribute=name, why=str(error)) from None


EVIDENCE: Final = "evidence"
_LOGIN: Final = ("auth_time", "acr", "amr")
_UNKNOWN: Final = (None, NOT_APPLICABLE)


def evidence(principal: Principal) -> dict[str, Any]:
    """The claims `auth_time`, `acr`, `amr`, and `evidence` with `iss` and `jti_hash`: what is known of them, no more.

    They are the proven credential's own, never refreshed and never mapped: an exchange is no login. `jti_hash` is
    base64url(SHA-256(jti)), by which the issuer finds its token again and nobody else learns its name. Raises
    NO_MAPPING for an `acr` that is no text and an `amr` that is no list of texts: to leave it out would be to say that
    nothing was known.
    """
    if principal.kind == OWN:
        return _of_the_first_token(principal.attributes)
    acr, amr = principal.acr, principal.amr
    if acr not in _UNKNOWN and not isinstance(acr, str):
        raise Refusal(NO_MAPPING, attribute="acr", why="the credential's `acr` is no text")
    if amr not in _UNKNOWN and not (isinstance(amr, list) and all(isinstance(one, str) for one in amr)):
        raise Refusal(NO_MAPPING, attribute="amr", why="the credential's `amr` is no list of texts")
    jti = principal.jti
    token = {"iss": principal.issuer, "jti_hash": _hash(jti) if isinstance(jti, str) else None}
    return _known({"auth_time": principal.auth_time, "acr": acr, "amr": amr, EVIDENCE: _known(token)})


def _of_the_first_token(claims: Mapping[str, Any]) -> dict[str, Any]:
    """What one of our own tokens was told when it was minted.

    One that was told nothing may have claims of the same names from a mapping: those are no evidence.
    """
    if EVIDENCE not in claims:
        return {EVIDENCE: {}}
    return {name: claims[name] for name in (*_LOGIN, EVIDENCE) if name in claims}


def _known(facts: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in _UNKNOWN}


def _hash(jti: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(jti.encode()).digest()).rstrip(b"=").decode()
