"""The trace of one request: what `sts explain` prints for each step."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click
from rich.text import Text

from keys.errors import KeysError
from keys.jwks import jwks
from keys.record import Ring
from sts.cli import common
from sts.errors import NO_KEY, Reason, Refusal, StartError
from sts.model import NOT_APPLICABLE, Revocable
from sts.options import show_duration
from sts.policy.reexchange import OWN
from sts.settings import printable

Show = Callable[[Any, tuple[Any, ...], Any], Mapping[str, object]]
"""Returns the facts of a step, from its part of the pipeline, its arguments and its result."""


@dataclass(slots=True)
class TracingProxy:
    """A proxy for a part of the pipeline that reports the result or the refusal of each step."""

    part: Any
    steps: Mapping[str, Show]
    tell: Callable[[str, Mapping[str, object] | Refusal], None]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the part
        found = getattr(self.part, name)
        show = self.steps.get(name)
        if show is None:
            return found

        def told(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            try:
                result = found(*arguments, **options)
            except Refusal as refusal:
                self.tell(name, refusal)
                raise
            self.tell(name, show(self.part, arguments, result))
            return result

        return told


@dataclass(slots=True)
class Trace:
    """The reported steps, in order."""

    steps: list[tuple[str, Mapping[str, object] | Refusal]] = field(default_factory=list)
    hints: Mapping[str, object] = field(default_factory=dict)
    """Hints about the refusal of the last step. Its facts are for the audit and contain no claims."""

    def tell(self, step: str, what: Mapping[str, object] | Refusal) -> None:
        """Add a step with its facts or its refusal."""
        self.steps.append((_TITLES[step], what))

    def told_refusal(self, reason: Reason, facts: Mapping[str, object]) -> None:
        """Add the refusal of the request, unless the last step is that refusal: not every check is a step."""
        if not self.steps or not isinstance(self.steps[-1][1], Refusal):
            self.steps.append((_TITLES["refused"], Refusal(reason, **facts)))

    def refused_for(self, *reasons: Reason) -> bool:
        """Return whether the last step was refused for one of these reasons."""
        last = self.steps[-1][1] if self.steps else None
        return isinstance(last, Refusal) and last.reason in reasons


_TITLES: Final = {
    "caller": "edge: the request is read",
    "prove_client": "client: taken as proven (its secret is not asked for)",
    "ask": "edge: what is asked",
    "target": "policy: which audiences",
    "present": "credential: which source",
    "consent": "policy: consent",
    "prove": "credential: proven",
    "admit": "credential: audience, expiry, age, binding",
    "row": "policy: a row is looked up",
    "identify": "policy: identity",
    "decide": "policy: decision",
    "opa": "policy: OPA",
    "mint": "mint: the token would hold",
    "allowed": "edge: the answer",
    "refused": "policy: refused",
}


def _facts(value: object, *names: str) -> dict[str, object]:
    found = {name: getattr(value, name) for name in names}
    return {name: one for name, one in found.items() if one not in (None, NOT_APPLICABLE, (), "")}


def _claims(issued: Any) -> dict[str, object]:  # noqa: ANN401 - see Show
    """Return the content of the token; a token that would be encrypted is shown decrypted."""
    token = issued.token
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    shown = {"header": header, "claims": claims, "bytes": f"{len(token)} and the signature"}
    if issued.recipient is None:
        return shown
    return {**shown, "bytes": f"{len(token)} and the signature, then encrypted", "encrypted to": issued.recipient}


def _mapped(part: Any, arguments: tuple[Any, ...], identity: Any) -> dict[str, object]:  # noqa: ANN401 - see Show
    """Return each attribute with its expression; attributes of our own tokens have none."""
    principal = arguments[0].principal
    rules = {} if principal.kind == OWN else dict(part.sources[principal.source].identity)
    return {name: _from(value, rules[name]) if name in rules else value for name, value in identity.attributes.items()}


def _from(value: object, rule: Any) -> str:  # noqa: ANN401 - an expression
    return f"{_text(value)}   ← {rule.text}"


def _decided(part: Any, arguments: tuple[Any, ...], grant: Any) -> dict[str, object]:  # noqa: ANN401 - see Show
    audiences, route = arguments[3].audiences, part.routes.get(arguments[4].route)
    rules = {f"allow of {audience.name}": audience.allow.text for audience in audiences if audience.allow}
    if route is not None and route.allow:
        rules["allow of the route"] = route.allow.text
    claims, headers = dict(audiences[0].claims), dict(audiences[0].headers)
    return {
        **rules,
        "subject": grant.subject,
        "scopes": "none" if grant.scopes is None else " ".join(grant.scopes),
        "ttl": show_duration(grant.ttl),
        "ends at the latest": _time(grant.not_after),
        "may be cached": grant.keep,
        **{f"shadow of {name}": f"{trial.outcome}, if it were enforced" for name, trial in grant.shadow.items()},
        **{f"claim {name}": _from(value, claims[name]) for name, value in grant.claims.items() if name in claims},
        **{f"header {name}": _from(value, headers[name]) for name, value in grant.headers.items()},
    }


SHOWN: Final[Mapping[str, Show]] = {
    "caller": lambda _p, _a, caller: {"door": caller.door},
    "prove_client": lambda _p, _a, client: _facts(client, "id", "audiences", "sources", "profile"),
    "ask": lambda _p, _a, ask: _facts(ask, "audiences", "resources", "scopes", "route", "request"),
    "target": lambda _p, _a, target: {one.name: f"aud {one.aud}" for one in target.audiences},
    "present": lambda _p, _a, presented: _facts(presented, "kind", "source", "token_type"),
    "consent": lambda _p, arguments, _: {
        "client, source and audience": f"agree ({', '.join(one.source for one in arguments[1])})"
    },
    "prove": lambda _p, _a, proven: {
        **_facts(proven, "issuer", "subject", "audience", "proof_key"),
        **{name: _time(value) for name, value in _facts(proven, "issued_at", "auth_time", "expires_at").items()},
    },
    "admit": lambda _p, _a, admitted: {
        "ends": _time(admitted.not_after),
        "fresh until": _time(admitted.fresh_until, endless="no age limit"),
    },
    "row": lambda _p, arguments, row: {"key": arguments[0], "row": "there is none" if row is None else row.values},
    "identify": _mapped,
    "decide": _decided,
    "opa": lambda _p, arguments, said: {
        "asked about": arguments[0]["audience"],
        "result": said.document.get("result", "undefined"),
        "may be kept": "not at all" if said.max_age is None else show_duration(int(said.max_age)),
    },
    "mint": lambda _p, _a, issued: _claims(issued),
    "allowed": lambda _p, arguments, reply: {
        "status": reply.status,
        **({"token": "none, the route is open"} if arguments[2] is None else {}),
    },
}


def _time(seconds: Any, endless: str = "without end") -> str:  # noqa: ANN401 - a number
    if seconds == float("inf"):
        return endless
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def show(story: Trace, *, as_json: bool) -> None:
    """Print the steps for a person, or as JSON."""
    if as_json:
        steps: list[dict[str, object]] = [
            {"step": title, "refused": what.reason.name, "facts": what.facts}
            if isinstance(what, Refusal)
            else {"step": title, "facts": what}
            for title, what in story.steps
        ]
        if story.hints:
            steps[-1]["hints"] = story.hints
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
            _show_fact(name, value)
    for name, value in story.hints.items():
        _show_fact(name, value)


def _show_fact(name: str, value: object) -> None:
    common.console.print(Text(f"    {name}: {printable(_text(value))}"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=_plain)


def _plain(value: Any) -> object:  # noqa: ANN401 - any result of a step
    if isinstance(value, frozenset | set):
        return sorted(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return str(value)


@dataclass(frozen=True, slots=True)
class NullSigner:
    """Replaces the keyring, so that a token can be shown without a signature.

    The ring is opened only when it is needed to verify a token of ours.
    """

    ring: Callable[[], Ring]
    kid: str = "(not signed)"
    algorithm: str = "ES256"

    def signer(self, algorithm: str, _now: float) -> NullSigner:
        """Return a signer with this algorithm."""
        return replace(self, algorithm=algorithm)

    def sign(self, _signing_input: bytes) -> bytes:
        """Return an empty signature."""
        return b""

    def published(self, _kid: str, _now: float) -> bool:
        """Return True: there is no cached token that it could invalidate."""
        return True

    def jwks(self, now: float) -> dict[str, Any]:
        """Return the JWK Set of the service's ring. Raises NO_KEY if there is none."""
        try:
            return jwks(self.ring(), now)
        except (KeysError, StartError) as error:
            raise Refusal(NO_KEY, why=str(error)) from None


class NullRevocations:
    """Replaces the state: no revocation, no replay mark. Only the API keys are real."""

    def __init__(self, keys: object) -> None:
        self.revocations = self.once = self
        self.keys = keys

    def mark(self, *_: object, until: float) -> None:
        """Accept every proof as new."""

    def gather(self, *_: object) -> Revocable:
        """Return no identifiers."""
        return Revocable(())

    def check(self, *_: object) -> None:
        """Find no revocation."""

    check_caller = check

    def current(self, *_: object) -> bool:
        """Return True: there is no revocation."""
        return True

    def minted(self, revocable: Revocable, _: object) -> Revocable:
        """Return `revocable` unchanged."""
        return revocable

    def kept(self, revocable: Revocable, *_: object) -> Revocable:
        """Return `revocable` unchanged."""
        return revocable
