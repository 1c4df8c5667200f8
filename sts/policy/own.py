"""Our own tokens as credentials: a backend hands back one that was minted for it, to call the next backend with.

Whatever comes of it only narrows: the identity is what the token says, its scopes are the token's, it ends with the
token, and the source that the token was once made from must list the new audience, as if its credential had come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sts.errors import NO_MAPPING, Refusal
from sts.expressions import EvaluationError, as_attribute
from sts.model import NOT_APPLICABLE, Admitted, Identity
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


def identity_again(admitted: Admitted, by_aud: Mapping[str, AudienceRules]) -> Identity:
    """Read the identity back from a token of ours, whose claims are proven.

    Subject and scopes are the token's. Of its other claims only those are attributes again that its audience maps from
    exactly one attribute: what a rule has changed or made up for one backend means nothing to another.
    """
    claims = admitted.principal.attributes
    subject, scopes = claims["sub"], tuple(str(claims.get("scope", "")).split())
    attributes: dict[str, Any] = {}
    for aud in [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]:
        for name, rule in by_aud[aud].claims if aud in by_aud else ():
            plain = _PLAIN.fullmatch(rule.text.strip())
            if plain and name in claims:
                attributes[plain[1]] = _attribute(name, claims[name])
    attributes |= {"subject": subject, "scopes": scopes}
    return Identity(subject=subject, scopes=scopes, attributes=attributes)


def _attribute(name: str, value: object) -> object:
    try:
        return as_attribute(value)
    except EvaluationError as error:  # the rule was another one when the token was minted
        raise Refusal(NO_MAPPING, attribute=name, why=str(error)) from None
