"""Source type `api_key`: a key made here, shown once, kept as a hash in the state store."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, StringConstraints

from sts.credentials.kind import SourceSettings

KeyPrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,30}_$")]
"""How the keys of one source begin: letters, digits and `_`, the last of them `_`."""

_HEADER: str = r"^[A-Za-z][A-Za-z0-9-]{0,63}$"


def _header(value: str) -> str:
    if value.lower() in {"authorization", "cookie", "host", "x-gateway-secret", "x-request-id"}:
        raise ValueError(f"{value} has another meaning: keys are sent in a header of their own")
    return value


class ApiKeySource(SourceSettings):
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
