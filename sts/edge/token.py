"""The token door: RFC 8693 token exchange at `POST /token`."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_plus

from sts.clients.assertion import ASSERTION_TYPE
from sts.credentials.certificate import encode_chain
from sts.edge.certificate_headers import Proxies
from sts.edge.form import Form, is_forwarded, read_form
from sts.edge.reply import NO_STORE, REALM, RETRY_AFTER, to_json
from sts.errors import CLIENT_REFUSED, INTERNAL_ERROR, MALFORMED, MISSING_CREDENTIAL, Reason, Refusal
from sts.jose import parse
from sts.model import (
    TYPE_ACCESS_TOKEN,
    TYPE_CLIENT_CERTIFICATE,
    TYPE_JWT,
    Ask,
    Caller,
    Client,
    Credential,
    DoorName,
    Incoming,
    Issued,
    Peer,
    Reply,
)
from sts.telemetry import metrics

PATH: Final = "/token"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
REQUESTED_TYPES: Final = frozenset({TYPE_ACCESS_TOKEN, TYPE_JWT})
REPEATABLE: Final = frozenset({"audience", "resource"})
KNOWN: Final = frozenset(
    {"grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type"}
    | {"audience", "resource", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type"}
    | {"authorization_details"}
)
"""All other parameters are ignored (RFC 6749 §3.2), and counted."""

# Variants of MALFORMED with OAuth's specific error code (RFC 6749 §5.2, RFC 8707 §2).
UNSUPPORTED_GRANT_TYPE: Final = replace(MALFORMED, error="unsupported_grant_type")
MALFORMED_SCOPE: Final = replace(MALFORMED, error="invalid_scope")
MALFORMED_RESOURCE: Final = replace(MALFORMED, error="invalid_target")

_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")


class TokenDoor:
    """Reads token exchange requests and writes their answers."""

    name: DoorName = "token"

    def __init__(self, proxies: Proxies | None = None) -> None:
        self._proxies = proxies or Proxies(())

    def caller(self, incoming: Incoming) -> Caller:
        """Return the claimed caller and its evidence: see `_read_caller`.

        Raises MALFORMED for a request that is not a form, uses two methods, or has a certificate header from a sender
        that is not a configured proxy; CLIENT_REFUSED for evidence that cannot be read.
        """
        return self.read(incoming, PATH, REPEATABLE)

    def read(self, incoming: Incoming, path: str, repeatable: frozenset[str] = frozenset()) -> Caller:
        """Read a request as `caller` does, for every endpoint with this client authentication (RFC 7662 §2.1)."""
        if incoming.target.partition("?")[0] != path:
            raise Refusal(MALFORMED, why="the target is not in origin form")
        form = read_form(incoming, repeatable)
        return _read_caller(incoming, form, self._proxies.peer(incoming))

    def ask(self, incoming: Incoming, caller: Caller, client: Client) -> Ask:
        """Return the parsed request (RFC 8693 §2.1). Raises MALFORMED; MISSING_CREDENTIAL without `subject_token`."""
        form: Form = caller.read
        grant_type = form.one("grant_type")
        if grant_type is None:
            raise Refusal(MALFORMED, why="grant_type is missing")
        if grant_type != GRANT_TYPE:
            raise Refusal(UNSUPPORTED_GRANT_TYPE, why="another grant_type")
        if form.all("authorization_details"):
            raise Refusal(MALFORMED, why="authorization_details are not supported")
        if "dpop" in incoming.headers:  # the sender expects a bound token: an unbound one must not be the answer
            raise Refusal(MALFORMED, why="DPoP is not supported")
        if not form.values.keys() <= KNOWN:
            metrics.unknown_parameter()
        requested_type = form.one("requested_token_type") or TYPE_ACCESS_TOKEN
        if requested_type not in REQUESTED_TYPES:
            raise Refusal(MALFORMED, why="an unknown requested_token_type")
        actor = _read_actor(form)
        return Ask(
            door=self.name,
            credential=_with_possession(_read_credential(form), caller, client),
            audiences=form.all("audience"),
            resources=_read_resources(form),
            scopes=_read_scopes(form),
            requested_type=requested_type,
            actor=None if actor is None else _with_possession(actor, caller, client),
            certificate=caller.thumbprint,
            caller_certificate=caller.thumbprint,
        )

    def allowed(self, incoming: Incoming, ask: Ask, issued: Issued | None, now: float) -> Reply:
        """Return the token (RFC 8693 §2.2.1). `expires_in` is its remaining time in whole seconds, at least one."""
        if issued is None:
            raise Refusal(INTERNAL_ERROR, why="no token was issued")
        document: dict[str, object] = {
            "access_token": issued.token,
            "issued_token_type": ask.requested_type,
            "token_type": issued.token_type,
            "expires_in": max(1, int(issued.expires_at - now)),  # 0 stops some clients, though the token is still valid
        }
        if issued.scopes is not None:
            document["scope"] = " ".join(issued.scopes)
        return reply(200, document, incoming)

    def refused(self, incoming: Incoming, reason: Reason, facts: Mapping[str, object]) -> Reply:  # noqa: ARG002 - private
        """Refuse the request (RFC 6749 §5.2, RFC 8693 §2.2.2): only constants, no part of the request or `facts`."""
        headers: list[tuple[str, str]] = []
        status = reason.token_status
        if status == 401:
            headers.append(("WWW-Authenticate", f'Basic realm="{REALM}"'))
        elif status == 405:
            headers.append(("Allow", "POST"))
        elif reason.retry:
            headers.append(RETRY_AFTER)
        document = {"error": reason.error, "error_reason": reason.name, "error_description": reason.sentence}
        return reply(status, document, incoming, headers)


def reply(
    status: int, document: Mapping[str, object], incoming: Incoming, headers: list[tuple[str, str]] | None = None
) -> Reply:
    """Write an answer of an OAuth endpoint: JSON that must not be cached (RFC 6749 §5.1)."""
    fixed = (("Content-Type", "application/json"), NO_STORE, ("Pragma", "no-cache"))
    return Reply(status, (*fixed, ("X-Request-ID", incoming.request_id), *(headers or ())), to_json(document))


def _read_caller(incoming: Incoming, form: Form, peer: Peer) -> Caller:
    """Return the caller with the one authentication method that a request uses (RFC 6749 §2.3).

    HTTP Basic, or `client_id` and `client_secret` in the form (§2.3.1); an assertion (RFC 7523 §2.2); an access token
    of the client's own; or `client_id` alone, if the connection proves it.
    """
    authorization = incoming.headers.get("authorization")
    client_id, secret, assertion = form.one("client_id"), form.one("client_secret"), form.one("client_assertion")
    asserted = assertion is not None or form.one("client_assertion_type") is not None
    if (authorization is not None) + (secret is not None) + asserted > 1:
        raise Refusal(MALFORMED, why="two methods of client authentication")
    bearer = None
    if asserted:
        if assertion is None:
            raise Refusal(MALFORMED, why="client_assertion_type without a client_assertion")
        if form.one("client_assertion_type") != ASSERTION_TYPE:
            raise Refusal(CLIENT_REFUSED, why="client_assertion_type is not jwt-bearer")
        client_id = client_id or _claimed_id(assertion, "sub")
    elif authorization is not None and authorization[:7].lower() == "bearer ":
        bearer = authorization[7:].strip(" ")
        client_id = client_id or _claimed_id(bearer, "client_id")
    elif authorization is not None:
        basic_id, secret = _read_basic(authorization)
        if client_id not in (None, basic_id):
            raise Refusal(MALFORMED, why="client_id differs from the authenticated one")
        client_id = basic_id
    if client_id is None:
        raise Refusal(CLIENT_REFUSED, why="no client authentication")
    if not _CLIENT_ID.fullmatch(client_id):
        raise Refusal(CLIENT_REFUSED, why="not a client id")
    # Only proxies send a secret in this header here: the caller behind a proxy does not have the proxy's address.
    forwarded = is_forwarded(incoming.headers) or "x-gateway-secret" in incoming.headers
    return Caller("token", client_id, secret, peer, form, assertion, bearer, forwarded)


def _claimed_id(token: str, claim: str) -> str:
    """Return the client id that a token claims; the token is not proven yet (RFC 7521 §4.2)."""
    try:
        named = parse(token).claims.get(claim)
    except Refusal as refusal:
        facts = {**refusal.facts, "fault": refusal.reason.name}
        raise Refusal(CLIENT_REFUSED, **facts) from None
    return named if isinstance(named, str) else ""


def _read_basic(authorization: str) -> tuple[str, str]:
    """Return client id and secret, each unquoted once (RFC 6749 §2.3.1).

    Some clients encode both parts, others send them unchanged; ids and secrets contain only characters for which both
    give the same result.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise Refusal(CLIENT_REFUSED, why="the Authorization scheme is not Basic")
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        client_id, secret = unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:  # not base64, or not UTF-8
        raise Refusal(CLIENT_REFUSED, why="Basic cannot be read") from None
    if not colon:
        raise Refusal(CLIENT_REFUSED, why="Basic without a colon")
    return client_id, secret


