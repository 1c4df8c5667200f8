"""`sts explain`: walk one request through the pipeline and say what each step made of it.

The steps are not written a second time here: it is the pipeline itself, `Exchange.answer`, that runs, with the parts it
calls wrapped so that each call is told. Nothing is signed, kept or audited, and the client needs no secret.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlencode, urlsplit

import click
from pydantic import SecretStr
from rich.text import Text

from sts.app import App, Revision
from sts.audit import AuditLog
from sts.cli import common
from sts.clients.secret import digest
from sts.edge.token import GRANT_TYPE
from sts.errors import Refusal, StartError
from sts.labels import DeploymentSecret
from sts.model import NOT_APPLICABLE, TYPE_ACCESS_TOKEN, TYPE_PREFIX, Incoming, Peer
from sts.options import show_duration
from sts.settings import Settings, printable

Show = Callable[[Any, tuple[Any, ...], Any], Mapping[str, object]]
"""What to tell of a step, from the part it belongs to, its arguments and its result."""


@dataclass(frozen=True, slots=True)
class _Unsigned:
    """Stands where the keyring stands, so that a token can be shown without one being made."""

    kid: str = "(not signed)"
    algorithm: str = "ES256"

    def signer(self, algorithm: str, _now: float) -> _Unsigned:
        return replace(self, algorithm=algorithm)

    def sign(self, _signing_input: bytes) -> bytes:
        return b""

    def published(self, _kid: str, _now: float) -> bool:
        return True


@dataclass(slots=True)
class _Told:
    """A part of the pipeline whose steps are told: what each came to, or why it refused."""

    part: Any
    steps: Mapping[str, Show]
    tell: Callable[[str, Mapping[str, object] | Refusal], None]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the part has
        found = getattr(self.part, name)
        show = self.steps.get(name)
        if show is None:
            return found

        def told(*arguments: Any) -> Any:  # noqa: ANN401
            try:
                result = found(*arguments)
            except Refusal as refusal:
                self.tell(name, refusal)
                raise
            self.tell(name, show(self.part, arguments, result))
            return result

        return told


@dataclass(slots=True)
class _Story:
    """What was told, in order."""

    steps: list[tuple[str, Mapping[str, object] | Refusal]] = field(default_factory=list)

    def tell(self, step: str, what: Mapping[str, object] | Refusal) -> None:
        self.steps.append((_TITLES[step], what))


_TITLES: Final = {
    "caller": "edge: the request is read",
    "prove_client": "client: proven",
    "ask": "edge: what is asked",
    "target": "policy: which audiences",
    "present": "credential: which source",
    "consent": "policy: consent",
    "prove": "credential: proven",
    "admit": "pipeline: admitted",
    "identify": "policy: identity",
    "decide": "policy: decision",
    "mint": "mint: the token would hold",
    "allowed": "edge: the answer",
}


@click.command()
@common.config_option
@click.option("--audience", multiple=True, metavar="NAME", help="The backend, as at /token; may be repeated.")
@click.option("--request", metavar="LINE", help="A request line, as at forward-auth: 'GET https://host/path'.")
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
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
@click.argument("file", type=click.File("rb"), default="-")
def explain(  # noqa: PLR0913 - the options of the command line
    *,
    config: Path,
    audience: tuple[str, ...],
    request: str | None,
    client: str | None,
    scope: str | None,
    token_type: str,
    as_json: bool,
    file: BinaryIO,
) -> None:
    r"""Walk the credential in FILE (default: standard input) through the pipeline and show what each step decides.

    It reads the configuration and the issuer's keys (its JWKS is fetched if the source has a jwks_uri), and needs
    neither a running service nor the client's secret.

    \b
    Examples:
      sts explain --audience orders inbound.jwt
      sts explain --request 'GET https://api.example.com/orders/7' inbound.jwt

    \b
    Exit status: 0 a token would be made, 1 refused (the last step says why), 2 usage.
    """
    if bool(audience) == bool(request):
        raise click.UsageError("Give either --audience or --request.")
    settings = common.load(config)
    name = _client(settings, client)
    secret = secrets.token_urlsafe(32)
    credential = common.read_text(file, "the credential")
    if request is not None:
        incoming, door = _forward_auth(settings, name, secret, request, credential), "forward_auth"
    else:
        incoming, door = _token(name, secret, audience, scope, token_type, credential), "token"
    story = _Story()
    status = _walk(_revision(_let_in(settings, name, secret), story), door, incoming)
    _show(story, as_json=as_json)
    raise SystemExit(common.EXIT_OK if status == 200 else common.EXIT_REFUSED)


def _client(settings: Settings, name: str | None) -> str:
    if name is None:
        if len(settings.clients) != 1:
            raise click.UsageError("There are several clients: say which with --client.")
        return next(iter(settings.clients))
    if name not in settings.clients:
        raise click.UsageError(f"There is no client {name}.")
    return name


def _let_in(settings: Settings, name: str, secret: str) -> Settings:
    """The same configuration with a secret of our own for this one client, from any peer."""
    client = settings.clients[name].model_copy(update={"secrets": (SecretStr(digest(secret)),), "networks": None})
    return settings.model_copy(update={"clients": {**settings.clients, name: client}})


def _token(
    name: str, secret: str, audience: tuple[str, ...], scope: str | None, token_type: str, credential: str
) -> Incoming:
    """The request that a client would send to `/token`."""
    form = [
        ("grant_type", GRANT_TYPE),
        ("client_id", name),
        ("client_secret", secret),
        ("subject_token", credential),
        ("subject_token_type", token_type if token_type.startswith("urn:") else TYPE_PREFIX + token_type),
        *(("audience", one) for one in audience),
        *([("scope", scope)] if scope else []),
    ]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = urlencode(form, errors="surrogateescape").encode()  # what is no UTF-8 is the door's to refuse
    return Incoming("POST", "/token", headers, Peer("127.0.0.1"), "explain", body)


def _forward_auth(settings: Settings, name: str, secret: str, line: str, credential: str) -> Incoming:
    """The request that the client's gateway would send for this request line."""
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
        "authorization": f"Bearer {credential}",
    }
    return Incoming("GET", f"/forward-auth/{name}", headers, Peer("127.0.0.1"), "explain")


