"""Source type `api_key`: a key that this service created and showed once; the state store keeps its hash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import StringConstraints

from sts.credentials.kind import HeaderName, KeyTable, Services, SourceSettings
from sts.errors import TOO_LARGE, UNKNOWN_ISSUER, Refusal
from sts.model import NOT_APPLICABLE, TYPE_API_KEY, Credential, Limits, Presented, Principal

KIND: Final = "api_key"
MAX_CHARS: Final = 256

KeyPrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,30}_$")]
"""The prefix of the keys of one source: letters, digits and `_`; the last character is `_`."""


class ApiKeySourceSettings(SourceSettings):
    """API keys that this service creates, for callers without a better credential."""

    variable: ClassVar[str] = "key"
    attributes: ClassVar[frozenset[str] | None] = frozenset({"id", "owner", "tenant", "scopes", "audiences", "tier"})
    credential_types: ClassVar[frozenset[str]] = frozenset({TYPE_API_KEY})
    kept_in_state: ClassVar[bool] = True

    type: Literal["api_key"]
    """An API key made with `sts api-keys create`."""
    header: HeaderName = "X-API-Key"
    """The request header that contains the key at forward-auth; a query parameter is never read."""
    prefix: KeyPrefix
    """The prefix of its keys, so that scanners and people recognise a leaked key, for example `sk_live_`."""
    high_entropy: bool = False
    """`true` confirms that imported keys have 128 random bits or more. The shared cache keeps them only then."""

    def credential_prefix(self) -> str:
        """Return how its keys begin."""
        return self.prefix

    def credential_header(self) -> tuple[str, str]:
        """Return the header that its keys come in, and their token type."""
        return self.header, TYPE_API_KEY

    def build(self, name: str, services: Services) -> ApiKeySource:
        """Return the source `name`, which reads the keys of the state store."""
        return ApiKeySource(name, self, services.api_keys)

    @classmethod
    def reader(cls, sources: Iterable[Any], elsewhere: Iterable[str], services: Services) -> ApiKeyKind:  # noqa: ARG003
        """Return the kind over these `ApiKeySource`s."""
        return ApiKeyKind(sources)


def key_prefixes(sources: Mapping[str, SourceSettings]) -> dict[str, str]:
    """Return the sources of API keys by name, disabled ones too, with the prefix of their keys."""
    return {name: one.prefix for name, one in sources.items() if isinstance(one, ApiKeySourceSettings)}


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

    token_types = ApiKeySourceSettings.credential_types

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
