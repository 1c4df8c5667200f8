"""Source type `introspection`: an opaque token that its issuing server verifies (RFC 7662)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from sts.credentials.api_key import ApiKeySourceSettings
from sts.credentials.introspected import Answers, Stores, check_answer, parse
from sts.credentials.kind import ShortText, SomeNames, SourceSettings
from sts.errors import MALFORMED, REVOKED, TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.jose import looks_signed, text_or_texts
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, Credential, Limits, Presented, Principal
from sts.options import Duration, KeptConfigFile, SecretText, Section, file_faults
from sts.resilience.bulkhead import Bulkhead
from sts.telemetry import know_prefixes, log, metrics
from sts.trust.fetch import OutboundUrl, read_ca
from sts.trust.introspection import UNAUTHORIZED, Introspection, Notice, Server

KIND: Final = "introspection"
MAX_TOKEN: Final = 8192
"""The maximum length of an opaque token, in characters."""

_JWE_DOTS: Final = 4
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token (RFC 6750 §2.1)

Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+/-]{1,64}$")]
"""The prefix of the tokens of one server; characters of a Bearer token (RFC 6750 §2.1)."""


class Match(Section):
    """Which opaque tokens belong to a source."""

    prefix: Prefix
    """The prefix of its tokens."""


class IntrospectionSourceSettings(SourceSettings):
    """A server that issues opaque tokens and introspects them."""

    type: Literal["introspection"]
    """An opaque token, introspected (RFC 7662)."""
    endpoint: OutboundUrl
    """The server's introspection endpoint."""
    client_id: ShortText
    """The client id of this service at that server, for HTTP Basic."""
    client_secret: SecretText
    """The secret of that client id: `{env: NAME}` or `{file: PATH}`."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that verify the server's https, instead of the system's CAs."""
    issuer: ShortText | None = None
    """The server's issuer identifier: a response with another `iss` is refused."""
    audience: SomeNames | None = None
    """The accepted values of `aud` in the response: any of these."""
    filters_by_caller: bool = False
    """`true`, instead of `audience`: the server reports `active` only for tokens that are meant for this service."""
    match: Match | None = None
    """Which opaque tokens are sent to this server; one introspection source may omit it."""
    cache_ttl: Annotated[Duration, Field(ge=0, le=3600)] = 30.0
    """How long a response is cached, and so how long a revocation may take to apply; never beyond `exp`."""
    high_entropy: bool = False
    """`true` confirms that its tokens have 128 random bits or more. The shared cache keeps them only then."""

    @model_validator(mode="after")
    def _meant_for_us(self) -> Self:
        if (self.audience is not None) == self.filters_by_caller:
            raise ValueError("write either `audience` or `filters_by_caller: true`")
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("ca_file", self.ca_file, read_ca)

    def server(self, name: str) -> Server:
        """Return the server of the source `name`. Raises StartError if its CA file cannot be used."""
        return Server(
            source=name,
            endpoint=self.endpoint,
            client_id=self.client_id,
            client_secret=self.client_secret.get_secret_value(),
            ca=None if self.ca_file is None else read_ca(self.ca_file),
        )


class IntrospectionSource:
    """A `Source`: proves opaque tokens by introspection at the issuing server."""

    def __init__(
        self, name: str, settings: IntrospectionSourceSettings, server: Introspection, answers: Answers
    ) -> None:
        self.name = name
        self.prefix = "" if settings.match is None else settings.match.prefix
        self.limits = Limits(audiences=frozenset(settings.audience or ()))
        self._issuer = settings.issuer
        self._filters_by_caller = settings.filters_by_caller
        self._server, self._answers = server, answers

    @property
    def trouble(self) -> str:
        """Why the last introspection request failed, "" if it succeeded; for operators."""
        return self._server.trouble

    def prove(self, presented: Presented, now: float) -> Principal:
        """Introspect the token, unless a response is cached, and return the facts of the response. May wait.

        This proves that the server confirms these facts now. `admit` decides whether the token is for us, unexpired and
        fresh.

        Raises:
            REVOKED: The token is not active; the server does not give the reason (RFC 7662 §2.2).
            SOURCE_UNREACHABLE: The server did not answer, or its response is invalid.
            UNKNOWN_ISSUER: The response has another `iss`.
            MALFORMED, BAD_TYPE: See `check_answer`.
        """
        known = self._answers.about(presented.unverified, now)
        if not known.body:
            raise Refusal(REVOKED, why="the server says that the token is not active")
        claims = parse(known.body)
        check_answer(claims)
        if self._issuer is not None and claims.get("iss", self._issuer) != self._issuer:
            raise Refusal(UNKNOWN_ISSUER, why="the answer names another iss than the source's issuer")
        del claims["active"]
        return Principal(
            kind=KIND,
            source=self.name,
            # Not the `iss` of the response: any server could claim to be any issuer.
            issuer=NOT_APPLICABLE if self._issuer is None else self._issuer,
            subject=claims.get("sub"),
            audience=NOT_APPLICABLE if self._filters_by_caller else text_or_texts(claims.get("aud", []), "aud"),
            reach=NOT_APPLICABLE,
            expires_at=claims.get("exp", NOT_APPLICABLE),
            not_before=claims.get("nbf"),
            issued_at=claims.get("iat"),
            since=claims.get("iat"),
            auth_time=claims.get("auth_time"),
            fresh_until=known.until,
            confirmation=claims.get("cnf"),
            act=claims.get("act"),
            may_act=claims.get("may_act"),
            acr=claims.get("acr"),
            amr=claims.get("amr"),
            jti=claims.get("jti"),
            proof_key=NOT_APPLICABLE,
            attributes=claims,
        )

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - the signature of Source
        """Return False: `prove` may wait for the server."""
        return False

    def key_current(self, proof_key: str) -> bool:  # noqa: ARG002 - there are no keys
        """Return False: no key proves an opaque token."""
        return False