def _revision(settings: Settings, story: _Story) -> Revision:
    """The revision that would serve, with its steps told."""
    unwritten = AuditLog(bytes(32), lambda _line: None, time.time, time.monotonic)
    keyring: Any = _Unsigned()
    app = App(settings, DeploymentSecret(bytes(32)), keyring, unwritten)
    revision = app.current
    tell = story.tell

    def told(part: object, *steps: str) -> Any:  # noqa: ANN401 - it stands for any part
        return _Told(part, {step: _SHOWN[step] for step in steps}, tell)

    clients: Any = _Told(
        revision.exchange.clients, {"prove": _SHOWN["prove_client"]}, lambda _, what: tell("prove_client", what)
    )
    exchange = replace(
        revision.exchange,
        clients=clients,
        sources=told(revision.exchange.sources, "present", "prove"),
        policy=told(revision.exchange.policy, "target", "consent", "admit", "identify", "decide"),
        minter=told(revision.exchange.minter, "mint"),
    )
    return replace(
        revision,
        exchange=exchange,
        token_door=told(revision.token_door, "caller", "ask", "allowed"),
        forward_auth_door=told(revision.forward_auth_door, "caller", "ask", "allowed"),
    )


def _walk(revision: Revision, door: str, incoming: Incoming) -> int:
    at = revision.token_door if door == "token" else revision.forward_auth_door
    return revision.exchange.answer(at, incoming).status


def _facts(value: object, *names: str) -> dict[str, object]:
    found = {name: getattr(value, name) for name in names}
    return {name: one for name, one in found.items() if one not in (None, NOT_APPLICABLE, (), "")}


def _claims(token: str) -> dict[str, object]:
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    return {"header": header, "claims": claims, "bytes": f"{len(token)} and the signature"}


def _mapped(part: Any, arguments: tuple[Any, ...], identity: Any) -> dict[str, object]:  # noqa: ANN401 - see Show
    """Each attribute with the expression that it came from."""
    rules = dict(part.sources[arguments[0].principal.source].identity)
    return {
        name: f"{_text(value)}   ← {rules[name].text}" if name in rules else value
        for name, value in identity.attributes.items()
    }


def _decided(_part: Any, arguments: tuple[Any, ...], grant: Any) -> dict[str, object]:  # noqa: ANN401 - see Show
    rules = {f"allow of {audience.name}": audience.allow.text for audience in arguments[3].audiences if audience.allow}
    return {
        **rules,
        "subject": grant.subject,
        "scopes": "none" if grant.scopes is None else " ".join(grant.scopes),
        "ttl": show_duration(grant.ttl),
        "ends at the latest": _time(grant.not_after),
        "may be cached": grant.keep,
        **{f"header {name}": value for name, value in grant.headers.items()},
    }


_SHOWN: Final[Mapping[str, Show]] = {
    "caller": lambda _p, _a, caller: {"door": caller.door},
    "prove_client": lambda _p, _a, client: _facts(client, "id", "audiences", "sources", "profile"),
    "ask": lambda _p, _a, ask: _facts(ask, "audiences", "resources", "scopes", "route", "request"),
    "target": lambda _p, _a, target: {one.name: f"aud {one.aud}" for one in target.audiences},
    "present": lambda _p, _a, presented: _facts(presented, "kind", "source", "token_type"),
    "consent": lambda _p, arguments, _: {"client, source and audience": f"agree ({arguments[1]})"},
    "prove": lambda _p, _a, proven: {
        **_facts(proven, "issuer", "subject", "audience", "proof_key"),
        **{name: _time(value) for name, value in _facts(proven, "issued_at", "auth_time", "expires_at").items()},
    },
    "admit": lambda _p, _a, admitted: {
        "ends": _time(admitted.not_after),
        "fresh until": _time(admitted.fresh_until),
    },
    "identify": _mapped,
    "decide": _decided,
    "mint": lambda _p, _a, issued: _claims(issued.token),
    "allowed": lambda _p, arguments, reply: {
        "status": reply.status,
        **({"token": "none, the route is open"} if arguments[2] is None else {}),
    },
}


def _time(seconds: Any) -> str:  # noqa: ANN401 - a number
    if seconds == float("inf"):
        return "without end"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _show(story: _Story, *, as_json: bool) -> None:
    if as_json:
        steps = [
            {"step": title, "refused": what.reason.name, "facts": what.facts}
            if isinstance(what, Refusal)
            else {"step": title, **what}
            for title, what in story.steps
        ]
        click.echo(json.dumps(steps, indent=2, default=_plain))
        return
    for title, what in story.steps:
        if isinstance(what, Refusal):
            said = f" {title}: {what.reason.name}. {what.reason.sentence}"
            common.console.print(Text.assemble(("✗", "bold red"), said))
        else:
            common.console.print(Text.assemble(("✓", "green"), f" {title}"))
        facts = what.facts if isinstance(what, Refusal) else what
        for name, value in facts.items():
            common.console.print(Text(f"    {name}: {printable(_text(value))}"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> object:  # noqa: ANN401 - whatever a step came to
    if isinstance(value, frozenset | set):
        return sorted(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return str(value)
