"""Clients that prove themselves with a shared secret: HTTP Basic or form at `/token`, a header at `/forward-auth`."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import Annotated, Final, Literal, Protocol

from pydantic import AfterValidator, Field, SecretStr

from sts.clients.client import ClientSettings
from sts.clients.proof import unproven
from sts.model import Caller, Evidence
from sts.options import SecretText

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

DUMMY_DIGESTS: Final = (os.urandom(32), os.urandom(32))
"""What an unknown client's secret is compared with; nobody knows a secret that fits."""


def _check_digest(value: SecretStr) -> SecretStr:
    if not _DIGEST.fullmatch(value.get_secret_value()):
        raise ValueError('a client\'s secret is written as its hash, "sha256:" and 64 hex digits: `sts clients secret`')
    return value


SecretDigest = Annotated[SecretText, AfterValidator(_check_digest)]


class SecretClient(ClientSettings):
    """A client with a shared secret. Two secrets may be live at once, while one replaces the other."""

    auth: Literal["secret"]
    """How the client proves itself: `secret` is Basic or form at `/token`, `X-Gateway-Secret` at `/forward-auth`."""
    secrets: Annotated[tuple[SecretDigest, ...], Field(min_length=1, max_length=2)]
    """`sha256:` and the hex SHA-256 of a secret (`sts clients secret` makes both); two may be live at once."""


def digest(secret: str) -> str:
    """How a secret is written in the configuration.

    A plain SHA-256 is enough only because the secrets are made with 256 random bits by `sts clients secret`: it does
    not protect a word that a person chose.
    """
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


class HasSecrets(Protocol):
    """Settings with one or two secrets."""

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """Their digests as written."""


def live(settings: HasSecrets) -> tuple[bytes, bytes]:
    """The digests of one's secrets, always two: a single one stands twice, so that every client costs the same."""
    digests = [bytes.fromhex(written.get_secret_value()[7:]) for written in settings.secrets]
    return digests[0], digests[-1]


def matches(secret: str, expected: tuple[bytes, bytes]) -> bool:
    """Compare with both digests in constant time, even if the first one fits."""
    presented = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    first, second = expected
    return hmac.compare_digest(presented, first) | hmac.compare_digest(presented, second)


class SecretProof:
    """A client's live secrets as its `Proof`."""

    evidence: Evidence = "secret"

    def __init__(self, expected: tuple[bytes, bytes] = DUMMY_DIGESTS) -> None:
        self._expected = expected

    def prove(self, caller: Caller, now: float) -> None:  # noqa: ARG002 - Proof
        """As Proof says. An empty secret is none, whatever the configuration holds."""
        if not matches(caller.secret or "", self._expected) or not caller.secret:
            raise unproven("wrong secret")
