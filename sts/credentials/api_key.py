"""Source type `api_key`: a key made here, shown once, kept as a hash in the state store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol

from pydantic import AfterValidator, StringConstraints

from sts.credentials.kind import SourceSettings
from sts.errors import TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.model import NOT_APPLICABLE, TYPE_API_KEY, Credential, Limits, Presented, Principal

KIND: Final = "api_key"
MAX_CHARS: Final = 256

_HEADER: Final = r"^[A-Za-z][A-Za-z0-9-]{0,63}$"
_TAKEN: Final = frozenset(
    {
        *("authorization", "cookie", "host", "origin", "dpop", "forwarded", "x-real-ip", "user-agent", "referer"),
        *("x-gateway-secret", "x-request-id", "x-auth-reason", "x-token-expires-at"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "via", "date"),
    }
)
_TAKEN_PREFIXES: Final = (
    *("x-original-", "x-forwarded-", "x-envoy-", "x-accel-", "client-cert", "x-ssl-client"),
    *("accept", "access-control-", "cache-", "content-", "if-", "proxy-", "range", "sec-", "signature"),
)

KeyPrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,30}_$")]
"""How the keys of one source begin: letters, digits and `_`, the last of them `_`."""


def _header(value: str) -> str:
    if value.lower() in _TAKEN or value.lower().startswith(_TAKEN_PREFIXES):
        raise ValueError(f"{value} has another meaning: keys are sent in a header of their own")
    return value


class ApiKeySourceSettings(SourceSettings):
    """Keys of our own, for callers that have nothing better."""

    variable: ClassVar[str] = "key"
    attributes: ClassVar[frozenset[str] | None] = frozenset({"id", "owner", "tenant", "scopes", "audiences", "tier"})

    type: Literal["api_key"]
    """An API key made with `sts api-keys create`."""
    header: Annotated[str, StringConstraints(pattern=_HEADER), AfterValidator(_header)] = "X-API-Key"
    """The header that keys are sent in at forward-auth; never a query parameter."""
    prefix: KeyPrefix
    """How its keys begin, so that scanners and people recognise a leaked one: `sk_live_`."""
    high_entropy: bool = False
    """Said in writing where imported keys hold 128 random bits or more: only then the shared cache may keep them."""


class KnownKey(Protocol):
    """A key that was proven."""

    @property
    def id(self) -> str:
        """Its name, which is no secret."""

    @property
    def owner(self) -> str:
        """Whose it is: its subject, in the source's own words."""

    @property
    def proof(self) -> str:
        """Names this very state of its record."""

    @property
    def created_at(self) -> int:
        """When it was made, in Unix seconds."""

    @property
    def expires_at(self) -> int | None:
        """When it ends, in Unix seconds; None: when it is revoked."""

    @property
    def reach(self) -> frozenset[str] | None:
        """The audiences that it may reach, None for all of its source's."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What mappings read."""


class KeyTable(Protocol):
    """Who knows the keys."""

    @property
    def trouble(self) -> str:
        """Why the keys could not be had the last time, "" if they could."""

    def known(self, prefix: str, text: str) -> str:
        """The id that a text claims, where there is such a key, else ""; this proves nothing. Never waits."""

    def prove(self, source: str, prefix: str, text: str) -> KnownKey:
        """The key whose whole text this is. Never waits; raises Refusal."""

    def current(self, proof: str) -> bool:
        """Whether this state of a key's record is still in force. Never waits."""


class ApiKeySource:
    """A `Source`: proves the keys of one prefix."""

    limits = Limits(audiences=frozenset())

    def __init__(self, name: str, settings: ApiKeySourceSettings, keys: KeyTable) -> None:
        self.name = name
        self.prefix = settings.prefix
        self._keys = keys

    def present(self, credential: Credential) -> Presented:
        """What is presented to it, named by its key's id where there is such a key."""
        text = credential.value
        return Presented(
            KIND, self.name, credential.token_type, text, credential_id=self._keys.known(self.prefix, text)
        )

    @property
    def trouble(self) -> str:
        """As Source says."""
        return self._keys.trouble

    def prove(self, presented: Presented, now: float) -> Principal:  # noqa: ARG002 - as Source says
        """Prove the key and report what its record says. This proves that somebody holds the key, and not who."""
        key = self._keys.prove(self.name, self.prefix, presented.unverified)
        return Principal(
            kind=KIND,
            source=self.name,
            issuer=NOT_APPLICABLE,
            subject=key.owner,
            audience=NOT_APPLICABLE,
            reach=NOT_APPLICABLE if key.reach is None else key.reach,
            expires_at=NOT_APPLICABLE if key.expires_at is None else key.expires_at,
            not_before=NOT_APPLICABLE,
            issued_at=key.created_at,
            since=key.created_at,
            auth_time=NOT_APPLICABLE,
            fresh_until=NOT_APPLICABLE,
            confirmation=NOT_APPLICABLE,
            act=NOT_APPLICABLE,
            may_act=NOT_APPLICABLE,
            acr=NOT_APPLICABLE,
            amr=NOT_APPLICABLE,
            jti=NOT_APPLICABLE,
            proof_key=key.proof,
            attributes=key.attributes,
        )

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - as Source says
        """As Source says: the table of keys is here."""
        return True

    def key_current(self, proof_key: str) -> bool:
        """As Source says: a key that was revoked, or whose record was changed, made no token that still counts."""
        return self._keys.current(proof_key)


class ApiKeyKind:
    """A `Kind` over all enabled sources of type `api_key`."""

    token_types = frozenset({TYPE_API_KEY})

    def __init__(self, sources: Iterable[ApiKeySource]) -> None:
        self._sources = tuple(sources)

    def recognise(self, credential: Credential) -> Presented:
        """As Kind says: the one source whose prefix it has. No prefix begins another (a fault at load)."""
        if len(credential.value) > MAX_CHARS:
            raise Refusal(TOO_LARGE, why="the API key", max_chars=MAX_CHARS)
        for source in self._sources:
            if credential.value.startswith(source.prefix):
                return source.present(credential)
        raise Refusal(UNKNOWN_ISSUER, why="no source has API keys of this prefix")
