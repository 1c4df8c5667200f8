"""Which kinds of entries each section has. A new kind of client or source is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sts.clients.access_token import AccessTokenClient
from sts.clients.assertion import AssertionClient
from sts.clients.network import NetworkClient
from sts.clients.secret import SecretClient
from sts.clients.tls import TlsClient
from sts.credentials.api_key import ApiKeySource
from sts.credentials.certificate import CertificateSource
from sts.credentials.introspection import IntrospectionSource
from sts.credentials.jwt import JwtSource
from sts.edge.routes import RouteSettings
from sts.options import Section
from sts.policy.settings import AudienceSettings
from sts.policy.table_settings import TableSettings

AnyClient = SecretClient | AssertionClient | TlsClient | NetworkClient | AccessTokenClient
AnySource = JwtSource | IntrospectionSource | ApiKeySource | CertificateSource


@dataclass(frozen=True, slots=True)
class Kinds:
    """The kinds of one section's entries: `models` by what an entry's `key` says, or one alone where there is no key.

    `entry` is the word for one entry; `later` are the contract's kinds that are not built yet.
    """

    entry: str
    models: Mapping[str, type[Section]]
    key: str = ""
    later: frozenset[str] = frozenset()

    def model_of(self, entry: object) -> type[Section]:
        """The model that an entry is read with; it says itself what is wrong with one that is no mapping."""
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
        {
            "jwt": JwtSource,
            "introspection": IntrospectionSource,
            "api_key": ApiKeySource,
            "client_certificate": CertificateSource,
        },
        key="type",
        later=frozenset({"signed_request", "self_signed_jwt", "vouched"}),
    ),
    "audiences": Kinds("audience", {"": AudienceSettings}),
    "tables": Kinds("table", {"": TableSettings}),
    "routes": Kinds("route", {"": RouteSettings}),
}
