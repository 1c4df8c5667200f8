"""The deployment secret: 32 bytes, from which each use derives its own key under its own label.

Two uses never share a key, so output of one use (a hash in the audit, for example) does not help to attack another.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keys.files import hand_over, make_folder
from sts.errors import StartError

BYTES: Final = 32
WRITTEN: Final = f"{BYTES} random bytes, written as `openssl rand -hex {BYTES}` does, or in base64"

_HEX_LENGTH: Final = 64
_MODE: Final = 0o600
_MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class DeploymentSecret:
    """The secret of one deployment, shared by its replicas. `repr` does not show it.

    `previous` is the secret that this one replaces, kept while data written under it may still exist.
    """

    _material: bytes = field(repr=False)
    previous: DeploymentSecret | None = None

    def __post_init__(self) -> None:
        """Refuse any length except 32 bytes."""
        if len(self._material) != BYTES:
            raise StartError(f"a deployment secret is {WRITTEN}")

    def key(self, label: str) -> bytes:
        """Derive the 32-byte key of one use by HKDF-SHA256 (RFC 5869); `label` must be unique to that use."""
        if not label:
            raise ValueError("a key needs a label")
        return HKDF(algorithm=hashes.SHA256(), length=BYTES, salt=None, info=b"sts " + label.encode()).derive(
            self._material
        )

    def keys(self, label: str) -> list[bytes]:
        """Return the keys of one use, the previous secret's last: read with any of them, write with the first."""
        return [self.key(label), *(self.previous.keys(label) if self.previous else ())]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a secret given as text: base64url or base64 (43 characters, padded or not) or hex (64).

        Raises StartError for any other text; the error never repeats the text.
        """
        text = text.strip()
        try:
            # The length decides the encoding, so that no text can be read in two ways.
            material = bytes.fromhex(text) if len(text) == _HEX_LENGTH else _from_base64(text)
        except ValueError:
            material = b""
        return cls(material)


def hashed(secret: bytes, kind: str, text: str) -> str:
    """Return a subject or a credential in unreadable form: an HMAC under a label's key, as text.

    `kind` keeps equal texts of two kinds apart. The audit and the state use the same form, so that entries match.
    """
    parts = kind.encode() + b"\0" + text.encode("utf-8", "surrogatepass")
    return "hmac:" + hmac.digest(secret, parts, "sha256")[:16].hex()


def read(path: Path) -> DeploymentSecret:
    """Read the secret in the file `path`. Raises StartError with the absolute path."""
    path = path.absolute()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise StartError(
            f"there is no deployment secret at {path}: `sts serve` and `sts keys init` create one at the first start"
        ) from None
    except OSError as error:
        raise StartError(f"the deployment secret {path} cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise StartError(f"the deployment secret {path} is not a plain file")
        mode = stat.S_IMODE(found.st_mode)
        if mode & ~_MODE:
            raise StartError(
                f"the deployment secret {path} has mode {mode:04o}: only its owner may read it (chmod 600)"
            )
        text = os.read(descriptor, _MAX_TEXT)
    except OSError as error:
        raise StartError(f"the deployment secret {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    try:
        return DeploymentSecret.parse(text.decode("ascii"))
    except (UnicodeDecodeError, StartError) as error:
        why = error if isinstance(error, StartError) else "it is not ASCII text"
        raise StartError(f"the deployment secret {path} is unusable: {why}") from None


def create(path: Path) -> DeploymentSecret:
    """Create the file `path` with a new secret unless it exists; return the secret that is in the file.

    Processes that start at the same time get the same secret, and a crash leaves a complete file or none: the text is
    written under another name and linked to `path`, which fails if the file already exists. Raises StartError.
    """
    path = path.absolute()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        make_folder(path.parent)
        _write(draft, base64.urlsafe_b64encode(secrets.token_bytes(BYTES)).rstrip(b"=") + b"\n")
        try:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
                _sync_folder(path.parent)
        finally:
            draft.unlink()
    except OSError as error:
        raise StartError(f"the deployment secret {path} cannot be created: {error.strerror}") from None
    return read(path)


def _write(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        hand_over(descriptor, path.parent)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # otherwise a power failure may lose the new name, and the ring cannot be opened
    finally:
        os.close(descriptor)


def _from_base64(text: str) -> bytes:
    """Accept both alphabets: with base64url alone, three of four texts of `openssl rand -base64 32` would fail."""
    text = text.replace("+", "-").replace("/", "_")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text.rstrip("="):
        raise ValueError("not base64")
    return data
