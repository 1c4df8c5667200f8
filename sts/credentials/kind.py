"""The common settings of all sources, and the protocols of sources and kinds of credential."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Protocol, Self

from pydantic import AfterValidator, StringConstraints

from sts.credentials.introspected import Introspections
from sts.credentials.self_issued import OwnTokens
from sts.errors import BAD_TYPE, UNKNOWN_ISSUER, Refusal
from sts.model import Credential, Limits, Presented, Principal
from sts.options import KeptFile, Names, Namespace, Rule, Section
from sts.trust.introspection import Server
from sts.trust.issuers import Issuer, Issuers
from sts.x509.authority import Authorities

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=512)]


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(value):
        raise ValueError("name at least one; an empty list would accept nothing")
    return value


SomeNames = Annotated[Names, AfterValidator(_not_empty)]
"""At least one non-empty text."""


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


def _header(value: str) -> str:
    if value.lower() in _TAKEN or value.lower().startswith(_TAKEN_PREFIXES):
        raise ValueError(f"{value} has another meaning: keys are sent in a header of their own")
    return value


HeaderName = Annotated[str, StringConstraints(pattern=_HEADER), AfterValidator(_header)]
"""A request header that credentials come in at forward-auth, and that has no other meaning."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Why two sources of one kind cannot be configured side by side.

    `key` is the setting of the later source that is wrong. `problem` says why; `{other}` in it becomes the name and the
    place of the earlier source.
    """

    key: str
    problem: str
    hint: str


class SourceSettings(Section):
    """One configured origin of inbound credentials, of any kind.

    `variable` is the name of the proven credential in CEL rules. `attributes` are its members; None if the issuer
    decides which members it has.

    A kind of credential is a subclass with a `Source` and a `Kind` beside it, and a line in `registry.KINDS`. The
    methods say what the rest of the service must know of a kind; a kind overrides those that concern it. `build` and
    `reader` have no default.

    `credential_types` are the token types (URNs) of its credentials. `prefix_path` is the setting in which
    `credential_prefix` is written. `kept_in_state` says that the state store holds its credentials.
    """

    not_yet: ClassVar[frozenset[str]] = frozenset()
    variable: ClassVar[str] = "claims"
    attributes: ClassVar[frozenset[str] | None] = None
    credential_types: ClassVar[frozenset[str]] = frozenset()
    prefix_path: ClassVar[tuple[str, ...]] = ("prefix",)
    kept_in_state: ClassVar[bool] = False

    enabled: bool = True
    """`false` refuses the source's credentials from the next reload on, and invalidates the tokens made from them."""
    audiences: Names | None = None
    """The audiences that its credentials may reach; `["*"]` for all. Required if there are several sources."""
    namespace: Namespace | None = None
    """The prefix of the minted `sub`, `""` for none. Required if there are several sources."""
    same_subjects: bool = False
    """`true` confirms that two sources share a namespace because their subjects are the same people."""
    require: Rule | None = None
    """A CEL rule over the proven credential that must be `true`, else `requirement_failed`."""
    identity: dict[str, Rule]
    """CEL per attribute over the proven credential; `subject` is required."""

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from ()

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """Yield what else is wrong with these settings: the key, a sentence, and a hint."""
        yield from ()

    def clash(self, other: Self) -> Clash | None:  # noqa: ARG002 - for kinds that override it
        """Say why it cannot be configured beside `other`, an earlier source of the same kind; None where it can."""
        return None

    def credential_prefix(self) -> str | None:
        """Return how all of its credentials begin, None where they have nothing in common.

        No other source's prefix may begin alike. The log masks what follows a prefix.
        """
        return None

    def claims_issuer(self) -> str | None:
        """Return the `iss` by which its JWTs are found, None for another kind. No two sources have the same."""
        return None

    def credential_header(self) -> tuple[str, str] | None:
        """Return the header that its credentials come in at forward-auth, and their token type.

        None where they come as a Bearer token or a client certificate.
        """
        return None

    def trust_anchor(self) -> KeptFile | None:
        """Return the CAs of the certificates that callers may present in a TLS handshake because of it."""
        return None

    def trusted(self, name: str) -> Issuer | None:  # noqa: ARG002 - for kinds that override it
        """Return whose keys prove the credentials of this source, `name`; None where no issuer's keys do."""
        return None

    def asks(self, name: str) -> tuple[Server, float] | None:  # noqa: ARG002 - for kinds that override it
        """Return the server that this source, `name`, asks about its credentials, and the seconds an answer counts.

        None where no server is asked. Raises StartError if the server's CA file cannot be used.
        """
        return None

    def build(self, name: str, services: Services) -> Source:
        """Put this source, `name`, to work. Must not wait. Raises StartError."""
        raise NotImplementedError

    @classmethod
    def reader(cls, sources: Iterable[Any], elsewhere: Iterable[str], services: Services) -> Kind:
        """Return what finds the source of a credential.

        `sources` are all enabled ones of this kind, as `build` returned them. `elsewhere` are the prefixes of the other
        configured sources: those of other kinds, and disabled ones of this kind.
        """
        raise NotImplementedError


