"""Source type `introspection`: an opaque token, proven by asking the server that issued it (RFC 7662)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from sts.credentials.kind import OutboundUrl, ShortText, SomeNames, SourceSettings
from sts.errors import StartError
from sts.options import Duration, KeptConfigFile, SecretText, Section
from sts.trust.fetch import read_ca

Prefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~+/-]{1,64}$")]
"""How the tokens of one server begin; characters of a Bearer token (RFC 6750 §2.1)."""


class Match(Section):
    """Which opaque tokens are a source's."""

    prefix: Prefix
    """How its tokens begin."""


class IntrospectionSource(SourceSettings):
    """A server that issues opaque tokens and says what they mean."""

    type: Literal["introspection"]
    """An opaque token, introspected (RFC 7662)."""
    endpoint: OutboundUrl
    """The server's introspection endpoint."""
    client_id: ShortText
    """As whom this service authenticates there, with HTTP Basic."""
    client_secret: SecretText
    """The secret for it: `{env: NAME}` or `{file: PATH}`."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that the server's https is checked against, instead of the system's."""
    issuer: ShortText | None = None
    """The server's issuer identifier: an answer that names another `iss` is refused."""
    audience: SomeNames | None = None
    """What the answer's `aud` must be: any of these."""
    filters_by_caller: bool = False
    """`true`, instead of `audience`: the server says `active` only of tokens that are meant for us."""
    match: Match | None = None
    """Which opaque tokens are asked about there; one introspection source may go without."""
    cache_ttl: Annotated[Duration, Field(ge=0, le=3600)] = 30.0
    """How long an answer is believed, and so how long a revocation there may take to be felt; never past `exp`."""
    high_entropy: bool = False
    """Said in writing where its tokens hold 128 random bits or more: only then the shared cache may keep them."""

    @model_validator(mode="after")
    def _meant_for_us(self) -> Self:
        if (self.audience is not None) == self.filters_by_caller:
            raise ValueError("write either `audience` or `filters_by_caller: true`")
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """As SourceSettings says."""
        try:
            if self.ca_file is not None:
                read_ca(self.ca_file)
        except StartError as error:
            yield "ca_file", str(error)
