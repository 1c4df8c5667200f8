"""Encrypts a signed token for the one backend that may read it (RFC 7519 §5.2)."""

from __future__ import annotations

from typing import Protocol

from sts.jose import EncryptKey, encrypt


class Recipient(Protocol):
    """A backend that knows its keys."""

    def key(self, now: float) -> EncryptKey:
        """The key to encrypt to. May wait; raises SOURCE_UNREACHABLE rather than to let a token go out plain."""


def sealed(token: str, recipient: EncryptKey) -> str:
    """The nested token. It hides what `token` says; that the token is ours, the signature inside alone proves."""
    return encrypt(token, recipient)
