"""Source type `introspection`: an opaque token that its issuing server verifies (RFC 7662)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from sts.credentials.introspected import Answers, check_answer, parse
from sts.credentials.kind import Clash, Services, ShortText, SomeNames, SourceSettings
from sts.errors import MALFORMED, REVOKED, TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.jose import looks_signed, text_or_texts
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, Credential, Limits, Presented, Principal
from sts.options import Duration, KeptConfigFile, SecretText, Section, file_faults
from sts.trust.fetch import OutboundUrl, read_ca
from sts.trust.introspection import Introspection, Server

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

    credential_types: ClassVar[frozenset[str]] = frozenset({TYPE_ACCESS_TOKEN})
    prefix_path: ClassVar[tuple[str, ...]] = ("match", "prefix")

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

    def clash(self, other: Self) -> Clash | None:
        """Check that at most one source has no `match`: each opaque token belongs to one source (IN-06)."""
        if self.match is not None or other.match is not None:
            return None
        hint = "only one introspection source may have no `match`; it takes the tokens that match no other prefix"
        return Clash("match", "must be written, since {other} has none either", hint)

    def credential_prefix(self) -> str | None:
        """Return how its tokens begin, None where no `match` says it."""
        return None if self.match is None else self.match.prefix

    def asks(self, name: str) -> tuple[Server, float]:
        """Return its server, and `cache_ttl`."""
        return self.server(name), self.cache_ttl

    def build(self, name: str, services: Services) -> IntrospectionSource:
        """Return the source `name`; its cached responses survive a reload."""
        return IntrospectionSource(name, self, *services.introspections.of(*self.asks(name)))

    @classmethod
    def reader(cls, sources: Iterable[Any], elsewhere: Iterable[str], services: Services) -> IntrospectionKind:  # noqa: ARG003
        """Return the kind over these `IntrospectionSource`s."""
        return IntrospectionKind(sources, elsewhere)

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

    token_types = IntrospectionSourceSettings.credential_types

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
