"""The whole configuration as a frozen model: assembled from what each part declares beside its code."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from keys.transitions import Wanted
from sts.audit.log import AuditSettings
from sts.cache.tokens import CacheSettings
from sts.clients.access_token import AccessTokenClient
from sts.clients.assertion import AssertionClient
from sts.clients.client import UNIX, PeerNetwork
from sts.clients.network import NetworkClient
from sts.clients.secret import SecretClient
from sts.clients.tls import TlsClient
from sts.credentials import registry
from sts.credentials.kind import SourceSettings
from sts.edge.certificate_headers import ProxySettings
from sts.edge.forward_auth import ForwardAuthSettings
from sts.edge.routes import RouteSettings
from sts.errors import StartError
from sts.labels import DeploymentSecret
from sts.lookups.opa import OpaSettings
from sts.lookups.settings import TableSettings
from sts.mint.settings import KeysSettings
from sts.options import ConfigFile, KeptFile, Name, Names, SecretText, Section
from sts.policy.settings import AudienceSettings
from sts.redis_link import RedisSettings
from sts.settings.asked import listening_at
from sts.settings.listen import DEFAULT, Listen, ShutdownSettings, available_cpus
from sts.state import StateSettings
from sts.trust.fetch import check_url

AnyClient = SecretClient | AssertionClient | TlsClient | NetworkClient | AccessTokenClient
if TYPE_CHECKING:
    AnySource = SourceSettings
else:
    AnySource = SerializeAsAny[reduce(operator.or_, registry.KINDS.values())]


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of one section's entries: `models` by the value of an entry's `key`, or a single model without `key`.

    `entry` is the word for one entry; `later` are the kinds of the documented contract that are not supported yet.
    """

    entry: str
    models: Mapping[str, type[Section]]
    key: str = ""
    later: frozenset[str] = frozenset()

    def model_of(self, entry: object) -> type[Section]:
        """Return the model that validates an entry; for an invalid kind any model, which reports the fault."""
        choice = entry.get(self.key) if isinstance(entry, dict) else None
        found = self.models.get(choice) if isinstance(choice, str) else None
        return next(iter(self.models.values())) if found is None else found


KINDS: Final[Mapping[str, Kinds]] = {
    "clients": Kinds(
        "client",
        {
            "secret": SecretClient,
            "private_key_jwt": AssertionClient,
            "tls": TlsClient,
            "network": NetworkClient,
            "access_token": AccessTokenClient,
        },
        key="auth",
    ),
    "sources": Kinds(
        "source",
        registry.KINDS,
        key="type",
        later=frozenset({"signed_request", "self_signed_jwt", "vouched"}),
    ),
    "audiences": Kinds("audience", {"": AudienceSettings}),
    "tables": Kinds("table", {"": TableSettings}),
    "routes": Kinds("route", {"": RouteSettings}),
}