class Source(Protocol):
    """A configured source at run time: one instance of a kind."""

    name: str
    limits: Limits

    @property
    def trouble(self) -> str:
        """Why the last access to an external dependency failed, "" if it succeeded; for operators."""

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove a presented credential and return its facts. May wait. Raises Refusal."""

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Return whether `prove` would neither wait nor compute for long. Never waits, never raises."""

    def key_current(self, proof_key: str) -> bool:
        """Return whether the key that proved a credential is still in the source's key set. Never waits."""


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


@dataclass(frozen=True, slots=True)
class Services:
    """What sources are built with. `own` belongs to one revision; the rest outlives a reload."""

    issuers: Issuers
    authorities: Authorities
    introspections: Introspections
    api_keys: KeyTable
    own: OwnTokens


class Kind(Protocol):
    """A kind of credential with all its sources: finds the one source of a credential."""

    token_types: frozenset[str]

    def recognise(self, credential: Credential) -> Presented | None:
        """Parse a credential as far as needed to find its source; None if it is of another kind. Never waits.

        Raises Refusal if the credential is of this kind but malformed, or of an unknown source.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """The enabled sources by name, and the kinds that read credentials for them."""

    kinds: tuple[Kind, ...]
    by_name: Mapping[str, Source]

    def present(self, credential: Credential) -> Presented:
        """Find the one source of a credential, without proving it and without waiting.

        Raises BAD_TYPE for a declared type of no kind, before the credential is parsed (RFC 8693 §3); UNKNOWN_ISSUER if
        no kind accepts the credential; and what the kind raises.
        """
        readers = [kind for kind in self.kinds if credential.token_type in kind.token_types]
        if not readers:
            raise Refusal(BAD_TYPE, why="this subject_token_type is not read here")
        for kind in readers:
            presented = kind.recognise(credential)
            if presented is not None:
                return presented
        raise Refusal(UNKNOWN_ISSUER, why="no source reads such a credential")

    def prove(self, presented: Presented, now: float) -> Principal:
        """Prove a presented credential at its source."""
        return self.by_name[presented.prover].prove(presented, now)

    def at_hand(self, presented: Presented, now: float) -> bool:
        """Return whether `prove` would neither wait nor compute for long."""
        return self.by_name[presented.prover].at_hand(presented, now)

    def limits(self, presented: Presented) -> Limits:
        """Return the limits that the configuration of the source sets for its principals."""
        return self.by_name[presented.prover].limits

    def key_current(self, prover: str, proof_key: str) -> bool:
        """Return whether the key with which `prover` proved a credential is still in its key set."""
        found = self.by_name.get(prover)
        return found is not None and found.key_current(proof_key)
