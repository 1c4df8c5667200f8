"""Clients that authenticate with a JWT that they sign (RFC 7523 §2.2, §3, as amended by the draft RFC 7523bis)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from sts.clients.client import ClientSettings
from sts.clients.dummy import DUMMY_KEYS
from sts.clients.proof import Once, no_proof, unproven
from sts.errors import CLIENT_REFUSED, SOURCE_UNREACHABLE, Refusal
from sts.jose import Algorithm, Compact, VerifyKey, media_type, parse, text_or_texts, verify
from sts.model import Caller, Evidence
from sts.options import Duration, KeptConfigFile, file_faults
from sts.trust.fetch import OutboundUrl, read_ca
from sts.trust.issuers import Issuer
from sts.trust.remote_jwks import FileJwks, KeySource

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_LIFE_S: Final = 300.0
"""How far ahead `exp` may be, and how long ago `iat`."""
LEEWAY_S: Final = 10.0
"""How far the client's clock may be ahead."""
MAX_JTI: Final = 256
_SKEW_S: Final = 60.0  # clock skew of replicas: for each of them a mark must outlive its assertion
_TYP: Final = frozenset({None, "jwt", "client-authentication+jwt"})
DEFAULT_ALGORITHMS: Final[tuple[Algorithm, ...]] = tuple(sorted(get_args(Algorithm)))


class AssertionClient(ClientSettings):
    """A client that signs a token for each call (`private_key_jwt`), at `/token` only."""

    has_forward_auth: ClassVar[bool] = False

    auth: Literal["private_key_jwt"]
    """The client signs a JWT for each request, and sends it as `client_assertion` at `/token`; no shared secret."""
    jwks_file: KeptConfigFile | None = None
    """The client's public keys as a JWK set in a file, instead of `jwks_uri`."""
    jwks_uri: OutboundUrl | None = None
    """The URL of the client's public keys, instead of `jwks_file`."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that verify the https of `jwks_uri`, instead of the system's CAs."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = DEFAULT_ALGORITHMS
    """The accepted algorithms; the type, curve and `alg` of a key restrict them further. Default: all of the keys."""
    stale_jwks: Duration = 3600.0
    """How long the client's last keys remain in use after their expiry if `jwks_uri` is unreachable."""

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if (self.jwks_uri is None) == (self.jwks_file is None):
            raise ValueError("write either jwks_file or jwks_uri: where its public keys are")
        if self.jwks_file is not None and self.ca_file is not None:
            raise ValueError("ca_file is for fetching; jwks_file needs no fetching")
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("jwks_file", self.jwks_file, lambda file: FileJwks(file, self.algorithms))
        yield from file_faults("ca_file", self.ca_file, read_ca)

    def trusted(self, client_id: str) -> Issuer:
        """Return the settings that determine this client's keys."""
        return Issuer(
            source=f"client {client_id}",
            issuer=client_id,
            algorithms=self.algorithms,
            jwks_uri=self.jwks_uri,
            jwks_file=self.jwks_file,
            discovery=False,
            ca_file=self.ca_file,
            stale_jwks=self.stale_jwks,
            is_caller=True,
        )


class AssertionProof:
    """The `Proof` of a client by signed assertion. `audience` is our issuer identifier."""

    evidence: Evidence = "assertion"

    def __init__(self, client_id: str, audience: str, keys: KeySource, algorithms: tuple[str, ...]) -> None:
        self._client_id, self._audience, self._keys = client_id, audience, keys
        self._algorithms = frozenset(algorithms)

    @property
    def trouble(self) -> str:
        """Why the last fetch of the client's keys failed, "" if it succeeded; for operators."""
        return self._keys.trouble

    def prove(self, caller: Caller, now: float) -> Once:
        """Verify the assertion (see `Proof`). May wait for the client's keys.

        Each assertion is accepted once (RFC 7523 §3 (7)); a forged one leaves no mark.
        """
        try:
            assertion = parse(caller.assertion or "")
            until, jti = self._judge(assertion, now)
            verify(assertion, self._keys_for(assertion, now))
        except Refusal as refusal:
            raise no_proof(refusal) from None
        return Once("client assertion", (self._client_id, jti), until + _SKEW_S)

    def _keys_for(self, assertion: Compact, now: float) -> tuple[VerifyKey, ...]:
        """Return the client's keys. If there is none, a dummy verification takes the same time as a real one.

        Without it, the time would reveal that the client exists. If the keys cannot be fetched, the client is refused
        in the same way: a 503 would also reveal it. Operators find the reason in the audit, the log, `/readyz` and
        sts_jwks_fetches_total.
        """
        try:
            return self._keys.keys_for(assertion.kid, assertion.algorithm, now)
        except Refusal as refusal:
            with suppress(Refusal):
                verify(assertion, DUMMY_KEYS.keys_for(assertion.kid, assertion.algorithm, now))
            if refusal.reason is SOURCE_UNREACHABLE:
                facts = {**refusal.facts, "why": f"the client's keys cannot be fetched: {refusal.facts.get('why')}"}
                raise Refusal(CLIENT_REFUSED, **facts, fault=refusal.reason.name) from None
            raise

    def _judge(self, assertion: Compact, now: float) -> tuple[float, str]:
        """Check the claims, which must be valid for any signer; returns `exp` and `jti`."""
        claims = assertion.claims
        typ = assertion.header.get("typ")
        if assertion.algorithm not in self._algorithms:
            raise unproven("the client may not sign with this algorithm", alg=assertion.algorithm)
        if (typ if typ is None else media_type(typ)) not in _TYP:
            raise unproven("the assertion's typ is that of another kind of token")
        if claims.get("iss") != self._client_id or claims.get("sub") != self._client_id:
            raise unproven("iss and sub of an assertion are the client id")
        # The URL of the token endpoint is refused: a later operator of that URL could also accept it (RFC 7523bis §4).
        if text_or_texts(claims.get("aud"), "aud") != (self._audience,):
            raise unproven("aud of an assertion is our issuer and nothing else")
        _check_times(claims.get("exp"), claims.get("iat"), claims.get("nbf"), now)
        jti = claims.get("jti")
        if not jti or len(jti) > MAX_JTI:
            raise unproven("an assertion has a jti, and a short one")
        return float(claims["exp"]), jti


def _check_times(exp: float | None, iat: float | None, nbf: float | None, now: float) -> None:
    if exp is None or exp <= now:
        raise unproven("the assertion has expired, or has no exp")
    if exp > now + MAX_LIFE_S + LEEWAY_S:
        raise unproven("the assertion's exp is too far ahead", max_life_s=MAX_LIFE_S)
    if iat is not None and not now - MAX_LIFE_S - LEEWAY_S <= iat <= now + LEEWAY_S:
        raise unproven("the assertion's iat is too long ago, or ahead", max_age_s=MAX_LIFE_S)
    if nbf is not None and nbf > now + LEEWAY_S:
        raise unproven("the assertion is not valid yet")
