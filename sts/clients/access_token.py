"""Clients that authenticate with their own access token from a configured source (client credentials grant)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import StringConstraints

from sts.clients.client import ClientSettings
from sts.clients.proof import no_proof, unproven
from sts.errors import Refusal
from sts.model import Caller, Evidence
from sts.options import Name


class AccessTokenClient(ClientSettings):
    """A client with a token of the client credentials grant, for `/token` only."""

    has_forward_auth: ClassVar[bool] = False

    auth: Literal["access_token"]
    """`Authorization: Bearer` at `/token`: a JWT of the client credentials grant, meant for us (`aud` our issuer)."""
    source: Name
    """The source of type `jwt` that issues its tokens."""
    client_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    """The client's id at that source: the token's `client_id` and `sub` are both exactly this."""


class Tokens(Protocol):
    """Verifies the access tokens of sources."""

    def prove(self, token: str, certificate: str | None, now: float) -> tuple[str, Mapping[str, Any]]:
        """Return the source and the claims of a token if it is for us, unexpired and not revoked. May wait.

        `certificate` is the thumbprint of the caller's certificate, for a token that is bound to one. Raises Refusal.
        """


class AccessTokenProof:
    """The `Proof` of a client by access token.

    A client id of "" matches no token; it serves for unknown clients, so that they take the same time.
    """

    evidence: Evidence = "bearer"

    def __init__(self, source: str, client_id: str, tokens: Tokens) -> None:
        self._source, self._client_id, self._tokens = source, client_id, tokens

    def prove(self, caller: Caller, now: float) -> None:
        """Verify the token (see `Proof`). A user's token is refused: holding one does not identify the client."""
        try:
            source, claims = self._tokens.prove(caller.bearer or "", caller.thumbprint, now)
        except Refusal as refusal:
            raise no_proof(refusal) from None
        if source != self._source:
            raise unproven("the token is of another source than the client's")
        if not self._client_id or claims.get("client_id") != self._client_id or claims.get("sub") != self._client_id:
            raise unproven("client_id and sub of the token are not the client's")
