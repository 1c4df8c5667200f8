"""The public encryption keys of backends, from a file or over HTTP.

A rotation is the reverse of that of signing keys. The backend puts its new key first in its set; we encrypt to that key
after the next refresh; the backend keeps the old private key until the last token for it has expired. Therefore the
first usable key counts, and the backend decides which one that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from pydantic import model_validator

from sts.errors import SOURCE_UNREACHABLE, Refusal, StartError
from sts.jose import ContentEncryption, EncryptKey, EncryptKeys, KeyManagement, UnfitError, import_encryption_jwks
from sts.options import KeptConfigFile, KeptFile, Section, file_faults
from sts.resilience.bulkhead import Bulkhead
from sts.trust.fetch import Fetcher, OutboundUrl, read_ca
from sts.trust.remote_jwks import Loaded, RemoteSet

STALE: Final = 3600.0
"""Seconds for which a backend's last good keys remain in use after their expiry if its set cannot be fetched."""


class EncryptionSettings(Section):
    """The keys and the algorithms for the encryption of a backend's tokens."""

    jwks_uri: OutboundUrl | None = None
    """Where the backend publishes its keys: https, or http to a literal loopback address."""
    jwks_file: KeptConfigFile | None = None
    """The backend's JWK set as a file, instead of `jwks_uri`; a reload reads it again."""
    ca_file: KeptConfigFile | None = None
    """PEM certificates of the CAs that verify the backend's https, instead of the system's CAs."""
    alg: KeyManagement
    """How the content's key is encrypted: `ECDH-ES`, `ECDH-ES+A256KW` (P-256, X25519) or `RSA-OAEP-256`."""
    enc: ContentEncryption = "A256GCM"
    """How the content is encrypted."""

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if (self.jwks_uri is None) == (self.jwks_file is None):
            raise ValueError("write exactly one of jwks_uri and jwks_file")
        if self.jwks_file is not None and self.ca_file is not None:
            raise ValueError("ca_file is for fetching; jwks_file needs no fetching")
        return self

    def file_faults(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the description of each fault in the files that these settings name."""
        yield from file_faults("jwks_file", self.jwks_file, lambda file: FileRecipient(file, self.alg))
        yield from file_faults("ca_file", self.ca_file, read_ca)


class Recipient(Protocol):
    """The keys of one backend."""

    def key(self, now: float) -> EncryptKey:
        """Return the key to encrypt to: the first usable one of the set. May wait. Raises SOURCE_UNREACHABLE."""

    def current(self, thumbprint: str) -> bool:
        """Return whether the key with this RFC 7638 thumbprint is in the current set. Never waits."""

    @property
    def trouble(self) -> str:
        """Why the last fetch of the keys failed, "" if it succeeded; for operators."""


class FileRecipient:
    """Keys from a JWK set file that the configuration has read; a reload reads the file again.

    Raises StartError if the file cannot be read or contains no usable key.
    """

    trouble = ""

    def __init__(self, file: KeptFile, algorithm: KeyManagement) -> None:
        try:
            self._keys = import_encryption_jwks(file.read(), algorithm)
        except UnfitError as error:
            raise StartError(f"the JWK set file {file} cannot be used: {error}") from None

    def key(self, now: float) -> EncryptKey:  # noqa: ARG002 - Recipient
        """Return the first key. Never waits."""
        return self._keys.keys[0]

    def current(self, thumbprint: str) -> bool:
        """Return whether the file contains the key."""
        return self._keys.holds(thumbprint)


class RemoteRecipient(RemoteSet[EncryptKeys]):
    """Keys over HTTP."""

    def key(self, now: float) -> EncryptKey:
        """Return the first usable key (see `Recipient`). Waits only if there is no current set."""
        return self.find(lambda keys: keys.keys[0], _none, now, what="the backend's encryption keys")

    def current(self, thumbprint: str) -> bool:
        """Return whether the key is in the current set. Never waits."""
        return self.holds(lambda keys: keys.holds(thumbprint))


def _none(keys: EncryptKeys) -> Refusal:
    return Refusal(SOURCE_UNREACHABLE, why="the backend publishes no usable key", left_out="; ".join(keys.skipped[:5]))


@dataclass(frozen=True, slots=True)
class Recipients:
    """Creates recipients, and keeps the remote ones for the life of the process, so that a reload needs no new fetch.

    `max_waiters` limits the requests that wait for one backend's keys; `all_waiters` limits those of all together.
    `notice(audience, why)` is called after every fetch: `why` is the reason of a failure, else "".
    """

    clock: Callable[[], float]
    max_waiters: int
    all_waiters: Bulkhead
    notice: Callable[[str, str], None] = lambda _audience, _why: None
    _remote: dict[tuple[str, str, str | None, KeyManagement], RemoteRecipient] = field(default_factory=dict, repr=False)

    def of(self, audience: str, settings: EncryptionSettings) -> Recipient:
        """Return the keys of `audience`; a remote set with unchanged settings is reused.

        This fetches nothing yet. Raises StartError if a file cannot be used.
        """
        if settings.jwks_file is not None:
            return FileRecipient(settings.jwks_file, settings.alg)
        uri, algorithm = settings.jwks_uri or "", settings.alg
        ca = None if settings.ca_file is None else read_ca(settings.ca_file)
        known = self._remote.get((audience, uri, ca, algorithm))
        if known is None:
            fetcher = Fetcher(ca)
            known = self._remote[audience, uri, ca, algorithm] = RemoteRecipient(
                lambda: _load(fetcher, uri, algorithm),
                self.clock,
                stale_jwks=STALE,
                max_waiters=self.max_waiters,
                notice=lambda why: self.notice(audience, why),
                all_waiters=self.all_waiters,
            )
        return known


def _load(fetcher: Fetcher, uri: str, algorithm: KeyManagement) -> Loaded[EncryptKeys]:
    document = fetcher.fetch(uri)
    return Loaded(import_encryption_jwks(document.body, algorithm), document.max_age)
