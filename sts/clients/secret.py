"""Clients that authenticate with a shared secret: HTTP Basic or form at `/token`, a header at `/forward-auth`."""

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
"""The digests to which an unknown client's secret is compared; no known secret has them."""


def _check_digest(value: SecretStr) -> SecretStr:
    if not _DIGEST.fullmatch(value.get_secret_value()):
        raise ValueError('a client\'s secret is written as its hash, "sha256:" and 64 hex digits: `sts clients secret`')
    return value


SecretDigest = Annotated[SecretText, AfterValidator(_check_digest)]


class SecretClient(ClientSettings):
    """A client with a shared secret. Two secrets may be valid at once, while one replaces the other."""

    auth: Literal["secret"]
    """How the client authenticates: `secret` is Basic or form at `/token`, `X-Gateway-Secret` at `/forward-auth`."""
    secrets: Annotated[tuple[SecretDigest, ...], Field(min_length=1, max_length=2)]
    """`sha256:` and the hex SHA-256 of a secret (`sts clients secret` generates both); two may be valid at once."""


def digest(secret: str) -> str:
    """Return a secret in the form of the configuration: its SHA-256.

    A plain SHA-256 is sufficient only because `sts clients secret` generates secrets of 256 random bits. It does not
    protect a password that a person chose.
    """
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


class HasSecrets(Protocol):
    """Settings with one or two secrets."""

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """The digests as written in the configuration."""


def live(settings: HasSecrets) -> tuple[bytes, bytes]:
    """Return always two digests, a single one twice, so that the comparison takes the same time for every client."""
    digests = [bytes.fromhex(written.get_secret_value()[7:]) for written in settings.secrets]
    return digests[0], digests[-1]


def matches(secret: str, expected: tuple[bytes, bytes]) -> bool:
    """Return whether a secret matches; compares both digests in constant time, even if the first one matches."""
    presented = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    first, second = expected
    return hmac.compare_digest(presented, first) | hmac.compare_digest(presented, second)


class SecretProof:
    """The `Proof` of a client by shared secret."""

    evidence: Evidence = "secret"

    def __init__(self, expected: tuple[bytes, bytes] = DUMMY_DIGESTS) -> None:
        self._expected = expected

    def prove(self, caller: Caller, now: float) -> None:  # noqa: ARG002 - Proof
        """Compare the secret (see `Proof`). An empty secret is always refused."""
        if not matches(caller.secret or "", self._expected) or not caller.secret:
            raise unproven("wrong secret")