class IntrospectionKind:
    """A `Kind` over all enabled sources of type `introspection`.

    `elsewhere` are the prefixes of credentials that belong to none of these sources: those of disabled sources, and of
    API keys. Such credentials are refused, so that they are never sent to the source without a prefix (IN-06).
    """

    token_types = frozenset({TYPE_ACCESS_TOKEN})

    def __init__(self, sources: Iterable[IntrospectionSource], elsewhere: Iterable[str] = ()) -> None:
        by_prefix = {source.prefix: source for source in sources}
        self._rest = by_prefix.pop("", None)
        self._by_prefix = tuple(by_prefix.items())
        self._elsewhere = tuple(elsewhere)

    def recognise(self, credential: Credential) -> Presented | None:
        """Find the one source by the prefix of the token; a token is never tried at several sources.

        A text that cannot be a Bearer token is refused here, so that it is never sent to a server (IN-07). Raises
        UNKNOWN_ISSUER, TOO_LARGE or MALFORMED.
        """
        token = credential.value
        if token.startswith(self._elsewhere):
            raise Refusal(UNKNOWN_ISSUER, why="the prefix is that of another kind, or of a disabled source")
        found = (source for prefix, source in self._by_prefix if token.startswith(prefix))
        source = next(found, self._rest)
        if source is None:
            return None
        if len(token) > MAX_TOKEN:
            raise Refusal(TOO_LARGE, why="the token is too long", limit=MAX_TOKEN)
        if not _TOKEN.fullmatch(token):
            raise Refusal(MALFORMED, why="it has characters that no Bearer token has")
        head, *parts = token.split(".")
        if parts and len(parts) != _JWE_DOTS and looks_signed(head + ".."):
            raise Refusal(MALFORMED, why="it begins like a JWS and is none")  # it must not leak to a server
        return Presented(KIND, source.name, credential.token_type, token)


def tell(source: str, outcome: str, why: str) -> None:
    """Count the outcome of an introspection request, and log a failure.

    A server that refuses our own credentials is logged as an error: only an operator can repair that. The pause after
    failures prevents a log line per request.

    Args:
        source: The name of the source.
        outcome: The outcome, as in the metric.
        why: The reason of a failure, else "".
    """
    metrics.introspected(source, outcome)
    if outcome == UNAUTHORIZED:
        log.error("introspection server", source=source, why=why)
    elif why:
        log.warning("introspection server", source=source, why=why)


@dataclass(slots=True)
class Introspections:
    """Builds the sources, and keeps cached responses while the settings that determine a response are unchanged.

    A reload must neither introspect every token again nor forget that a server is down. `max_waiters` limits the
    requests in progress at one server, `all_waiters` those of all servers together. `notice` is called for every
    request.
    """

    monotonic: Callable[[], float]
    stores: Stores
    max_waiters: int
    all_waiters: Bulkhead | None = None
    notice: Notice = lambda _source, _outcome, _why: None
    _known: dict[tuple[Server, float], tuple[Introspection, Answers]] = field(default_factory=dict, repr=False)

    def at_work(
        self, sources: Mapping[str, SourceSettings]
    ) -> tuple[IntrospectionKind, dict[str, IntrospectionSource]]:
        """Return the kind and its enabled sources by name, from all configured `sources`; sends no request."""
        settings = {name: one for name, one in sources.items() if isinstance(one, IntrospectionSourceSettings)}
        wanted = _wanted(settings)
        self._known.update({key: self._make(*key) for key in wanted.values() if key not in self._known})
        found = {name: IntrospectionSource(name, settings[name], *self._known[key]) for name, key in wanted.items()}
        know_prefixes(prefixes(sources))
        keys = [one.prefix for one in sources.values() if isinstance(one, ApiKeySourceSettings)]
        disabled = [one.match.prefix for one in settings.values() if one.match is not None and not one.enabled]
        return IntrospectionKind(found.values(), (*keys, *disabled)), found

    def keep(self, sources: Mapping[str, SourceSettings]) -> None:
        """Drop the responses and close the connections of all servers except those of the enabled `sources`."""
        for key in self._known.keys() - _wanted(sources).values():
            self._known.pop(key)[0].close()

    def _make(self, server: Server, ttl: float) -> tuple[Introspection, Answers]:
        asked = Introspection(
            server,
            self.monotonic,
            max_waiters=self.max_waiters,
            all_waiters=self.all_waiters,
            notice=self.notice,
        )
        return asked, Answers(
            asked.ask, ttl, self.stores, lambda outcome: self.notice(server.source, outcome, ""), asked.place
        )


def prefixes(sources: Mapping[str, SourceSettings]) -> Iterator[str]:
    """Yield the configured prefixes of the credentials, also of disabled sources: their credentials are secret, too."""
    for one in sources.values():
        if isinstance(one, ApiKeySourceSettings):
            yield one.prefix
        elif isinstance(one, IntrospectionSourceSettings) and one.match is not None:
            yield one.match.prefix


def _wanted(sources: Mapping[str, SourceSettings]) -> dict[str, tuple[Server, float]]:
    """Return the enabled sources, each with the settings that determine its responses."""
    return {
        name: (one.server(name), one.cache_ttl)
        for name, one in sources.items()
        if isinstance(one, IntrospectionSourceSettings) and one.enabled
    }