def digest(*values: object) -> str:
    """Return the SHA-256, in hex, of a canonical form of `values`, with secrets in the clear.

    Keep the digest in memory only: an attacker who has the digest of a short secret could guess the secret.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical form")


MERGED: Final = ("include", "defaults")
"""Keys that are merged into others when a configuration is loaded."""


def _check_issuer(value: str) -> str:
    """Check an issuer (RFC 8414 §2): https, no query, no fragment, no final slash, since `iss` is compared exactly."""
    check_url(value)
    if value.endswith("/") or not {"?", "#", "@"}.isdisjoint(value):
        raise ValueError("an issuer has no trailing slash, query, fragment or user name")
    return value


def _not_literal(value: object) -> object:
    """Reject a literal deployment secret: all other secrets derive from it, and people send configuration files."""
    if not isinstance(value, Mapping):
        raise ValueError("write the deployment secret as {file: PATH} or {env: NAME}")  # noqa: TRY004 - pydantic's way
    return value


def _check_secret(value: SecretStr) -> SecretStr:
    try:
        DeploymentSecret.parse(value.get_secret_value())
    except StartError as error:
        raise ValueError(str(error)) from None
    return value


class GivenSecret(SecretStr):
    """A secret that replaces `previous`, which still decrypts what was written under it."""

    def __init__(self, current: SecretStr, previous: SecretStr) -> None:
        super().__init__(current.get_secret_value())
        self.previous = previous

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GivenSecret) and self.previous == other.previous and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.get_secret_value(), self.previous))


def _with_previous(value: object, read: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, Mapping) or "previous" not in value:
        return read(value)
    current = {key: where for key, where in value.items() if key != "previous"}
    return GivenSecret(read(current), read(value["previous"]))


class Defaults(Section):
    """Settings that are merged into every entry of a section; a key that an entry writes itself wins as a whole."""

    client: dict[str, Any] = Field(default_factory=dict)
    """For every entry of `clients`."""
    source: dict[str, Any] = Field(default_factory=dict)
    """For every entry of `sources`."""
    audience: dict[str, Any] = Field(default_factory=dict)
    """For every entry of `audiences`."""
    route: dict[str, Any] = Field(default_factory=dict)
    """For every entry of `routes`."""


class Settings(Section):
    """A configuration that was checked as a whole; every file path in it is absolute."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"trust_domain", "security_events"})

    issuer: Annotated[str, AfterValidator(_check_issuer)]
    """`iss` of every minted token: an https URL without trailing slash, query or fragment (RFC 8414 §2)."""
    var: ConfigFile = Path("var")
    """Directory of secret, key ring and state; the environment variable `STS_VAR` wins."""
    include: Names = ()
    """More files with clients, sources, audiences, routes: `[conf.d/*.yaml]`. A name defined twice is a fault,
    and so is a missing directory."""
    listen: Listen = DEFAULT
    """`host:port`, `unix:/path`, or `{address, tls, transport, socket_mode, socket_group}`."""
    shutdown: ShutdownSettings = ShutdownSettings()
    """How the service stops."""
    workers: Annotated[int, Field(ge=1, le=512, strict=True)] = Field(default_factory=available_cpus)
    """Worker processes; default: as many as the CPU quota allows."""
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] = 64
    """Threads of each worker, for requests that wait or compute long; a request from the cache needs none."""
    ops_networks: tuple[PeerNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"), UNIX)
    """Networks that may read `/metrics` and the detail of `/readyz`: the socket's peer, `unix` for our own socket."""
    proxies: tuple[ProxySettings, ...] = ()
    """Proxies that end callers' TLS in front of `/token` and may forward their certificates: each with `networks`,
    `secrets` and `certificate_header`."""
    secret: (
        Annotated[
            SecretText,
            BeforeValidator(_not_literal),
            AfterValidator(_check_secret),
            WrapValidator(_with_previous),
        ]
        | None
    ) = None
    """The deployment secret, 32 random bytes (`openssl rand -hex 32`): `{file: PATH}` or `{env: NAME}`; default:
    `var/secret`, created at the first start. During a replacement, `previous: {file: PATH}` beside it names the former
    secret, which still decrypts what was written under it."""
    redis: RedisSettings | None = None
    """The Redis or Valkey server for every setting with the value `redis`; needs `secret`, the same on all replicas."""
    keys: KeysSettings = KeysSettings()
    """The lifetime of the signing keys."""
    state: StateSettings = StateSettings()
    """Where replay marks, revocations and API keys are stored (docs/state.md)."""
    cache: CacheSettings = CacheSettings()
    """The cache of minted tokens."""
    audit: AuditSettings = AuditSettings()
    """Where each decision is recorded."""
    forward_auth: ForwardAuthSettings = ForwardAuthSettings()
    """The answers of the forward-auth door."""
    opa: OpaSettings | None = None
    """The policy server, called for audiences with `opa: true`."""
    defaults: Defaults = Defaults()
    """Settings merged into every entry of a section."""
    clients: dict[Name, AnyClient] = Field(default_factory=dict)
    """The callers that may request tokens: the gateways, by client id."""
    sources: dict[Name, AnySource] = Field(default_factory=dict)
    """The sources of accepted inbound credentials, by name."""
    audiences: dict[Name, AudienceSettings] = Field(default_factory=dict)
    """The backends, by name, and the content of their tokens."""
    tables: dict[Name, TableSettings] = Field(default_factory=dict)
    """The tables that rules look up, by name: `lookup('employees', claims.sub).employee_id`."""
    routes: dict[Name, RouteSettings] = Field(default_factory=dict)
    """For the forward-auth door: the audience of each request; the most specific route wins."""

    def longest_ttl(self) -> float:
        """Return the maximum lifetime of a token in seconds over all audiences; disabled audiences count."""
        return max((audience.ttl for audience in self.audiences.values()), default=0.0)

    def with_backends(self) -> frozenset[str]:
        """Return the audiences that have a client as their backend; disabled clients count."""
        return frozenset(name for client in self.clients.values() for name in client.backend_of)

    def own_subjects(self) -> dict[str, tuple[str, str]]:
        """Return the (source, raw subject) of each client that authenticates with its own token, by client id."""
        return {
            name: (client.source, client.client_id)
            for name, client in self.clients.items()
            if isinstance(client, AccessTokenClient) and client.enabled
        }

    def handshake_cas(self) -> tuple[KeptFile, ...]:
        """Return the CAs whose certificates a caller may present in a handshake, of all purposes together.

        The handshake does not decide which CA is valid for which purpose.
        """
        tls = self.listen.tls
        if tls is None:
            return ()
        sources = [one.trust_anchor() for one in self.sources.values() if one.enabled]
        callers = [one.handshake_ca for one in self.clients.values() if one.enabled]
        return tuple(file for file in (tls.ca_file, *sources, *callers) if file is not None)

    def wanted(self) -> Wanted:
        """Return what the key ring must provide for this configuration; disabled audiences count."""
        chosen = sorted({audience.algorithm for audience in self.audiences.values() if audience.algorithm is not None})
        algorithms = tuple(dict.fromkeys((self.keys.algorithm, *chosen)))
        return Wanted(self.keys.schedule(), self.longest_ttl(), algorithms)

    def given_secret(self) -> DeploymentSecret | None:
        """Return the configured deployment secret, or None."""
        if self.secret is None:
            return None
        given = DeploymentSecret.parse(self.secret.get_secret_value())
        if not isinstance(self.secret, GivenSecret):
            return given
        return replace(given, previous=DeploymentSecret.parse(self.secret.previous.get_secret_value()))

    def fingerprints(self) -> dict[str, str]:
        """Return one SHA-256 per entry, keyed `client/<name>`, and so on for `source`, `audience`, `table`, `route`.

        It changes with every setting that affects a token in which the entry takes part. A subject may not have the
        name of a client, so a source's fingerprint depends on the clients' names too.
        """
        beside: dict[str, tuple[Mapping[str, Section], object]] = {
            "client": (self.clients, self.issuer),
            "source": (self.sources, [sorted(self.clients), self.own_subjects(), len(self.sources) == 1]),
            "audience": (self.audiences, [self.issuer, self.keys.algorithm, sorted(self.with_backends())]),
            "table": (self.tables, None),
            "route": (self.routes, None),
        }
        return {
            f"{kind}/{name}": digest(kind, name, entry, shaping, self.opa if getattr(entry, "opa", False) else None)
            for kind, (entries, shaping) in beside.items()
            for name, entry in entries.items()
        }

    @property
    def revision(self) -> str:
        """A short id of this configuration. Logs contain it, so the deployment secret is not part of it."""
        shown = self.model_dump(exclude={"secret", *MERGED})
        shown["keys"].pop("seal_keys")
        return digest(shown)[:12]

    def listening_at(self, address: str) -> Settings:
        """Return the same settings at another address. Raises OptionError if `listen` would refuse the address."""
        return self.model_copy(update={"listen": listening_at(address, self.listen)})
