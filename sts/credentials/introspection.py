"""Source type `introspection`: an opaque token, proven by asking the server that issued it (RFC 7662)."""

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
"""Characters of an opaque token."""

_JWE_DOTS: Final = 4
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token (RFC 6750 §2.1)

Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+/-]{1,64}$")]
"""How the tokens of one server begin; characters of a Bearer token (RFC 6750 §2.1)."""


class Match(Section):
    """Which opaque tokens are a source's."""

    prefix: Prefix
    """How its tokens begin."""


class IntrospectionSourceSettings(SourceSettings):
    """A server that issues opaque tokens and says what they mean."""

    type: Literal["introspection"]
    """An opaque token, introspected (RFC 7662)."""
    endpoint: OutboundUrl
    """The server's introspection endpoint."""
    client_id: ShortText
    """As whom this service authenticates there, with HTTP Basic."""
    client_secret: SecretText
    """The secret for it: `{env: NAME}` or `{file: PATH}`."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that the server's https is checked against, instead of the system's."""
    issuer: ShortText | None = None
    """The server's issuer identifier: an answer that names another `iss` is refused."""
    audience: SomeNames | None = None
    """What the answer's `aud` must be: any of these."""
    filters_by_caller: bool = False
    """`true`, instead of `audience`: the server says `active` only of tokens that are meant for us."""
    match: Match | None = None
    """Which opaque tokens are asked about there; one introspection source may go without."""
    cache_ttl: Annotated[Duration, Field(ge=0, le=3600)] = 30.0
    """How long an answer is believed, and so how long a revocation there may take to be felt; never past `exp`."""
    high_entropy: bool = False
    """Said in writing where its tokens hold 128 random bits or more: only then the shared cache may keep them."""

    @model_validator(mode="after")
    def _meant_for_us(self) -> Self:
        if (self.audience is not None) == self.filters_by_caller:
            raise ValueError("write either `audience` or `filters_by_caller: true`")
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """As SourceSettings says."""
        yield from file_faults("ca_file", self.ca_file, read_ca)

    def server(self, name: str) -> Server:
        """Whom this source asks; `name` is the source's. Raises StartError if its CA file cannot be used."""
        return Server(
            source=name,
            endpoint=self.endpoint,
            client_id=self.client_id,
            client_secret=self.client_secret.get_secret_value(),
            ca=None if self.ca_file is None else read_ca(self.ca_file),
        )


class IntrospectionSource:
    """A `Source`: proves opaque tokens by asking the server that issued them."""

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
        """As Source says."""
        return self._server.trouble

    def prove(self, presented: Presented, now: float) -> Principal:
        """Ask what the token means, unless that is known, and report what the server says; may wait.

        Raises REVOKED for a token that is not active, for whatever reason: the server does not say (RFC 7662 §2.2);
        SOURCE_UNREACHABLE where there is no answer. This proves that the server vouches for these facts now. Whether
        they are meant for us, alive and fresh is for `admit`.
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
            # Never the answer's own `iss` by itself: any server could call itself any issuer.
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

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - as Source says
        """As Source says: its server is asked."""
        return False

    def key_current(self, proof_key: str) -> bool:  # noqa: ARG002 - there are no keys
        """As Source says: no key ever proved a token here."""
        return False


class IntrospectionKind:
    """A `Kind` over all enabled sources of type `introspection`.

    `elsewhere` are prefixes of credentials that are no source's of these: those of disabled ones, and of API keys. They
    are refused, so that nothing of theirs is ever sent to the source without a prefix (IN-06).
    """

    token_types = frozenset({TYPE_ACCESS_TOKEN})

    def __init__(self, sources: Iterable[IntrospectionSource], elsewhere: Iterable[str] = ()) -> None:
        by_prefix = {source.prefix: source for source in sources}
        self._rest = by_prefix.pop("", None)
        self._by_prefix = tuple(by_prefix.items())
        self._elsewhere = tuple(elsewhere)

    def recognise(self, credential: Credential) -> Presented | None:
        """As Kind says. The one source is found by how the token begins; nothing is ever tried at several.

        What cannot be a Bearer token is refused here, so that it never leaves (IN-07).
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
            raise Refusal(MALFORMED, why="it begins like a JWS and is none")  # a damaged one is somebody's all the same
        return Presented(KIND, source.name, credential.token_type, token)


def tell(source: str, outcome: str, why: str) -> None:
    """Tell of a question about an opaque token: counted, and logged where there was no answer.

    That a server refuses our own credentials is an alarm: nothing but an operator mends it. The pause after failures
    keeps it from being told at each request.
    """
    metrics.introspected(source, outcome)
    if outcome == UNAUTHORIZED:
        log.error("introspection server", source=source, why=why)
    elif why:
        log.warning("introspection server", source=source, why=why)


@dataclass(slots=True)
class Introspections:
    """Puts sources to work, and keeps what is known as long as nothing that shapes an answer has changed.

    A reload must neither ask about every token anew nor forget that a server is down. `max_waiters` is how many
    requests may be under way at one server, `all_waiters` what all of them share with others; `notice` hears of every
    question.
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
        """The kind, and its enabled sources by name, out of all configured `sources`; asks nobody yet."""
        settings = {name: one for name, one in sources.items() if isinstance(one, IntrospectionSourceSettings)}
        wanted = _wanted(settings)
        self._known.update({key: self._make(*key) for key in wanted.values() if key not in self._known})
        found = {name: IntrospectionSource(name, settings[name], *self._known[key]) for name, key in wanted.items()}
        know_prefixes(prefixes(sources))
        keys = [one.prefix for one in sources.values() if isinstance(one, ApiKeySourceSettings)]
        disabled = [one.match.prefix for one in settings.values() if one.match is not None and not one.enabled]
        return IntrospectionKind(found.values(), (*keys, *disabled)), found

    def keep(self, sources: Mapping[str, SourceSettings]) -> None:
        """Forget what is known of all but the enabled ones of these `sources`; their connections are closed."""
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
    """How credentials of these sources begin, where that is written: those of disabled ones are no less secret."""
    for one in sources.values():
        if isinstance(one, ApiKeySourceSettings):
            yield one.prefix
        elif isinstance(one, IntrospectionSourceSettings) and one.match is not None:
            yield one.match.prefix


def _wanted(sources: Mapping[str, SourceSettings]) -> dict[str, tuple[Server, float]]:
    """The enabled sources, each with what shapes its answers."""
    return {
        name: (one.server(name), one.cache_ttl)
        for name, one in sources.items()
        if isinstance(one, IntrospectionSourceSettings) and one.enabled
    }
