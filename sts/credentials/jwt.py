"""Source type `jwt`: a signed JWT of a configured issuer, found by its exact `iss` and verified with its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from sts.credentials.kind import Services, ShortText, SomeNames, Source, SourceSettings
from sts.errors import AUDIENCE_MISMATCH, BAD_ALGORITHM, BAD_TYPE, EXPIRED, MALFORMED, UNKNOWN_ISSUER, Refusal
from sts.jose import Algorithm, Compact, looks_signed, media_type, parse, text_or_texts, verify
from sts.model import (
    NOT_APPLICABLE,
    TYPE_ACCESS_TOKEN,
    TYPE_ID_TOKEN,
    TYPE_JWT,
    TYPE_PREFIX,
    Admitted,
    Credential,
    Limits,
    Presented,
    Principal,
)
from sts.options import Duration, KeptConfigFile, file_faults
from sts.trust.fetch import OutboundUrl, check_url, read_ca
from sts.trust.issuers import Issuer
from sts.trust.remote_jwks import FileJwks, KeySource

KIND: Final = "jwt"
MAX_LEEWAY: Final = 60.0
AT_JWT: Final = "at+jwt"
TYPE_SECURITY_EVENT: Final = "security event"

_ID_TOKEN_CLAIMS: Final = frozenset({"nonce", "at_hash", "c_hash"})
_ACCESS_TOKEN_CLAIMS: Final = ("sub", "client_id", "iat", "jti")  # beside iss, exp and aud (RFC 9068 §2.2)

Typ = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$&^_.+/-]{1,128}$")]


def _short_leeway(value: float) -> float:
    if value > MAX_LEEWAY:
        raise ValueError('at most "60s": more would undo `nbf` and `iat` (RFC 9068 §4)')
    return value


class JwtSourceSettings(SourceSettings):
    """An issuer of signed JWTs."""

    not_yet: ClassVar[frozenset[str]] = SourceSettings.not_yet | {"envelope"}
    credential_types: ClassVar[frozenset[str]] = frozenset({TYPE_JWT, TYPE_ACCESS_TOKEN, TYPE_ID_TOKEN})

    type: Literal["jwt"]
    """A signed JWT (RFC 7519)."""
    issuer: ShortText
    """The exact `iss` of its tokens. The service fetches nothing for another `iss`."""
    jwks_uri: OutboundUrl | None = None
    """Where the issuer publishes its keys: https, or http to a literal loopback address."""
    jwks_file: KeptConfigFile | None = None
    """The issuer's JWK set as a file, instead of `jwks_uri`; a reload reads it again."""
    discovery: bool = False
    """`true`: find `jwks_uri` in the issuer's OpenID Connect metadata; it must have the issuer's own origin."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that verify the issuer's https, instead of the system's CAs."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)]
    """The accepted signature algorithms; the type, curve and `alg` of a key restrict them further (RFC 8725 §3.1)."""
    audience: SomeNames
    """The accepted audiences of its tokens: any of these."""
    audience_claim: ShortText = "aud"
    """The claim that names the audience if a token has no `aud`: `client_id` for issuers whose tokens have no `aud`."""
    token_types: Annotated[tuple[Literal["access_token", "jwt", "id_token"], ...], Field(min_length=1)] = (
        "access_token",
        "jwt",
    )
    """The token types as which its tokens may be presented; ID tokens only if listed here."""
    typ: Annotated[tuple[Typ, ...], Field(min_length=1)] | None = None
    """The accepted header `typ`; default: none, `JWT` or `at+jwt`. `[at+jwt]` requires all claims of RFC 9068."""
    leeway: Annotated[Duration, AfterValidator(_short_leeway)] = 10.0
    """How far the issuer's clock may be ahead, for `nbf` and `iat` only; at most 60s."""
    max_lifetime: Duration | None = None
    """The longest `exp - iat` of a token; default: no limit."""
    max_age: Duration | None = None
    """The longest time since `iat`; default: no limit."""
    max_auth_age: Duration | None = None
    """The longest time since the user's login, `auth_time`; default: no limit."""
    stale_jwks: Duration = 3600.0
    """How long the issuer's last keys remain in use after their expiry if the issuer is unreachable."""

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if [self.jwks_uri is not None, self.jwks_file is not None, self.discovery].count(True) != 1:
            raise ValueError("write exactly one of jwks_uri, jwks_file and discovery: true")
        if self.jwks_file is not None and self.ca_file is not None:
            raise ValueError("ca_file is for fetching; jwks_file needs no fetching")
        if self.discovery:
            try:
                check_url(self.issuer)
            except ValueError as error:
                raise ValueError(f"discovery begins at the issuer's URL: {error}") from None
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("jwks_file", self.jwks_file, lambda file: FileJwks(file, self.algorithms))
        yield from file_faults("ca_file", self.ca_file, read_ca)

    def claims_issuer(self) -> str:
        """Return the exact `iss` of its tokens."""
        return self.issuer

    def build(self, name: str, services: Services) -> JwtSource:
        """Return the source `name`; its keys are those that earlier revisions have fetched, if any."""
        return JwtSource(name, self, services.issuers.keys(self.trusted(name)))

    @classmethod
    def reader(cls, sources: Iterable[Any], elsewhere: Iterable[str], services: Services) -> JwtKind:  # noqa: ARG003
        """Return the kind over these `JwtSource`s and ourselves."""
        return JwtKind([*sources, services.own])

    def trusted(self, name: str) -> Issuer:
        """Return the settings that determine the keys of this source; `name` is the name of the source."""
        return Issuer(
            source=name,
            issuer=self.issuer,
            algorithms=self.algorithms,
            jwks_uri=self.jwks_uri,
            jwks_file=self.jwks_file,
            discovery=self.discovery,
            ca_file=self.ca_file,
            stale_jwks=self.stale_jwks,
        )


