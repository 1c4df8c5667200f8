"""The three-part consent: the client lists the audience, the source lists the audience, the client lists the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sts.errors import AUDIENCE_MISSING, NO_CONSENT, Refusal
from sts.model import Ask, Client, NotApplicable, Presented, Principal
from sts.policy.rules import ALL, AudienceRules, SourceRules


@dataclass(frozen=True, slots=True)
class Target:
    """The audiences of one request, at least one."""

    audiences: tuple[AudienceRules, ...]


@dataclass(frozen=True, slots=True)
class Consent:
    """The enabled audiences by name and by `aud`, and the enabled sources."""

    audiences: Mapping[str, AudienceRules]
    by_aud: Mapping[str, AudienceRules]
    sources: Mapping[str, SourceRules]

    def target(self, client: Client, ask: Ask) -> Target:
        """Return the audiences that the client requests (RFC 8693 §2.1, RFC 8707 §2).

        `audience` is looked up by name, `resource` by `aud`.

        Raises NO_CONSENT for an audience that the client may not request; the error is the same for an unknown and a
        disabled audience, so that a client cannot enumerate them. Raises AUDIENCE_MISSING if the request names none and
        the client has no default.
        """
        named = [self.audiences.get(name) for name in ask.audiences] + [self.by_aud.get(aud) for aud in ask.resources]
        if not named:
            if client.default_audience is None:
                raise Refusal(AUDIENCE_MISSING, why="no audience requested, and the client has no default_audience")
            named = [self.audiences.get(client.default_audience)]
        found: dict[str, AudienceRules] = {}
        for audience in named:
            if audience is None:
                raise Refusal(NO_CONSENT, why="no such audience, or it is disabled")
            if ALL not in client.audiences and audience.name not in client.audiences:
                raise Refusal(NO_CONSENT, why="the client does not list the audience", audience=audience.name)
            found[audience.name] = audience
        target = Target(tuple(found.values()))
        if len(found) > 1:
            _check_multi(target)
        return target

    def check(self, client: Client, presented: Presented, target: Target) -> None:
        """Check the second and third part of the consent. Raises NO_CONSENT.

        One of our own tokens is presented by the backend for which it was minted; being that backend replaces listing
        the source. The source's own consent is checked for the token's first source, so that a backend cannot be used
        to reach an audience that this source does not list.
        """
        source = presented.source
        if presented.minted_for is not None:
            if not {one.name for one in self.minted_for([presented])} <= client.backend_of:
                raise Refusal(NO_CONSENT, why="the client is not the backend that the token was minted for")
        elif ALL not in client.sources and source not in client.sources:
            raise Refusal(NO_CONSENT, why="the client does not list the source", source=source)
        allowed = self.sources[source].audiences
        for audience in target.audiences:
            if ALL not in allowed and audience.name not in allowed:
                raise Refusal(NO_CONSENT, why="the source does not list the audience", audience=audience.name)

    def minted_for(self, presented: Sequence[Presented]) -> list[AudienceRules]:
        """Return the audiences of our own tokens in `presented`. Raises NO_CONSENT if one is missing or disabled."""
        found = []
        for aud in [aud for one in presented for aud in one.minted_for or ()]:
            audience = self.by_aud.get(aud)
            if audience is None:
                raise Refusal(NO_CONSENT, why="the audience of the presented token is missing or disabled")
            found.append(audience)
        return found


def within_reach(principal: Principal, target: Target) -> None:
    """Check that a credential with a list of audiences, such as an API key, reaches no others. Raises NO_CONSENT."""
    if isinstance(principal.reach, NotApplicable):
        return
    for audience in target.audiences:
        if audience.name not in principal.reach:
            raise Refusal(NO_CONSENT, why="the credential does not list the audience", audience=audience.name)


def _check_multi(target: Target) -> None:
    """Allow several audiences in one token only if each agrees: one backend can use the token at the other."""
    first, *others = target.audiences
    for audience in target.audiences:
        if not audience.settings.multi:
            raise Refusal(NO_CONSENT, why="the audience does not have `multi: true`", audience=audience.name)
    for other in others:
        same = (
            other.settings.format == first.settings.format
            and other.settings.encryption == first.settings.encryption
            and other.settings.evidence == first.settings.evidence
            and other.scopes == first.scopes
            and other.algorithm == first.algorithm
            and other.settings.typ == first.settings.typ
        )
        if not same:
            raise Refusal(NO_CONSENT, why="the audiences need different tokens", audience=other.name)
