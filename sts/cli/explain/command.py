"""`sts explain`: process one request and print the result of each step.

This module does not repeat the steps: it runs the pipeline itself, `Exchange.answer`, with wrapped parts that report
each call. It signs, caches and audits nothing, and the client needs no secret.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

import click
from pydantic import SecretStr

from sts.app import App, Revision
from sts.audit.log import AuditLog
from sts.cli import common
from sts.cli.credential import as_header, as_sent, certificates, urn
from sts.cli.explain.trace import SHOWN, NullRevocations, NullSigner, Trace, TracingProxy, show
from sts.cli.keys.opening import open_ring
from sts.clients.client import ClientSettings
from sts.clients.secret import SecretClient, digest
from sts.edge.token import GRANT_TYPE
from sts.errors import SOURCE_UNREACHABLE, STATE_UNAVAILABLE, UNKNOWN_ISSUER, Refusal, StartError
from sts.jose import parse
from sts.labels import DeploymentSecret
from sts.mint.keystore import open_secret
from sts.model import TYPE_ACCESS_TOKEN, Incoming, Peer
from sts.settings import Settings
from sts.state import open_state
from sts.state.api_keys import ApiKeys
from sts.state.key_records import LABEL, KeyRecords


@click.command()
@common.config_option
@click.option("--audience", multiple=True, metavar="NAME", help="The backend, as at /token; may be repeated.")
@click.option("--request", metavar="LINE", help="A request line, as at forward-auth: 'GET https://host/path'.")
@click.option("--ip", metavar="ADDRESS", help="The user's address of --request, as the gateway would report it.")
@click.option("--client", metavar="ID", help="The calling client; default: the only client.")
@click.option("--scope", metavar="SCOPES", help="Scopes to request with --audience, separated by spaces.")
@click.option(
    "--type",
    "token_type",
    default=TYPE_ACCESS_TOKEN,
    show_default=True,
    metavar="URN",
    help="The credential's type; the last part of the URN suffices.",
)
@click.option("--cert-file", type=click.File("rb"), help="The certificate of the client itself (PEM).")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
@click.argument("file", type=click.File("rb"), default="-")
def explain(  # noqa: PLR0913 - the options of the command line
    *,
    config: Path,
    audience: tuple[str, ...],
    request: str | None,
    ip: str | None,
    client: str | None,
    scope: str | None,
    token_type: str,
    cert_file: BinaryIO | None,
    as_json: bool,
    file: BinaryIO,
) -> None:
    r"""Process the credential in FILE (default: standard input) and print the decision of each step.

    The command reads the configuration and the issuer's keys (it fetches the JWKS if the source has a jwks_uri). It
    needs neither a running service nor the client's secret. It calls OPA if the audience requires OPA. A token of this
    service, presented by a backend (--client), is verified with the key ring.
    With --request, an API key or a certificate (--type) is sent in the header that the client's gateway would use.

    \b
    Examples:
      sts explain --audience orders inbound.jwt
      sts explain --request 'GET https://api.example.com/orders/7' inbound.jwt
      sts explain --request 'GET https://api.example.com/orders/7' --ip 192.0.2.7 inbound.jwt

    \b
    Exit status: 0 a token would be issued, 1 refused (the last step shows the reason), 2 usage, 3 a source, a table,
    OPA or the state store cannot be reached.
    """
    if bool(audience) == bool(request):
        raise click.UsageError("Give either --audience or --request.")
    if ip is not None and request is None:
        raise click.UsageError("--ip requires --request: a request to /token has no user's address.")
    try:
        ip_address(ip or "::")
    except ValueError:
        raise click.UsageError(f"--ip takes an address, and {ip} is not an address.") from None
    settings = common.load(config)
    name = _client(settings, client)
    secret = secrets.token_urlsafe(32)
    credential = common.read_text(file, "the credential")
    shown = certificates(common.read_text(cert_file, "the certificate")) if cert_file is not None else ()
    peer = Peer("127.0.0.1", certificates=shown)
    if request is not None:
        sent = as_header(settings, name, urn(token_type), credential) if credential else {}
        if ip is not None:
            sent["x-original-addr"] = ip
        incoming, door = _forward_auth(settings, name, secret, request, sent), "forward_auth"
    else:
        incoming, door = _token(name, secret, audience, scope, token_type, credential), "token"
    incoming = replace(incoming, peer=peer)
    story = Trace()
    status = _walk(_revision(_let_in(settings, name, secret), story), door, incoming)
    if story.refused_for(UNKNOWN_ISSUER):
        story.hints = _unknown(settings, credential)
    show(story, as_json=as_json)
    if story.refused_for(SOURCE_UNREACHABLE, STATE_UNAVAILABLE):
        raise SystemExit(common.EXIT_UNREACHABLE)
    raise SystemExit(common.EXIT_OK if status == 200 else common.EXIT_REFUSED)


def _client(settings: Settings, name: str | None) -> str:
    if name is None:
        if len(settings.clients) != 1:
            raise click.UsageError(f"There are {len(settings.clients)} clients: say which with --client.")
        return next(iter(settings.clients))
    if name not in settings.clients:
        raise click.UsageError(f"There is no client {name}.")
    return name


def _let_in(settings: Settings, name: str, secret: str) -> Settings:
    """Return the configuration with a temporary secret for this client, which replaces its authentication."""
    kept = {key: getattr(settings.clients[name], key) for key in ClientSettings.model_fields}
    ours = {"auth": "secret", "secrets": (SecretStr(digest(secret)),), "networks": None}
    client = SecretClient.model_construct(**kept | ours)
    return settings.model_copy(update={"clients": {**settings.clients, name: client}})


def _token(
    name: str, secret: str, audience: tuple[str, ...], scope: str | None, token_type: str, credential: str
) -> Incoming:
    """Return the request that a client would send to `/token`."""
    form = [
        ("grant_type", GRANT_TYPE),
        ("client_id", name),
        ("client_secret", secret),
        ("subject_token", as_sent(urn(token_type), credential)),
        ("subject_token_type", urn(token_type)),
        *(("audience", one) for one in audience),
        *([("scope", scope)] if scope else []),
    ]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = urlencode(form, errors="surrogateescape").encode()  # the endpoint refuses text that is not UTF-8
    return Incoming("POST", "/token", headers, Peer("127.0.0.1"), "explain", body)


def _forward_auth(settings: Settings, name: str, secret: str, line: str, sent: dict[str, str]) -> Incoming:
    """Return the request that the client's gateway would send for this request line, with the additional headers."""
    if settings.clients[name].profile != "nginx":
        raise StartError(f"the client {name} has no profile, so it has no access to forward-auth")
    method, _, url = line.partition(" ")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if not method or not parts.netloc:
        raise click.UsageError("--request takes a method and a URL: 'GET https://host/path'.")
    headers = {
        "x-gateway-secret": secret,
        "x-original-method": method,
        "x-original-host": parts.netloc,
        "x-original-uri": (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        "x-original-proto": parts.scheme,
        **sent,
    }
    return Incoming("GET", f"/forward-auth/{name}", headers, Peer("127.0.0.1"), "explain")


def _revision(settings: Settings, story: Trace) -> Revision:
    """Return the revision of the service, with parts that report their steps."""
    unwritten = AuditLog(bytes(32), lambda _line: None, time.time, time.monotonic)
    keyring: Any = NullSigner(lambda: open_ring(settings).load())
    state: Any = NullRevocations(_keys(settings))
    app = App(settings, DeploymentSecret(bytes(32)), keyring, unwritten, state)
    revision = app.current
    tell = story.tell

    def told(part: object, *steps: str) -> Any:  # noqa: ANN401 - a proxy for any part
        return TracingProxy(part, {step: SHOWN[step] for step in steps}, tell)

    def told_table(name: str, table: object) -> Any:  # noqa: ANN401 - a proxy for the table
        def show(part: Any, arguments: tuple[Any, ...], row: Any) -> dict[str, object]:  # noqa: ANN401 - as Show
            return {"table": name, **SHOWN["row"](part, arguments, row)}

        return TracingProxy(table, {"row": show}, tell)

    def told_door(door: object) -> Any:  # noqa: ANN401 - a proxy for the endpoint
        def show(_part: object, arguments: tuple[Any, ...], _reply: object) -> dict[str, object]:
            story.told_refusal(*arguments[1:])
            return {}

        return TracingProxy(told(door, "caller", "ask", "allowed"), {"refused": show}, lambda *_: None)

    clients: Any = TracingProxy(
        revision.exchange.clients, {"prove": SHOWN["prove_client"]}, lambda _, what: tell("prove_client", what)
    )
    policy = revision.exchange.policy
    opa: Any = policy.opa and TracingProxy(policy.opa, {"ask": SHOWN["opa"]}, lambda _, what: tell("opa", what))
    exchange = replace(
        revision.exchange,
        clients=clients,
        sources=told(revision.exchange.sources, "present", "prove"),
        policy=told(replace(policy, opa=opa), "target", "consent", "admit", "identify", "decide"),
        tables={name: told_table(name, table) for name, table in revision.exchange.tables.items()},
        minter=told(replace(revision.exchange.minter, seal=lambda token, _: token), "mint"),
    )
    return replace(
        revision,
        exchange=exchange,
        token_door=told_door(revision.token_door),
        forward_auth_door=told_door(revision.forward_auth_door),
    )


def _keys(settings: Settings) -> ApiKeys | None:
    """Return the API keys in the store, None if the configuration has no source of them. Raises StartError."""
    if not any(source.kept_in_state for source in settings.sources.values()):
        return None
    secret = open_secret(settings.given_secret(), settings.var)
    store = open_state(settings.state, settings.redis, settings.var, time.time)
    keys = ApiKeys(KeyRecords(store, secret.keys(LABEL)), time.time, settings.state)
    keys.follower.look()
    store.close()
    return keys


def _unknown(settings: Settings, credential: str) -> dict[str, object]:
    """Return hints for a credential of no source: its unverified content, and the configured issuers."""
    hints: dict[str, object] = {}
    try:
        token = parse(credential)
    except Refusal:
        hints["credential"] = 'not a JWT (three base64url parts); if it begins with "Bearer ", leave that out'
    else:
        hints["unverified header"] = token.header
        hints["unverified claims"] = token.claims
    known = [
        issuer + ("" if source.enabled else " (disabled)")
        for source in settings.sources.values()
        if (issuer := source.claims_issuer()) is not None
    ]
    return {**hints, "configured issuers": ", ".join(known) or "none"}


def _walk(revision: Revision, door: str, incoming: Incoming) -> int:
    at = revision.token_door if door == "token" else revision.forward_auth_door
    try:
        return revision.exchange.answer(at, incoming).status
    finally:
        if isinstance(revision.exchange.policy.opa, TracingProxy):
            revision.exchange.policy.opa.close()
