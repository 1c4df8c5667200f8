"""Source type `api_key`: a key that this service created and showed once; the state store keeps its hash."""

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
"""The prefix of the keys of one source: letters, digits and `_`; the last character is `_`."""


def _header(value: str) -> str:
    if value.lower() in _TAKEN or value.lower().startswith(_TAKEN_PREFIXES):
        raise ValueError(f"{value} has another meaning: keys are sent in a header of their own")
    return value


class ApiKeySourceSettings(SourceSettings):
    """API keys that this service creates, for callers without a better credential."""

    variable: ClassVar[str] = "key"
    attributes: ClassVar[frozenset[str] | None] = frozenset({"id", "owner", "tenant", "scopes", "audiences", "tier"})

    type: Literal["api_key"]
    """An API key made with `sts api-keys create`."""
    header: Annotated[str, StringConstraints(pattern=_HEADER), AfterValidator(_header)] = "X-API-Key"
    """The request header that contains the key at forward-auth; a query parameter is never read."""
    prefix: KeyPrefix
    """The prefix of its keys, so that scanners and people recognise a leaked key, for example `sk_live_`."""
    high_entropy: bool = False
    """`true` confirms that imported keys have 128 random bits or more. The shared cache keeps them only then."""


class KnownKey(Protocol):
    """A verified key."""

    @property
    def id(self) -> str:
        """The public id of the key."""

    @property
    def owner(self) -> str:
        """The owner: the subject of the key, as the source writes it."""

    @property
    def proof(self) -> str:
        """Identifies the present state of the record; it changes when the record changes."""

    @property
    def created_at(self) -> int:
        """When the key was created, in Unix seconds."""

    @property
    def expires_at(self) -> int | None:
        """When the key expires, in Unix seconds; None if only a revocation ends it."""

    @property
    def reach(self) -> frozenset[str] | None:
        """The audiences that the key may reach, None for all audiences of its source."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes for mappings."""


class KeyTable(Protocol):
    """The table of all API keys."""

    @property
    def trouble(self) -> str:
        """Why the last read of the keys failed, "" if it succeeded."""

    def known(self, prefix: str, text: str) -> str:
        """Return the id in a key text if such a key exists, else "". This proves nothing. Never waits."""

    def prove(self, source: str, prefix: str, text: str) -> KnownKey:
        """Return the key with exactly this text. Never waits. Raises Refusal."""

    def current(self, proof: str) -> bool:
        """Return whether this state of a key's record is still valid. Never waits."""


class ApiKeySource:
    """A `Source`: proves the keys of one prefix."""

    limits = Limits(audiences=frozenset())

    def __init__(self, name: str, settings: ApiKeySourceSettings, keys: KeyTable) -> None:
        self.name = name
        self.prefix = settings.prefix
        self._keys = keys

    def present(self, credential: Credential) -> Presented:
        """Return the presented credential, with the id of the key if such a key exists."""
        text = credential.value
        return Presented(
            KIND, self.name, credential.token_type, text, credential_id=self._keys.known(self.prefix, text)
        )

    @property
    def trouble(self) -> str:
        """Why the last read of the keys failed, "" if it succeeded."""
        return self._keys.trouble

    def prove(self, presented: Presented, now: float) -> Principal:  # noqa: ARG002 - the signature of Source
        """Verify the key and return the facts of its record. This proves possession of the key, not who holds it."""
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

    def at_hand(self, presented: Presented, now: float) -> bool:  # noqa: ARG002 - the signature of Source
        """Return True: the table of keys is in memory."""
        return True

    def key_current(self, proof_key: str) -> bool:
        """Return whether the key is neither revoked nor changed; otherwise its cached tokens are invalid."""
        return self._keys.current(proof_key)


class ApiKeyKind:
    """A `Kind` over all enabled sources of type `api_key`."""

    token_types = frozenset({TYPE_API_KEY})

    def __init__(self, sources: Iterable[ApiKeySource]) -> None:
        self._sources = tuple(sources)

    def recognise(self, credential: Credential) -> Presented:
        """Find the source by its prefix. No prefix begins with another one: the configuration would not load.

        Raises TOO_LARGE or UNKNOWN_ISSUER.
        """
        if len(credential.value) > MAX_CHARS:
            raise Refusal(TOO_LARGE, why="the API key", max_chars=MAX_CHARS)
        for source in self._sources:
            if credential.value.startswith(source.prefix):
                return source.present(credential)
        raise Refusal(UNKNOWN_ISSUER, why="no source has API keys of this prefix")