class JwtSource:
    """A `Source`: proves the tokens of one issuer."""

    def __init__(self, name: str, settings: JwtSourceSettings, keys: KeySource) -> None:
        self.name = name
        self.issuer = settings.issuer
        self.keys = keys
        self.limits = Limits(
            audiences=frozenset(settings.audience),
            leeway=settings.leeway,
            max_lifetime=settings.max_lifetime,
            max_age=settings.max_age,
            max_auth_age=settings.max_auth_age,
        )
        self._algorithms = frozenset(settings.algorithms)
        self._audience_claim = settings.audience_claim
        self._token_types = frozenset(TYPE_PREFIX + name for name in settings.token_types)
        self._typ = frozenset({None, "jwt", AT_JWT} if settings.typ is None else map(media_type, settings.typ))
        self._required = ("exp", *(_ACCESS_TOKEN_CLAIMS if self._typ == {AT_JWT} else ()))

    @property
    def trouble(self) -> str:
        """Why the last fetch of the issuer's keys failed, "" if it succeeded; for operators."""
        return self.keys.trouble

    def present(self, token: Compact, declared: str) -> Presented:
        """Check the form of a parsed token of this issuer; this proves nothing yet. Never waits. Raises Refusal."""
        self.accept(token, declared)
        return Presented(KIND, self.name, declared, token)

    def accept(self, token: Compact, declared: str) -> None:
        """Refuse a token that this source does not accept by its form, before any key is fetched.

        Raises BAD_ALGORITHM, BAD_TYPE or MALFORMED.
        """
        if token.algorithm not in self._algorithms:
            raise Refusal(BAD_ALGORITHM, why="the source does not allow this algorithm", alg=token.algorithm)
        typ = token.header.get("typ")
        if (typ if typ is None else media_type(typ)) not in self._typ:
            raise Refusal(BAD_TYPE, why="the source does not allow the header's typ")
        if _real_type(token.claims, declared) not in self._token_types:
            raise Refusal(BAD_TYPE, why="the source does not allow this type of token", declared=declared)
        for name in self._required:
            if name not in token.claims:
                raise Refusal(MALFORMED, why="a claim is missing", claim=name)
        if not isinstance(token.claims.get("client_id", ""), str):
            raise Refusal(MALFORMED, why="a claim is not a text", claim="client_id")

    def prove(self, presented: Presented, now: float) -> Principal:
        """Verify the signature with the issuer's keys and return the facts of the token. May wait for the keys.

        This proves that the issuer signed these claims. `admit` decides whether the token is for us, unexpired and
        fresh. Only EXPIRED is raised before the signature is verified: expired tokens arrive in large numbers and are
        refused in any case, and an attacker learns only what his own token contains. Any other check before the proof
        would reveal the requirements of the source.
        """
        token: Compact = presented.unverified
        if token.claims["exp"] <= now:
            since = round(now - token.claims["exp"])
            raise Refusal(EXPIRED, why="before its signature", expired_since_s=since, unverified=True)
        key = verify(token, self.keys.keys_for(token.kid, token.algorithm, now))
        claims = token.claims
        return Principal(
            kind=KIND,
            source=self.name,
            issuer=self.issuer,
            subject=claims.get("sub"),
            audience=self._audience(claims),
            reach=NOT_APPLICABLE,
            expires_at=claims["exp"],
            not_before=claims.get("nbf"),
            issued_at=claims.get("iat"),
            since=claims.get("iat"),  # not `nbf`: a token may be issued long before it may be used
            auth_time=claims.get("auth_time"),
            fresh_until=NOT_APPLICABLE,
            confirmation=claims.get("cnf"),
            act=claims.get("act"),
            may_act=claims.get("may_act"),
            acr=claims.get("acr"),
            amr=claims.get("amr"),
            jti=claims.get("jti"),
            proof_key=key.thumbprint,
            attributes=claims,
        )

    def _audience(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the audiences of the token. Another claim may replace a missing `aud`, never one with other values.

        Raises AUDIENCE_MISMATCH for a token without an audience.
        """
        name = "aud" if "aud" in claims else self._audience_claim
        if name not in claims:
            raise Refusal(AUDIENCE_MISMATCH, why="a claim is missing", claim=name)
        return text_or_texts(claims[name], name)

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Return whether the keys are cached, or the token has expired and is refused without a key."""
        token: Compact = presented.unverified
        return token.claims["exp"] <= now or self.keys.at_hand(token.kid, token.algorithm, now)

    def key_current(self, proof_key: str) -> bool:
        """Return whether the key is still in the issuer's key set. Never waits."""
        return self.keys.current(proof_key)


class JwtIssuer(Protocol):
    """An issuer whose signed tokens are accepted as credentials."""

    issuer: str

    def present(self, token: Compact, declared: str) -> Presented:
        """Check the form of a parsed token of this issuer; this proves nothing yet. Never waits. Raises Refusal."""


class JwtKind:
    """A `Kind` over all issuers of signed tokens: the enabled sources of type `jwt`, and ourselves."""

    token_types = JwtSourceSettings.credential_types

    def __init__(self, issuers: Iterable[JwtIssuer]) -> None:
        self._by_issuer = {one.issuer: one for one in issuers}

    def recognise(self, credential: Credential) -> Presented | None:
        """Find the source by `iss`, which is only compared with configured issuers: an unknown one causes no fetch.

        Returns None for an access token that does not look signed; another kind may accept it. A token that looks
        signed is refused here if it is malformed or of no source, and is never passed to another kind.
        """
        if credential.token_type == TYPE_ACCESS_TOKEN and not looks_signed(credential.value):
            return None
        token = parse(credential.value)
        issuer = self._by_issuer.get(token.claims.get("iss", ""))
        if issuer is None:
            raise Refusal(UNKNOWN_ISSUER, why="iss is not a configured issuer" if "iss" in token.claims else "no iss")
        return issuer.present(token, credential.token_type)


def _real_type(claims: Mapping[str, Any], declared: str) -> str:
    """Return the token's type by its content: an ID token stays one under any declared type (RFC 8725 §3.12).

    Logout tokens and other security events are not credentials (RFC 8417 §2.2), although many have the type of plain
    JWTs. This does not prove that the other tokens are access tokens; only a source with `typ: [at+jwt]` does.
    """
    if isinstance(claims.get("events"), dict):
        return TYPE_SECURITY_EVENT
    marked = not _ID_TOKEN_CLAIMS.isdisjoint(claims) or claims.get("typ") == "ID"
    return TYPE_ID_TOKEN if marked else declared


Admit = Callable[[Principal, Limits, float, str | None], Admitted]
Unrevoked = Callable[[str, Principal, float], None]


class Bearers:
    """Proves callers' access tokens.

    Args:
        sources: The sources whose tokens callers may use; those of other kinds are ignored.
        audience: Our issuer identifier.
        admit: Judges proven credentials; its last argument is the thumbprint of the caller's certificate.
        unrevoked: Raises Refusal for a revoked token.
    """

    def __init__(self, sources: Iterable[Source], audience: str, admit: Admit, unrevoked: Unrevoked) -> None:
        self._sources = {source.name: source for source in sources if isinstance(source, JwtSource)}
        self._kind = JwtKind(self._sources.values())
        self._audience = frozenset({audience})
        self._admit = admit
        self._unrevoked = unrevoked

    def prove(self, token: str, certificate: str | None, now: float) -> tuple[str, Mapping[str, Any]]:
        """Return the source and the claims of `token` if it is for us, unexpired and not revoked.

        May wait for the keys of the source. This does not prove who may use the token.

        Args:
            token: The access token.
            certificate: The thumbprint of the caller's certificate, for a token that is bound to one.
            now: Unix seconds.

        Raises:
            Refusal: By the source, `admit` or `unrevoked`.
        """
        presented = self._kind.recognise(Credential(TYPE_ACCESS_TOKEN, token))
        if presented is None:
            raise Refusal(BAD_TYPE, why="not a JWT")
        source = self._sources[presented.source]
        principal = source.prove(presented, now)
        # Here the token must be for us; the audiences of the source do not apply.
        self._admit(principal, replace(source.limits, audiences=self._audience), now, certificate)
        self._unrevoked(token, principal, now)
        return source.name, principal.attributes
