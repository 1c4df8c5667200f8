"""The forward-auth door: a gateway asks whether a request may pass, and with which headers.

The answer hangs on the status alone: 200 passes, 401 and 403 do not, 503 means that it cannot be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import AfterValidator

from sts.credentials.certificate import encode_chain
from sts.edge.certificate_headers import handed_on
from sts.edge.profiles import PROFILES, is_preflight
from sts.edge.reply import REALM, RETRY_AFTER, problem
from sts.edge.routes import Routes
from sts.errors import (
    CLIENT_REFUSED,
    EXPIRED,
    INSUFFICIENT_SCOPE,
    MALFORMED,
    MISSING_CREDENTIAL,
    TOKEN_TOO_LARGE,
    Reason,
    Refusal,
)
from sts.model import (
    TYPE_ACCESS_TOKEN,
    TYPE_CLIENT_CERTIFICATE,
    Ask,
    Caller,
    Client,
    Credential,
    DoorName,
    Incoming,
    Issued,
    Reply,
    thumbprint,
)
from sts.options import Section
from sts.policy.headers import ABSENT, header_name

PATH: Final = "/forward-auth"
AUTHORIZATION: Final = "Authorization"
HEADROOM_BYTES: Final = 1000  # for all headers beside the token: gateways buffer 4 KB
SERVER_BYTES: Final = 128  # of them for the status line and what the server adds

_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TOKEN68: Final = re.compile(r" *([A-Za-z0-9._~+/-]+=*)")

# On a 401 no more is said than a stranger may know: a revoked credential looks like a forged one.
_INVALID: Final = ("invalid_credential", "The credential is not valid.")


def _check_token_header(value: str) -> str:
    return AUTHORIZATION if value.lower() == AUTHORIZATION.lower() else header_name(value)


class ForwardAuthSettings(Section):
    """How the forward-auth door answers."""

    token_header: Annotated[str, AfterValidator(_check_token_header)] = AUTHORIZATION
    """The header with the minted token: `Authorization` ("Bearer" and the token) or an `X-` header (the bare token)."""


class ForwardAuthDoor:
    """Reads a gateway's question and writes the answer.

    `identity_headers` are the names of all audiences' identity headers: every 200 carries each of them, so that the
    gateway overwrites what a client forged (CVE-2026-30851). `max_token_bytes` is each audience's, by name.
    `credential_headers` are the headers that credentials of some kinds come in, each with their token type; those of
    disabled sources too.
    """

    name: DoorName = "forward_auth"

    def __init__(
        self,
        settings: ForwardAuthSettings,
        routes: Routes,
        identity_headers: Iterable[str],
        max_token_bytes: Mapping[str, int],
        credential_headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.routes = routes
        self._token_header = settings.token_header
        self._token_prefix = "Bearer " if settings.token_header == AUTHORIZATION else ""
        self._absent = dict.fromkeys([self._token_header, *sorted(set(identity_headers))], ABSENT)
        self._max_token_bytes = dict(max_token_bytes)
        self._credential_headers = {header.lower(): declared for header, declared in credential_headers.items()}

    def caller(self, incoming: Incoming) -> Caller:
        """Who the caller says it is: the client id in the path, and `X-Gateway-Secret`, or its connection without it.

        A doubled secret arrives joined with a comma, which no secret holds: it is no good one. Raises CLIENT_REFUSED.
        """
        path = incoming.target.partition("?")[0]
        client_id = path.removeprefix(PATH + "/").partition("/")[0]
        if not path.startswith(PATH + "/") or not _CLIENT_ID.fullmatch(client_id):
            raise Refusal(CLIENT_REFUSED, why="no client id in the path")
        secret = incoming.headers.get("x-gateway-secret")
        return Caller(self.name, client_id, "" if secret and "," in secret else secret, incoming.peer)

    def ask(self, incoming: Incoming, caller: Caller, client: Client) -> Ask:
        """Which request the gateway asks about, and what its route needs; body and query are never read.

        Raises PROFILE_HEADER_MISSING, AMBIGUOUS_PATH and NO_ROUTE for the request, MISSING_CREDENTIAL and MALFORMED
        for its credential.
        """
        if client.profile is None:
            raise Refusal(CLIENT_REFUSED, why="client has no profile")
        headers = incoming.headers
        request = PROFILES[client.profile].facts(headers)
        route = self.routes.match(request, preflight=is_preflight(headers))
        known = self._credential_headers
        try:
            certificates = None if route.open else handed_on(headers, client.certificate_header)
            credential = None if route.open else _read_credential(headers, client, certificates, known)
        except Refusal as refusal:
            raise Refusal(refusal.reason, **refusal.facts, route=route.name) from None
        return Ask(
            door=self.name,
            credential=credential,
            audiences=() if route.audience is None else (route.audience,),
            scopes=route.scopes,
            route=route.name,
            request=request,
            certificate=thumbprint(certificates[0]) if certificates else None,
            caller_certificate=caller.thumbprint,
        )

    def allowed(self, incoming: Incoming, ask: Ask, issued: Issued | None, now: float) -> Reply:  # noqa: ARG002 - Door
        """Let the request pass. On a public route every header says that there is none.

        Raises TOKEN_TOO_LARGE where gateways' buffers could not hold the answer (nginx would turn it into a 500).
        """
        headers = self._absent.copy()
        if issued is not None:
            headers[self._token_header] = self._token_prefix + issued.token
            headers.update(issued.headers)
            headers["X-Token-Expires-At"] = str(issued.expires_at)
        headers["Cache-Control"] = "no-store"
        headers["X-Request-ID"] = incoming.request_id
        if issued is not None:
            size = SERVER_BYTES + sum([len(name) + len(value) + 4 for name, value in headers.items()])
            limit = self._max_token_bytes[ask.audiences[0]] + HEADROOM_BYTES
            if size > limit:
                raise Refusal(TOKEN_TOO_LARGE, why="token and headers together", header_bytes=size, max_bytes=limit)
        return Reply(200, tuple(headers.items()))

    def refused(self, incoming: Incoming, reason: Reason, facts: Mapping[str, object]) -> Reply:
        """Say no (RFC 9457, RFC 6750 §3). Of `facts` only the scopes that the route needs are told."""
        status = reason.forward_status
        name, sentence = reason.name, reason.sentence
        if status == 401 and reason not in (MISSING_CREDENTIAL, EXPIRED):
            name, sentence = _INVALID
        headers = [("X-Request-ID", incoming.request_id), ("X-Auth-Reason", name)]
        if status == 401 or reason is INSUFFICIENT_SCOPE:
            headers.append(("WWW-Authenticate", _challenge(reason, sentence, facts)))
        elif status == 503:
            headers.append(RETRY_AFTER)
        return problem(status, name, sentence, incoming.request_id, headers)


def _read_credential(
    headers: Mapping[str, str], client: Client, certificates: tuple[bytes, ...] | None, known: Mapping[str, str]
) -> Credential:
    """The one credential of a request: a Bearer token, one in a header of its kind, or certificates handed on.

    `known` are the headers of kinds, such as that of API keys, with their token types. Beside a token or a key a
    certificate is no credential; a token may be bound to it. Raises MISSING_CREDENTIAL, MALFORMED, also for a token
    beside a key (AK-03).
    """
    authorization = headers.get("authorization")
    keys = [Credential(declared, headers[name].strip()) for name, declared in known.items() if name in headers]
    if len(keys) > 1 or (keys and authorization is not None):
        raise Refusal(MALFORMED, why="two credentials in one request")
    if keys:
        return keys[0]
    if certificates is None or authorization is not None:
        return bearer(authorization or "")
    return Credential(TYPE_CLIENT_CERTIFICATE, encode_chain(certificates), handed_on=client.may_present)


def bearer(authorization: str) -> Credential:
    """Read the one Bearer token of an `Authorization` header (RFC 6750 §2.1, RFC 9110 §11.4).

    Raises MISSING_CREDENTIAL for no header or another scheme, MALFORMED for anything but exactly one token: a second
    value arrives joined with a comma.
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(MISSING_CREDENTIAL, why="no Bearer token")
    token = _TOKEN68.fullmatch(rest)
    if token is None:
        raise Refusal(MALFORMED, why="not exactly one Bearer token")
    return Credential(TYPE_ACCESS_TOKEN, token[1])


def _challenge(reason: Reason, sentence: str, facts: Mapping[str, object]) -> str:
    challenge = f'Bearer realm="{REALM}"'
    if reason.challenge:
        challenge += f', error="{reason.challenge}", error_description="{sentence}"'
    if reason is INSUFFICIENT_SCOPE and facts.get("scope"):
        challenge += f', scope="{facts["scope"]}"'
    return challenge
