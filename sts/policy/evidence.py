"""When and how the third party saw the user, for a backend that wants to demand recency itself (RFC 9068 §2.2.1)."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from sts.errors import NO_MAPPING, Refusal
from sts.model import NOT_APPLICABLE, Principal
from sts.policy.own import OWN

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
