"""Where the deployment secret and the key ring are, and who may make them.

Only `sts serve`, before it forks, and `sts keys init` call `prepare`; everything else opens what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from keys import rotation
from keys.record import Ring
from keys.seal import Sealer
from keys.store import Store
from keys.store_file import FileStore
from sts import labels
from sts.errors import StartError
from sts.labels import DeploymentSecret
from sts.mint.settings import KeysSettings

RING_FILE: Final = "keyring.json"
SECRET_FILE: Final = "secret"  # noqa: S105 - the name of a file
SEAL_LABEL: Final = "keys seal"


def open_secret(given: SecretStr | None, var: Path) -> DeploymentSecret:
    """The secret that the configuration gives, else the one in `var`. Raises StartError, naming the absolute path."""
    return labels.read(var / SECRET_FILE) if given is None else DeploymentSecret.parse(given.get_secret_value())


def open_store(settings: KeysSettings, var: Path, secret: DeploymentSecret) -> Store:
    """The key store, sealed with its own key of the deployment secret. Nothing is read or made yet."""
    if settings.store != "file":
        raise StartError(f"keys.store {settings.store} is not supported yet")
    return FileStore(var / RING_FILE, Sealer([secret.key(SEAL_LABEL)]))


def prepare(
    settings: KeysSettings, var: Path, given: SecretStr | None, clock: Callable[[], float], longest_ttl: float
) -> tuple[DeploymentSecret, Store, Ring, bool]:
    """Open secret, store and ring; make secret and ring where neither is there. The last says whether a ring was made.

    A ring whose secret is gone is a fault: a new secret could not open it, and would hide the loss. The ring also
    learns the longest ttl of this configuration, before the first token of that length is minted. Raises StartError
    and KeysError.
    """
    secret = _make_secret(var) if given is None else open_secret(given, var)
    store = open_store(settings, var, secret)
    ring, made = rotation.create(store, settings.algorithm, clock, settings.schedule(), longest_ttl)
    if not made:
        ring, _ = rotation.note_longest_ttl(store, clock, settings.schedule(), longest_ttl)
    return secret, store, ring, made


def _make_secret(var: Path) -> DeploymentSecret:
    secret_file, ring_file = (var / SECRET_FILE).absolute(), (var / RING_FILE).absolute()
    try:
        # the ring first: whoever makes both makes the secret first, so a start beside ours is not taken for a loss
        lost = ring_file.exists() and not secret_file.exists()
    except OSError as error:
        raise StartError(f"{var.absolute()} cannot be used: {error.strerror}") from None
    if lost:
        raise StartError(
            f"there is a key ring at {ring_file}, but its deployment secret {secret_file} is gone: restore it"
        )
    return labels.create(secret_file)
