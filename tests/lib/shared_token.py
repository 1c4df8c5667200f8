"""A kind of credential in one file, as docs/architecture.md describes it: a token that the configuration holds.

It is for tests alone: one text that all callers share proves only that a caller knows it.
"""

import hmac
from typing import ClassVar, Literal

from sts.credentials.kind import Clash, HeaderName, SourceSettings
from sts.errors import UNKNOWN_ISSUER, UNKNOWN_KEY, Refusal
from sts.model import NOT_APPLICABLE, Limits, Presented, Principal
from sts.options import SecretText

TYPE = "urn:example:token-type:shared_token"
NAME = "shared_token"
ABSENT = (
    *("issuer", "audience", "reach", "expires_at", "not_before", "issued_at", "auth_time", "fresh_until"),
    *("confirmation", "act", "may_act", "acr", "amr", "jti"),
)


class SharedTokenSettings(SourceSettings):
    """One token, known to all who may use it."""

    variable: ClassVar[str] = "shared"
    attributes: ClassVar[frozenset[str]] = frozenset({"name"})
    credential_types: ClassVar[frozenset[str]] = frozenset({TYPE})

    type: Literal["shared_token"]
    prefix: str
    header: HeaderName = "X-Shared-Token"
    token: SecretText

    def faults(self):
        if not self.token.get_secret_value().startswith(self.prefix):
            yield "token", f"does not begin with {self.prefix}", "write the whole token"

    def clash(self, other):
        if self.token == other.token:
            return Clash("token", "is also the token of {other}", "each source has a token of its own")
        return None

    def credential_prefix(self):
        return self.prefix

    def credential_header(self):
        return self.header, TYPE

    def build(self, name, _services):
        return SharedTokenSource(name, self)

    @classmethod
    def reader(cls, sources, _elsewhere, _services):
        return SharedTokenKind(sources)


class SharedTokenSource:
    trouble = ""
    limits = Limits(audiences=frozenset())

    def __init__(self, name, settings):
        self.name, self.prefix = name, settings.prefix
        self._token = settings.token.get_secret_value().encode()

    def prove(self, presented, _now):
        if not hmac.compare_digest(presented.unverified.encode(), self._token):
            raise Refusal(UNKNOWN_KEY, why="not the source's token")
        absent = dict.fromkeys(ABSENT, NOT_APPLICABLE)
        facts = {"subject": self.name, "since": None, "proof_key": "", "attributes": {"name": self.name}}
        return Principal(kind=NAME, source=self.name, **facts, **absent)

    def at_hand(self, _presented, _now):
        return True

    def key_current(self, _proof_key):
        return True


class SharedTokenKind:
    token_types = SharedTokenSettings.credential_types

    def __init__(self, sources):
        self._sources = tuple(sources)

    def recognise(self, credential):
        for source in self._sources:
            if credential.value.startswith(source.prefix):
                return Presented(NAME, source.name, credential.token_type, credential.value)
        raise Refusal(UNKNOWN_ISSUER, why="no source has shared tokens of this prefix")
