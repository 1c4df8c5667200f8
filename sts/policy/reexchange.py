"""Our own tokens as credentials: a backend presents one that was minted for it, to call the next backend.

The exchange only narrows: identity and scopes are the token's, the new token ends with the old one, and the source of
the first credential must list the new audience.
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
"""The kind of a credential that is one of our own tokens."""

_PLAIN: Final = re.compile(r"identity\.([A-Za-z_][A-Za-z0-9_]*)")


def source_of(admitted: Admitted, target: Target) -> str | None:
    """Return the `src` of the minted token: the source, if a backend of the target may exchange the token again.

    Returns None if a later exchange could not check a limit of the credential: it has a `may_act` (RFC 8693 §4.4), or
    audiences of its own. Also returns None for an actor of another source, or one with audiences of its own: that
    source's consent would not be checked again.
    """
    principal, actor = admitted.principal, admitted.actor
    if principal.may_act not in (None, NOT_APPLICABLE) or principal.reach is not NOT_APPLICABLE:
        return None
    if actor is not None and actor.source != principal.source:
        return None
    return principal.source if any(audience.backend for audience in target.audiences) else None


def mapping_of(audiences: Sequence[AudienceRules]) -> str:
    """Return the token's `aud_map`: the mappings of its audiences, in the order of its `aud`."""
    return ".".join([audience.mapping for audience in audiences])


def identity_again(admitted: Admitted, by_aud: Mapping[str, AudienceRules]) -> Identity:
    """Restore the identity from one of our own tokens, whose claims are proven.

    Subject and scopes are the token's. Of the other claims, only those become attributes that the audience maps from
    exactly one attribute: a value that a rule has changed for one backend has no meaning for another.

    Raises NO_MAPPING for a token of another mapping, from before a reload or from a replica with another configuration:
    with the names of the present mapping, a tenant called "admin" could be read as a role. A token without `aud_map` is
    refused too.
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
    """Return the claims `auth_time`, `acr`, `amr`, and `evidence` with `iss` and `jti_hash`; unknown ones are left out.

    They are the proven credential's own, never refreshed and never mapped: an exchange is not a login. `jti_hash` is
    base64url(SHA-256(jti)): the issuer can find its token with it, and no other reader learns the `jti`. Raises
    NO_MAPPING for an `acr` that is not a text and an `amr` that is not a list of texts: to leave it out would mean that
    it was not known.
    """
    if principal.kind == OWN:
        return _of_the_first_token(principal.attributes)
    acr, amr = principal.acr, principal.amr
    if acr not in _UNKNOWN and not isinstance(acr, str):
        raise Refusal(NO_MAPPING, attribute="acr", why="the credential's `acr` is not a text")
    if amr not in _UNKNOWN and not (isinstance(amr, list) and all(isinstance(one, str) for one in amr)):
        raise Refusal(NO_MAPPING, attribute="amr", why="the credential's `amr` is not a list of texts")
    jti = principal.jti
    token = {"iss": principal.issuer, "jti_hash": _hash(jti) if isinstance(jti, str) else None}
    return _known({"auth_time": principal.auth_time, "acr": acr, "amr": amr, EVIDENCE: _known(token)})


def _of_the_first_token(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evidence that one of our own tokens contains.

    A token without `evidence` may have claims of the same names from a mapping; those are not evidence.
    """
    if EVIDENCE not in claims:
        return {EVIDENCE: {}}
    return {name: claims[name] for name in (*_LOGIN, EVIDENCE) if name in claims}


def _known(facts: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value not in _UNKNOWN}


def _hash(jti: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(jti.encode()).digest()).rstrip(b"=").decode()
