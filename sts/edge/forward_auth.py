"""The forward-auth door: a gateway checks whether a request may pass, and receives the headers for the backend.

Only the status matters: 200 allows, 401 and 403 refuse, 503 means that no decision is possible.
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
HEADROOM_BYTES: Final = 1000  # for all headers except the token: gateways buffer 4 KB
SERVER_BYTES: Final = 128  # of these, for the status line and the headers that the server adds

_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TOKEN68: Final = re.compile(r" *([A-Za-z0-9._~+/-]+=*)")

# A 401 reports no detail to an unknown caller: a revoked credential looks like a forged one.
_INVALID: Final = ("invalid_credential", "The credential is not valid.")


def _check_token_header(value: str) -> str:
    return AUTHORIZATION if value.lower() == AUTHORIZATION.lower() else header_name(value)


class ForwardAuthSettings(Section):
    """The answers of the forward-auth door."""

    token_header: Annotated[str, AfterValidator(_check_token_header)] = AUTHORIZATION
    """The header with the minted token: `Authorization` ("Bearer" and the token) or an `X-` header (the bare token)."""


class ForwardAuthDoor:
    """Reads a gateway's request and writes the answer.

    `identity_headers` are the names of all audiences' identity headers: every 200 has each of them, so that the gateway
    overwrites headers that a client forged (CVE-2026-30851). `max_token_bytes` is each audience's limit, by name.
    `credential_headers` are the headers in which some kinds of credentials arrive, each with its token type; those of
    disabled sources are included.
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
        """Return the claimed caller: the client id in the path, and `X-Gateway-Secret`, or only its connection.

        A repeated secret arrives joined with a comma, which no valid secret contains. Raises CLIENT_REFUSED.
        """
        path = incoming.target.partition("?")[0]
        client_id = path.removeprefix(PATH + "/").partition("/")[0]
        if not path.startswith(PATH + "/") or not _CLIENT_ID.fullmatch(client_id):
            raise Refusal(CLIENT_REFUSED, why="no client id in the path")
        secret = incoming.headers.get("x-gateway-secret")
        return Caller(self.name, client_id, "" if secret and "," in secret else secret, incoming.peer)

    def ask(self, incoming: Incoming, caller: Caller, client: Client) -> Ask:
        """Return the request that the gateway checks, and the needs of its route; body and query are never read.

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
        """Let the request pass. On a public route every header has the value for "absent".

        Raises TOKEN_TOO_LARGE if the answer exceeds gateways' buffers (nginx would turn it into a 500).
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
        """Refuse the request (RFC 9457, RFC 6750 §3). Of `facts` the answer has only the scopes of the route."""
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
    """Return the one credential of a request: a Bearer token, one in a header of its kind, or forwarded certificates.

    `known` are the headers of kinds, such as that of API keys, with their token types. With a token or a key, a
    certificate is not a credential; a token may be bound to it. Raises MISSING_CREDENTIAL, MALFORMED, also for a token
    together with a key (AK-03).
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
    """Return the one Bearer token of an `Authorization` header (RFC 6750 §2.1, RFC 9110 §11.4).

    Raises MISSING_CREDENTIAL without the header or for another scheme, MALFORMED for anything but exactly one token: a
    second value arrives joined with a comma.
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
