"""The kinds of credentials that exist.

A new kind is a file beside this one (a `SourceSettings`, a `Source`, a `Kind`) and a line in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sts.credentials.api_key import ApiKeySourceSettings
from sts.credentials.certificate import CertificateSourceSettings
from sts.credentials.introspection import IntrospectionSourceSettings
from sts.credentials.jwt import JwtSourceSettings
from sts.credentials.kind import Services, Sources, SourceSettings

KINDS: Final[dict[str, type[SourceSettings]]] = {
    "jwt": JwtSourceSettings,
    "introspection": IntrospectionSourceSettings,
    "api_key": ApiKeySourceSettings,
    "client_certificate": CertificateSourceSettings,
}
"""Every kind by its `type` in the configuration.

The kinds read a credential in this order. A kind that reads access tokens must precede `introspection`, which takes an
access token that no other kind has taken.
"""


def build_sources(settings: Mapping[str, SourceSettings], services: Services) -> Sources:
    """Put the enabled sources to work, and our own tokens beside them. Never waits.

    Args:
        settings: all configured sources by name, disabled ones too.
        services: what the sources are built with.

    Raises:
        StartError: a source cannot be built.
    """
    by_name = {name: one.build(name, services) for name, one in settings.items() if one.enabled}
    kinds = []
    for model in KINDS.values():
        mine = {name: source for name, source in by_name.items() if type(settings[name]) is model}
        elsewhere = prefixes({name: one for name, one in settings.items() if name not in mine})
        kinds.append(model.reader(mine.values(), tuple(elsewhere), services))
    return Sources(tuple(kinds), {**by_name, services.own.name: services.own})


def prefixes(settings: Mapping[str, SourceSettings]) -> Iterator[str]:
    """Yield how credentials of these sources begin. Those of disabled sources are no less secret."""
    for one in settings.values():
        prefix = one.credential_prefix()
        if prefix is not None:
            yield prefix
