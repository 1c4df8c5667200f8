"""The frozen values that travel along the way of a request, named by how far they are trusted.

`Incoming` and `Ask` are input; a `Caller` and a `Presented` are claims that are not proven yet. A `Client` comes only
from a proof of the caller, a `Principal` only from a proof of the credential, a `Grant` only from the decision, and the
minter accepts only a `Grant`. Times are Unix seconds.
"""

from __future__ import annotations

import enum
from base64 import urlsafe_b64encode
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal, Protocol, TypeVar

from sts.errors import Reason

Evidence = Literal["secret", "assertion", "bearer", "connection"]


@dataclass(frozen=True, slots=True)
class Caller:
    """What a caller claims to be, unproven. `door` is where the request arrived.

    At most one of `secret`, `assertion` (RFC 7523) and `bearer` is set: a request uses one method of authentication.
    `peer.certificates` are those that the caller proved to hold, to us or to a trusted proxy. `forwarded` is true if
    the request has a header that proxies add: the peer then need not be the caller. `read` is what the door has parsed
    of the request; `ask` gets it back, so that the request is parsed once.
    """

    door: DoorName
    unverified_client_id: str
    secret: str | None = field(repr=False)
    peer: Peer
    read: Any = field(default=None, repr=False)
    assertion: str | None = field(default=None, repr=False)
    bearer: str | None = field(default=None, repr=False)
    forwarded: bool = False

    @property
    def evidence(self) -> Evidence:
        """The kind of evidence that the caller presents; "connection" if there is only the connection itself."""
        if self.secret is not None:
            return "secret"
        if self.assertion is not None:
            return "assertion"
        return "connection" if self.bearer is None else "bearer"

    @property
    def thumbprint(self) -> str | None:
        """The SHA-256 of the caller's certificate in the form of `x5t#S256` (RFC 8705 §3.1); None without one."""
        return thumbprint(self.peer.certificates[0]) if self.peer.certificates else None


def thumbprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate (DER) in the form of `x5t#S256` (RFC 8705 §3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode("ascii")


TYPE_PREFIX: Final = "urn:ietf:params:oauth:token-type:"
TYPE_JWT: Final = TYPE_PREFIX + "jwt"
TYPE_ACCESS_TOKEN: Final = TYPE_PREFIX + "access_token"
TYPE_ID_TOKEN: Final = TYPE_PREFIX + "id_token"
TYPE_API_KEY: Final = "urn:sts:token-type:api_key"
TYPE_CLIENT_CERTIFICATE: Final = "urn:sts:token-type:client_certificate"

DoorName = Literal["token", "forward_auth"]


class NotApplicable(enum.Enum):
    """The value for a fact that a kind of credential cannot have; a fact that is merely missing is None."""

    NOT_APPLICABLE = "not applicable"


NOT_APPLICABLE: Final = NotApplicable.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the socket: an IP address as text, or our own Unix socket. Never a forwarded address.

    `certificates` are those that the peer proved to hold in its TLS handshake with us, DER, leaf first; their content
    is not verified yet. `uid` is the user that opened the Unix socket, as reported by the kernel.
    """

    address: str
    unix: bool = False
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """One HTTP request as received.

    `target` is the raw request target, undecoded. `headers` have lower-case names; a header sent twice is joined with a
    comma. `body` is empty for forward-auth, which never reads one. `fault` is set if the edge refused the body
    (`too_large` or `malformed`), so that the door answers in its own format. `correlation_id` is the caller's own id of
    the request, for the audit only.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    peer: Peer
    request_id: str
    body: bytes = b""
    fault: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer: status, header pairs in order, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Client:
    """A caller that is authenticated. `audiences` and `sources` are names, or `{"*"}` for all.

    `backend_of` are the names of the audiences whose backend it is. `may_present` are the sources whose certificates it
    may forward after it has done the handshake itself; at forward-auth only in the form `certificate_header`. `actors`
    are the sources whose credentials may act for a subject whose own credential has no `may_act`.
    """

    id: str
    audiences: frozenset[str]
    sources: frozenset[str]
    default_audience: str | None
    profile: str | None
    backend_of: frozenset[str] = frozenset()
    may_present: frozenset[str] = frozenset()
    actors: frozenset[str] = frozenset()
    certificate_header: Literal["client_cert", "xfcc", "nginx"] | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as declared at a door: its token type (a URN) and its text, unparsed and unproven.

    A certificate is not secret, so the door states whether its presenter has the private key: `held` is true if this
    caller proved that in its own TLS handshake; `handed_on` are the sources for which this client may forward it.
    """

    token_type: str
    value: str = field(repr=False)
    held: bool = False
    handed_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The original request as the gateway's profile reports it: the variables `request.*` of rules.

    `path` is normalised and has no query; `host` is lower-case without port; `ip` is the user's address as the
    gateway saw it, "" if the profile does not report it.
    """

    method: str
    host: str
    path: str
    scheme: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """The request of an authenticated client, in the same form for both doors.

    `credential` is None only for a public route. `scopes` None means "none requested"; for a route they are the route's
    own, and all of them are required. `actor` is the actor token, if there is one (RFC 8693 §2.1).

    `certificate` is the thumbprint (`x5t#S256`) of the certificate that was proven together with the credential, for
    one that is bound to it: at `/token` the caller's, at forward-auth the end user's. `caller_certificate` is the
    caller's own at both doors; a minted token may be bound to it.
    """

    door: DoorName
    credential: Credential | None
    audiences: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    requested_type: str = TYPE_ACCESS_TOKEN
    actor: Credential | None = None
    route: str | None = None
    request: RequestFacts | None = None
    certificate: str | None = None
    caller_certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential for which a source was found, parsed as far as that needs; it is not proven.

    `source` is the source's name in the configuration. `unverified` is the kind's own parse of the credential; the same
    kind gets it back for the proof, so that exactly what was parsed is proven. One of our own tokens has the source
    from which it was first minted; then `proven_by` names its prover, and `minted_for` its audiences. `credential_id`
    is the id that the credential claims, if ids of its kind are not secret; else "".
    """

    kind: str
    source: str
    token_type: str
    unverified: Any = field(repr=False)
    proven_by: str = ""
    minted_for: tuple[str, ...] | None = None
    credential_id: str = ""

    @property
    def prover(self) -> str:
        """The name under which `Sources` finds the prover."""
        return self.proven_by or self.source


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven credential: facts only, not checked against any limit yet.

    Every field is mandatory, so that no kind of credential can forget one. A kind without such a fact sets
    `NOT_APPLICABLE`; None means that the credential leaves an optional fact out. `attributes` is the input of the
    source's mapping (`claims` for a JWT). `reach` are the only audiences that the credential itself may reach, in
    addition to the limits of its source. `proof_key` is the RFC 7638 thumbprint of the issuer's key that proved it, or
    another value that the source's `key_current` checks.
    `since` is when the credential was issued, according to its issuer, None if not known. For one of our own tokens it
    is the time of the first credential behind it, so that an exchange cannot make a login look younger.
    `may_act` and `act` are as in RFC 8693 §4.1 and §4.4, `acr` and `amr` as in OpenID Connect Core §2, raw.
    """

    kind: str
    source: str
    issuer: str | NotApplicable
    subject: str | None
    audience: tuple[str, ...] | NotApplicable
    reach: frozenset[str] | NotApplicable
    expires_at: float | NotApplicable
    not_before: float | NotApplicable | None
    issued_at: float | NotApplicable | None
    since: float | None
    auth_time: float | NotApplicable | None
    fresh_until: float | NotApplicable
    confirmation: object | NotApplicable | None
    act: object | NotApplicable | None
    may_act: object | NotApplicable | None
    acr: object | NotApplicable | None
    amr: object | NotApplicable | None
    jti: str | NotApplicable | None
    proof_key: str | NotApplicable
    attributes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a source's configuration sets for a principal: seconds, None for "no limit"."""

    audiences: frozenset[str]
    leeway: float = 10.0
    max_lifetime: float | None = None
    max_age: float | None = None
    max_auth_age: float | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor for the subject: its raw identity (RFC 8693 §4.1), and its source; None if it has its own `reach`.

    `attributes` are the mapped ones, for rules.
    """

    issuer: str
    subject: str
    source: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A principal that passed `admit`: when its credentials expire, and until when this result may be reused.

    `since` is when it was issued, never in the future; 0 if that is not known. With an `actor`, each of the three times
    is the earlier one of both credentials.
    """

    principal: Principal
    not_after: float
    fresh_until: float
    actor: Actor | None = None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table by its columns, and until when it may be used; an absent column has no value."""

    values: Mapping[str, Any] = field(repr=False)
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Identity:
    """The mapped attributes of a principal. `subject` is the minted one, including the namespace."""

    subject: str
    scopes: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a `shadow` rule: `allow`, `deny`, or `error`, which would refuse as well.

    `lasts` is true if an equal request gets an equal result later: the rule does not read the clock.
    """

    outcome: Literal["allow", "deny", "error"]
    lasts: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """The decision: this identity, for these audiences, with these scopes, until then. Only `policy.decide` creates it.

    `aud` has the values of the claim; `scopes` None means that the token has no `scope` claim. `claims` are the
    audience's mapped claims without reserved names; `evidence` are the claims about the login, `headers` the identity
    headers for forward-auth. `not_after` ends the token even if its `ttl` is longer. `src` names the source if a
    backend may exchange the token again, and `mapped_by` the mapping of its claims (see `AudienceRules.mapping`).
    `since` is the earliest time at which any credential behind it was issued, 0 if one is not known. `keep` is
    whether the minted token may be cached, `fresh_until` until when.
    `shadow` is the result of the audiences' `shadow` rules, by audience. `recipient` is the audience whose backend the
    token is encrypted for, None for a token that is only signed. `bound_to` is the thumbprint of the certificate whose
    holder alone may use the token (RFC 8705 §3.1), None for a bearer token.
    """

    client_id: str
    subject: str
    aud: tuple[str, ...]
    scopes: tuple[str, ...] | None
    claims: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    act: Mapping[str, Any] = field(repr=False)
    typ: str
    algorithm: str
    ttl: float
    not_after: float
    fresh_until: float
    min_remaining: float
    max_token_bytes: int
    keep: bool
    src: str | None = None
    mapped_by: str | None = None
    since: float = 0.0
    shadow: Mapping[str, Trial] = field(default_factory=dict)
    recipient: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict, repr=False)
    bound_to: str | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A minted token, new or from the cache, with the data for the doors' answers. `expires_at` is its `exp`.

    `shadow` is that of its grant. `recipient` is the RFC 7638 thumbprint of the backend's key to which it is encrypted,
    None for a token that is only signed.
    """

    subject: str = field(repr=False)
    token: str = field(repr=False)
    token_type: str
    expires_at: int
    jti: str
    kid: str
    scopes: tuple[str, ...] | None
    headers: Mapping[str, str] = field(repr=False)
    shadow: Mapping[str, Trial] = field(default_factory=dict)
    recipient: str | None = None
    cached: bool = False


@dataclass(slots=True)
class Revocable:
    """All names by which a revocation may concern a token, collected when its credentials were proven.

    Each group is one thing (the subject's credential, an actor's, the client's grant): since when it exists (Unix
    seconds), and its names as kind, value and source in turn. A revocation concerns things that existed when it was
    made. Values are plain text, also a credential's; they are hashed only if something of their kind is revoked.
    `sts.state.revocations.Revocations.kept` makes a copy without credentials for storage. `unnamed_in` is the last list
    of revocations that named none of the values.
    """

    groups: tuple[tuple[float, tuple[str, ...]], ...] = field(repr=False)
    unnamed_in: object = field(default=None, repr=False, compare=False)


class Door(Protocol):
    """The part of the way that differs between doors: how a request is read, and how an answer is written."""

    name: DoorName

    def caller(self, incoming: Incoming) -> Caller:
        """Return what the caller claims to be, unproven."""

    def ask(self, incoming: Incoming, caller: Caller, client: Client) -> Ask:
        """Return the request of the authenticated client."""

    def allowed(self, incoming: Incoming, ask: Ask, issued: Issued | None, now: float) -> Reply:
        """Return the answer to an allowed request; `issued` is None on a public route."""

    def refused(self, incoming: Incoming, reason: Reason, facts: dict[str, object]) -> Reply:
        """Return the answer to a refused request."""


Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Work that stops before each step which may wait or compute long, and returns its result at the end."""


def taken(steps: Steps[Result]) -> Result:
    """Run all remaining steps, and wait where they wait. Raises their errors."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
