"""`sts explain`: walk one request through the pipeline and say what each step made of it.

The steps are not written a second time here: it is the pipeline itself, `Exchange.answer`, that runs, with the parts it
calls wrapped so that each call is told. Nothing is signed, kept or audited, and the client needs no secret.
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
@click.option("--ip", metavar="ADDRESS", help="Whose request the line is, as the gateway would report it.")
@click.option("--client", metavar="ID", help="Who asks; default: the only client there is.")
@click.option("--scope", metavar="SCOPES", help="Scopes to ask for with --audience, separated by spaces.")
@click.option(
    "--type",
    "token_type",
    default=TYPE_ACCESS_TOKEN,
    show_default=True,
    metavar="URN",
    help="The credential's type; the last part of the URN is enough.",
)
@click.option("--cert-file", type=click.File("rb"), help="The certificate that the client itself shows (PEM).")
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
    r"""Walk the credential in FILE (default: standard input) through the pipeline and show what each step decides.

    It reads the configuration and the issuer's keys (its JWKS is fetched if the source has a jwks_uri), and needs
    neither a running service nor the client's secret. OPA is asked where the audience says so. One of our own tokens,
    handed back by a backend (--client), is proven by the key ring.
    With --request an API key or a certificate (--type) comes in the header that the client's gateway would use.

    \b
    Examples:
      sts explain --audience orders inbound.jwt
      sts explain --request 'GET https://api.example.com/orders/7' inbound.jwt
      sts explain --request 'GET https://api.example.com/orders/7' --ip 192.0.2.7 inbound.jwt

    \b
    Exit status: 0 a token would be made, 1 refused (the last step says why), 2 usage, 3 a source, a table, OPA or the
    state store cannot be reached.
    """
    if bool(audience) == bool(request):
        raise click.UsageError("Give either --audience or --request.")
    if ip is not None and request is None:
        raise click.UsageError("--ip goes with --request: at /token nobody says whose request it was.")
    try:
        ip_address(ip or "::")
    except ValueError:
        raise click.UsageError(f"--ip takes an address, and {ip} is none.") from None
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
    """The same configuration with a secret of our own for this one client, however it proves itself, from any peer."""
    kept = {key: getattr(settings.clients[name], key) for key in ClientSettings.model_fields}
    ours = {"auth": "secret", "secrets": (SecretStr(digest(secret)),), "networks": None}
    client = SecretClient.model_construct(**kept | ours)
    return settings.model_copy(update={"clients": {**settings.clients, name: client}})


def _token(
    name: str, secret: str, audience: tuple[str, ...], scope: str | None, token_type: str, credential: str
) -> Incoming:
    """The request that a client would send to `/token`."""
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
    body = urlencode(form, errors="surrogateescape").encode()  # what is no UTF-8 is the door's to refuse
    return Incoming("POST", "/token", headers, Peer("127.0.0.1"), "explain", body)


def _forward_auth(settings: Settings, name: str, secret: str, line: str, sent: dict[str, str]) -> Incoming:
    """The request that the client's gateway would send for this request line, with the headers `sent` as well."""
    if settings.clients[name].profile != "nginx":
        raise StartError(f"the client {name} has no profile, so no forward-auth door")
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
    """The revision that would serve, with its steps told."""
    unwritten = AuditLog(bytes(32), lambda _line: None, time.time, time.monotonic)
    keyring: Any = NullSigner(lambda: open_ring(settings).load())
    state: Any = NullRevocations(_keys(settings))
    app = App(settings, DeploymentSecret(bytes(32)), keyring, unwritten, state)
    revision = app.current
    tell = story.tell

    def told(part: object, *steps: str) -> Any:  # noqa: ANN401 - it stands for any part
        return TracingProxy(part, {step: SHOWN[step] for step in steps}, tell)

    def told_table(name: str, table: object) -> Any:  # noqa: ANN401 - it stands for the table
        def show(part: Any, arguments: tuple[Any, ...], row: Any) -> dict[str, object]:  # noqa: ANN401 - as Show
            return {"table": name, **SHOWN["row"](part, arguments, row)}

        return TracingProxy(table, {"row": show}, tell)

    def told_door(door: object) -> Any:  # noqa: ANN401 - it stands for the door
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
    """The API keys as they stand in the store now, where the configuration has sources of them. Raises StartError."""
    if not any(source.kept_in_state for source in settings.sources.values()):
        return None
    secret = open_secret(settings.given_secret(), settings.var)
    store = open_state(settings.state, settings.redis, settings.var, time.time)
    keys = ApiKeys(KeyRecords(store, secret.keys(LABEL)), time.time, settings.state)
    keys.follower.look()
    store.close()
    return keys


def _unknown(settings: Settings, credential: str) -> dict[str, object]:
    """What helps with a credential of no source: what it says of itself, unverified, and what would be known."""
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
