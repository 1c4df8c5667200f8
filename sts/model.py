"""The frozen values that travel along the way of a request, named by how far they are trusted.

`Incoming` and `Ask` are what came in; `Presented`, like a `Caller` (sts.model), is a claim that nobody has
proven yet. A `Client` comes only from a proof of the caller, a `Principal` only from a proof of the credential, a
`Grant` only from the decision, and the minter takes only a `Grant`. Times are Unix seconds.
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
    """What a caller says of itself: unproven. `door` is where it knocked.

    At most one of `secret`, `assertion` (RFC 7523) and `bearer` is there: a request uses one way of authentication.
    `peer.certificates` is what the caller proved to hold, to us or to a proxy that may say so. `forwarded` says that a
    header stands there which proxies add, so that the peer need not be the caller.
    `read` is what the door has read of the request to find this, handed back to it by `ask`, so that it is parsed once.
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
        """What it presents to prove itself; "connection" where there is nothing but what the connection says."""
        if self.secret is not None:
            return "secret"
        if self.assertion is not None:
            return "assertion"
        return "connection" if self.bearer is None else "bearer"

    @property
    def thumbprint(self) -> str | None:
        """The SHA-256 of the certificate that it holds, as `x5t#S256` writes it (RFC 8705 §3.1); None without one."""
        return thumbprint(self.peer.certificates[0]) if self.peer.certificates else None


def thumbprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate (DER), as `x5t#S256` writes it (RFC 8705 §3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode("ascii")


TYPE_PREFIX: Final = "urn:ietf:params:oauth:token-type:"
TYPE_JWT: Final = TYPE_PREFIX + "jwt"
TYPE_ACCESS_TOKEN: Final = TYPE_PREFIX + "access_token"
TYPE_ID_TOKEN: Final = TYPE_PREFIX + "id_token"
TYPE_API_KEY: Final = "urn:sts:token-type:api_key"
TYPE_CLIENT_CERTIFICATE: Final = "urn:sts:token-type:client_certificate"

DoorName = Literal["token", "forward_auth"]


class NotApplicable(enum.Enum):
    """Said by a kind of credential that has no such fact at all; never said for a fact that is merely missing."""

    NOT_APPLICABLE = "not applicable"


NOT_APPLICABLE: Final = NotApplicable.NOT_APPLICABLE


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the socket: an IP address as text, or our own Unix socket. Never a forwarded address.

    `certificates` is what it proved to hold in its TLS handshake with us, DER, leaf first; nobody has judged yet what
    they say. `uid` is the user that opened the Unix socket, as the kernel knows it.
    """

    address: str
    unix: bool = False
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """One HTTP request as it stood on the wire.

    `target` is the raw request target, undecoded. `headers` have lower-case names; a header sent twice arrives joined
    with a comma. `body` is empty for forward-auth, which never reads one; `fault` says that the edge could not take
    the body (`too_large` or `malformed`), so that the door answers it in its own shape.
    `correlation_id` is the caller's own name for the request, for the audit alone.
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
    """A caller that has proven itself. `audiences` and `sources` are names, or `{"*"}` for all.

    `backend_of` are the names of the audiences whose backend it is. `may_present` are the sources whose certificates it
    may hand on, having done the handshake itself; at forward-auth in the one form `certificate_header`. `actors` are
    the sources whose credentials may act for a subject whose own does not name who may.
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

    Of one that is no secret, a certificate, the door says whether who presents it has its key: `held` where that was
    proven in the TLS handshake of this very caller, `handed_on` the sources of which it is taken from this client.
    """

    token_type: str
    value: str = field(repr=False)
    held: bool = False
    handed_on: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The original request as the gateway's profile reports it: what rules may read as `request.*`.

    `path` is normalised and has no query; `host` is lower-case without port; `ip` is the user's address as the
    gateway saw it, "" where the profile does not say.
    """

    method: str
    host: str
    path: str
    scheme: str = ""
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a proven client asks for, the same for both doors.

    `credential` is None only for a public route. `scopes` None means "nothing asked"; for a route they are the
    route's own, each of which is required. `actor` is the actor token, where one came along (RFC 8693 §2.1).

    `certificate` is the thumbprint (`x5t#S256`) of the certificate that was proven beside the credential, for one that
    is bound to it: at `/token` the caller's, at forward-auth the end user's. `caller_certificate` is the caller's own,
    at both doors: what a minted token may be bound to.
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
    """A credential that a source claims for itself, parsed as far as needed to find that source; nothing is proven.

    `source` is the source's name in the configuration; `unverified` is the kind's own parse of the credential, handed
    back to the same kind for the proof, so that what was read is what gets proven. One of our own tokens names the
    source that it was once made from; then `proven_by` says who proves it instead, and `minted_for` whose it is.
    `credential_id` is the name that it claims, of a kind whose credentials have names which are no secrets; else "".
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
        """Under which name `Sources` finds who proves it."""
        return self.proven_by or self.source


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven credential: facts only, judged by nobody yet.

    Every field is mandatory, so that no kind of credential can forget one: a kind without such a fact says
    `NOT_APPLICABLE`, a credential that leaves an optional fact out says None. `attributes` is what the source's
    mapping reads (`claims` for a JWT). `reach` are the names of the only audiences that the credential itself may
    reach, beside what its source may. `proof_key` is the RFC 7638 thumbprint of the issuer's key that proved it, or
    whatever else its source's `key_current` judges.
    `since` is when the credential was issued, by the word of who issued it, None where that is not known; for one of
    our own tokens it is the time of the first credential behind it, so that no exchange makes a login look younger.
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
    """What a source's configuration allows a principal: seconds, None for "no limit"."""

    audiences: frozenset[str]
    leeway: float = 10.0
    max_lifetime: float | None = None
    max_age: float | None = None
    max_auth_age: float | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts for the subject: a proven actor's raw identity (RFC 8693 §4.1), and its source (None: it says more).

    `attributes` are its mapped ones, for rules.
    """

    issuer: str
    subject: str
    source: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A principal that passed `admit`: the end of its causes, and until when the judgement may be reused.

    `since` is when it was issued, never in the future; 0 where that is not known. With an `actor` each of the three is
    the earlier of the two's.
    """

    principal: Principal
    not_after: float
    fresh_until: float
    actor: Actor | None = None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table by its columns, and until when it may be used; a column that is not there has no value."""

    values: Mapping[str, Any] = field(repr=False)
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Identity:
    """The mapped, canonical attributes of a principal. `subject` is the minted one, namespace included."""

    subject: str
    scopes: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a rule on trial would have done: `allow`, `deny`, or `error`, which would refuse as well.

    `lasts` says that the same request would come to the same later on: the rule does not read the clock.
    """

    outcome: Literal["allow", "deny", "error"]
    lasts: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """The decision: this identity, for these audiences, with these scopes, until then. Made only by `policy.decide`.

    `aud` holds the values of the claim; `scopes` None means that the token carries no scope at all. `claims` are the
    audience's mapped claims, reserved names excluded; `evidence` is what it is told of the login, `headers` the
    identity headers for forward-auth. `not_after` ends the token whatever its `ttl`. `src` names the source, where a
    backend may exchange the token again, and `mapped_by` the mapping of its claims (see `AudienceRules.mapping`).
    `since` is the earliest time at which any credential behind it was issued, 0 where one does not say. `keep` says
    whether the minted token may be cached, `fresh_until` how long.
    `shadow` is what the audiences' rules on trial would have done, by audience. `recipient` is the audience whose
    backend the token is encrypted for, None where it is only signed. `bound_to` is the thumbprint of the certificate
    whose holder alone may use the token (RFC 8705 §3.1), None where anybody may.
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
    """A minted token, new or from the cache, and what the doors answer with. `expires_at` is its `exp`.

    `shadow` is that of its grant. `recipient` is the RFC 7638 thumbprint of the backend's key that it is encrypted
    to, None where it is only signed.
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
    """Everything by which a revocation may name what a token was made from, gathered when it was proven.

    Each group is one thing (the subject's credential, an actor's, what the client was given): since when it exists
    (Unix seconds), and what names it, as kind, value and source in turn. A revocation concerns what is no younger than
    itself. Values are plain text, a credential's too, and hashed only where something of their kind is revoked:
    `sts.state.revocations.Revocations.kept` makes one without credentials, to be kept.
    `unnamed_in` is the last list of revocations that named none of it.
    """

    groups: tuple[tuple[float, tuple[str, ...]], ...] = field(repr=False)
    unnamed_in: object = field(default=None, repr=False, compare=False)


class Door(Protocol):
    """What a door adds to the way: how a request is read there, and how an answer is written."""

    name: DoorName

    def caller(self, incoming: Incoming) -> Caller:
        """Who the caller says it is, unproven."""

    def ask(self, incoming: Incoming, caller: Caller, client: Client) -> Ask:
        """What the proven client asks for."""

    def allowed(self, incoming: Incoming, ask: Ask, issued: Issued | None, now: float) -> Reply:
        """The answer to a request that may pass; `issued` is None on a public route."""

    def refused(self, incoming: Incoming, reason: Reason, facts: dict[str, object]) -> Reply:
        """The answer to a request that is refused."""


Result = TypeVar("Result")

Steps = Generator[None, None, Result]
"""Work that stops before each step which may wait, or computes long; at the end it has its result."""


def taken(steps: Steps[Result]) -> Result:
    """Take all remaining steps, and wait where they do. Raises what they raise."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result
