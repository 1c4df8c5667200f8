"""The reasons for refusals: one table of reasons, and one exception with a reason and private facts.

A `Reason` is public and constant: its name (`error_reason`), the OAuth error code, the status at each door and one
sentence for the caller. The facts that led to it are only for the audit event, and never in an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class StsError(Exception):
    """The base class of all errors that this service raises deliberately."""


class StartError(StsError):
    """The service cannot start, or a command cannot run; the text is for the operator: what to do."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for a refusal.

    `name` is the stable `error_reason`; `error` the OAuth code in a JSON answer (RFC 6749 §5.2, RFC 8693 §2.2.2);
    `token_status` and `forward_status` the HTTP status at `/token` and at `/forward-auth`; `challenge` the RFC 6750
    error code in the forward-auth challenge, if any; `sentence` the only text for the caller.
    """

    name: str
    error: str
    token_status: int
    forward_status: int
    sentence: str
    challenge: str = ""

    @property
    def limited(self) -> bool:
        """Whether the reason is too many failures (RFC 6585 §4)."""
        return self.token_status == 429

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later; the answer then has `Retry-After`."""
        return self.token_status in {429, 503}


class Refusal(StsError):  # noqa: N818 - a refusal is an outcome of the product, not a fault
    """A request is refused for `reason`; `facts` are for the operator's audit, without any token, claim or key."""

    def __init__(self, reason: Reason, **facts: object) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.facts = facts


def _credential(name: str, sentence: str) -> Reason:
    """A fault of the inbound credential: RFC 8693 §2.2.2 requires `invalid_request`, RFC 6750 §3.1 `invalid_token`."""
    return Reason(name, "invalid_request", 400, 401, sentence, challenge="invalid_token")


def _denied(name: str, sentence: str) -> Reason:
    """The credential is valid, but the request is not allowed."""
    return Reason(name, "invalid_request", 400, 403, sentence)


def _ours(name: str, sentence: str) -> Reason:
    """A fault of the service, its configuration or a source, never of the caller's request."""
    return Reason(name, "temporarily_unavailable", 503, 503, sentence)


# 401 at forward-auth with a bare challenge: without a credential there is no error to report (RFC 6750 §3.1).
MISSING_CREDENTIAL: Final = Reason("missing_credential", "invalid_request", 400, 401, "A credential is required.")

MALFORMED: Final = _credential("malformed", "The request or its credential is malformed.")
TOO_LARGE: Final = _credential("too_large", "The request or its credential is too large.")
EXPIRED: Final = _credential("expired", "The credential has expired.")
NOT_YET_VALID: Final = _credential("not_yet_valid", "The credential is not valid yet.")
TOO_OLD: Final = _credential("too_old", "The credential or its login is older than allowed, or lives too long.")
UNKNOWN_ISSUER: Final = _credential("unknown_issuer", "No source is configured for this credential.")
UNKNOWN_KEY: Final = _credential("unknown_key", "The key that signed the credential is not known.")
BAD_SIGNATURE: Final = _credential("bad_signature", "The credential's signature is not valid.")
BAD_ALGORITHM: Final = _credential("bad_algorithm", "The credential's algorithm is not allowed here.")
BAD_TYPE: Final = _credential("bad_type", "This type of credential is not accepted here.")
AUDIENCE_MISMATCH: Final = _credential("audience_mismatch", "The credential is meant for another audience.")
REQUIREMENT_FAILED: Final = _credential("requirement_failed", "The credential does not meet its source's requirements.")
REVOKED: Final = _credential("revoked", "The credential has been revoked.")
REPLAYED: Final = _credential("replayed", "The credential has been used already.")
BINDING_FAILED: Final = _credential("binding_failed", "The credential is bound to a key that was not proven.")

AUDIENCE_MISSING: Final = Reason("audience_missing", "invalid_request", 400, 403, "Name the audience of the token.")
NO_CONSENT: Final = Reason("no_consent", "invalid_target", 400, 403, "The audience is not available to this request.")
INSUFFICIENT_SCOPE: Final = Reason(
    "insufficient_scope", "invalid_scope", 400, 403, "The scope is not available to this request.", "insufficient_scope"
)

NOT_ALLOWED: Final = _denied("not_allowed", "A rule of the audience does not allow this request.")
NO_MAPPING: Final = _denied("no_mapping", "The credential does not map to an identity.")
ACTOR_REFUSED: Final = _denied("actor_refused", "The acting party is not accepted.")
SUBJECT_COLLISION: Final = _denied("subject_collision", "The subject's name is reserved.")
TOKEN_TOO_LARGE: Final = _denied("token_too_large", "The token for this request would be too large.")

NO_ROUTE: Final = _denied("no_route", "No route is configured for this request.")
AMBIGUOUS_PATH: Final = _denied("ambiguous_path", "The path can be read in more than one way.")
UNSAFE_HEADER_VALUE: Final = _denied("unsafe_header_value", "An identity value cannot be written in a header.")

CLIENT_REFUSED: Final = Reason("client_refused", "invalid_client", 401, 403, "The client could not be authenticated.")

SOURCE_UNREACHABLE: Final = _ours("source_unreachable", "A source that this request depends on cannot be reached.")
STATE_UNAVAILABLE: Final = _ours("state_unavailable", "The service's state cannot be reached.")
NO_KEY: Final = _ours("no_key", "The service has no usable signing key.")
PROFILE_HEADER_MISSING: Final = _ours("profile_header_missing", "The gateway did not say which request this is.")
INTERNAL_ERROR: Final = _ours("internal_error", "The service failed to answer this request.")

REASONS: Final = {value.name: value for value in list(globals().values()) if isinstance(value, Reason)}