def _read_credential(form: Form) -> Credential:
    token, token_type = form.one("subject_token"), form.one("subject_token_type")
    if token is None:
        raise Refusal(MISSING_CREDENTIAL, why="subject_token is missing")
    if token_type is None:
        raise Refusal(MALFORMED, why="subject_token_type is missing")
    return Credential(token_type, token)


def _read_actor(form: Form) -> Credential | None:
    token, token_type = form.one("actor_token"), form.one("actor_token_type")
    if token is None and token_type is None:
        return None
    if token is None or token_type is None:
        raise Refusal(MALFORMED, why="actor_token and actor_token_type go together")
    return Credential(token_type, token)


def _with_possession(credential: Credential, caller: Caller, client: Client) -> Credential:
    """State for a certificate whether the caller proved to have its key, and for which sources it may forward it."""
    if credential.token_type != TYPE_CLIENT_CERTIFICATE:
        return credential
    own = encode_chain(caller.peer.certificates[:1])
    held = own != "" and credential.value.partition(".")[0] == own
    return replace(credential, held=held, handed_on=client.may_present)


def _read_resources(form: Form) -> tuple[str, ...]:
    resources = form.all("resource")
    if not all(_ABSOLUTE_URI.fullmatch(resource) for resource in resources):
        raise Refusal(MALFORMED_RESOURCE, why="a resource is not an absolute URI, or has a fragment")
    return resources


def _read_scopes(form: Form) -> tuple[str, ...] | None:
    scope = form.one("scope")
    if scope is None:
        return None
    if not _SCOPE.fullmatch(scope):
        raise Refusal(MALFORMED_SCOPE, why="scope does not have the form of RFC 6749 §3.3")
    return tuple(dict.fromkeys(scope.split(" ")))
