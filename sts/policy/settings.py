"""The settings of one backend: the `audiences` section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from sts.options import Duration, Rule, ScopeToken, Section, SigningAlgorithm
from sts.trust.recipients import EncryptionSettings

RESERVED_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "act", "may_act", "cnf", "typ", "azp"}
    | {"nonce", "at_hash", "c_hash", "sid", "events", "txn", "src", "src_iat", "aud_map", "evidence"}
)
"""Claims that a mapping must not write: only the service itself may set them."""

EVIDENCE_CLAIMS: Final = ("auth_time", "acr", "amr")
"""Further claims that a mapping must not write if the audience has `evidence: true`."""

_HEADER: Final = re.compile(r"X-[A-Za-z0-9-]{1,64}")


def _not_reserved(name: str) -> str:
    if name in RESERVED_CLAIMS:
        raise ValueError(f"the claim {name} is reserved: only the service writes it, a mapping cannot")
    return name


def _identity_header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError('the name of an identity header is "X-" and letters, digits, "-"')
    return name


HeaderName = Annotated[
    str, AfterValidator(_identity_header), WithJsonSchema({"type": "string", "pattern": f"^{_HEADER.pattern}$"})
]
ClaimName = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_not_reserved)]


class AudienceSettings(Section):
    """One backend: the content of its token, the token's lifetime, and the rule that allows it."""

    not_yet_values: ClassVar[Mapping[str, frozenset[str]]] = {
        "format": frozenset({"txn_token", "passthrough", "unsigned_jwt", "headers"})
    }

    enabled: bool = True
    """`false` refuses the audience from the next reload on and voids its cached tokens."""
    aud: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    """The `aud` of its tokens; default: the audience's name."""
    format: Literal["jwt", "jwe"] = "jwt"
    """`jwt`: a signed JWT. `jwe`: a signed JWT, encrypted to the backend's key (docs/encryption.md)."""
    encryption: EncryptionSettings | None = None
    """Required for `format: jwe`: the backend's key and the algorithm."""
    typ: Literal["at+jwt", "JWT"] = "at+jwt"
    """The token's header `typ` (RFC 9068 §2.1)."""
    algorithm: SigningAlgorithm | None = None
    """The algorithm of the signature; default: `keys.algorithm`. After a change to an algorithm without a key, tokens
    are signed as before until a rotation has added a key for it."""
    ttl: Annotated[Duration, Field(ge=1, le=86400)] = 300.0
    """Maximum lifetime of a token, at most 24h; a token never outlives the credential it was minted from."""
    scopes: Annotated[tuple[ScopeToken, ...], Field(min_length=1)] | None = None
    """The scopes of this backend. Without it the token has no `scope`, and a request for one is refused."""
    allow: Rule | None = None
    """A CEL rule over `identity`, `actor`, `client`, `request`, `route`, `now`; anything but `true` refuses."""
    shadow: Rule | None = None
    """A rule to try out, in the form of `allow`: evaluated and recorded in the audit, never enforced."""
    opa: bool = False
    """Also query OPA (top-level `opa`) after `allow` has passed; anything but `true` refuses."""
    claims: dict[ClaimName, Rule] = Field(default_factory=dict)
    """CEL per claim besides the registered ones, over the same variables. An absent value leaves the claim out."""
    headers: dict[HeaderName, Rule] = Field(default_factory=dict)
    """CEL per identity header (its name begins with `X-`) of a forward-auth answer."""
    bind: Literal["none", "caller_certificate"] = "none"
    """`caller_certificate`: the token is bound to the certificate with which the caller connected (`cnf`, RFC 8705
    §3.1): the backend must require that certificate from every presenter of the token."""
    evidence: bool = False
    """`true`: the token states when and how the third party authenticated the user: `auth_time`, `acr`, `amr` from the
    credential, and `evidence` with its `iss` and `jti_hash` (docs/verify.md)."""
    reuse: Literal["shared", "unique"] = "shared"
    """`unique`: every request gets a token with its own `jti`, never a cached one."""
    multi: bool = False
    """Whether its tokens may name other audiences too, so that one backend can use them at the other."""
    max_token_bytes: Annotated[int, Field(ge=256, le=65536, strict=True)] = 3000
    """A larger token is refused: gateways' header buffers are 4 KB by default."""

    @model_validator(mode="after")
    def _check_encryption(self) -> Self:
        if (self.format == "jwe") != (self.encryption is not None):
            raise ValueError("`format: jwe` and `encryption` go together: write both or neither")
        return self
