"""Opens the deployment secret and the key ring, and creates them where that is allowed.

Only `sts serve`, before it forks, and `sts keys init` call `prepare`; all other code opens what exists.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from keys import rotation
from keys.errors import StoreUnavailable
from keys.record import Ring
from keys.rollback_guard import Witness
from keys.seal import Sealer
from keys.store import Store
from keys.store_file import FileStore
from keys.store_redis import RedisStore
from keys.transitions import Wanted
from sts import labels
from sts.errors import StartError
from sts.labels import DeploymentSecret
from sts.mint.settings import KeysSettings
from sts.redis_link import PATIENT, RedisLink, RedisSettings, RedisUnavailableError

Result = TypeVar("Result")

RING_FILE: Final = "keyring.json"
SEEN_FILE: Final = "keyring.seen"
SECRET_FILE: Final = "secret"  # noqa: S105 - the name of a file
SEAL_LABEL: Final = "keys seal"


def open_secret(given: DeploymentSecret | None, var: Path) -> DeploymentSecret:
    """Return the configured secret, else the one in `var`. Raises StartError with the absolute path."""
    if given is not None:
        return given
    _check_not_lost(var)
    return labels.read(var / SECRET_FILE)


def open_store(
    settings: KeysSettings, var: Path, secret: DeploymentSecret, redis: RedisSettings | None = None
) -> Store:
    """Return the key store, sealed with the seal keys, else with a key derived from the deployment secret.

    With seal keys, a ring that the secret sealed can still be opened, so that it can be sealed again. This call reads
    and creates no file. What this machine has seen of the ring is kept in `var`: every reader then refuses an older
    ring.
    """
    given = [DeploymentSecret.parse(key.get_secret_value()).key(SEAL_LABEL) for key in settings.seal_keys or ()]
    sealer = Sealer([*given, *secret.keys(SEAL_LABEL)])
    store = FileStore(var / RING_FILE, sealer) if settings.store == "file" else _in_redis(redis, sealer)
    return Witness(store, var / SEEN_FILE, sealer)


def prepare(
    settings: KeysSettings,
    var: Path,
    given: DeploymentSecret | None,
    clock: Callable[[], float],
    wanted: Wanted,
    redis: RedisSettings | None = None,
) -> tuple[DeploymentSecret, Store, Ring, bool]:
    """Open secret, store and ring; create secret and ring if neither exists. The last result is whether it created one.

    A ring without its secret is a fault: a new secret could not open the ring, and would hide the loss. The ring is
    also adapted to this configuration before the first token is minted. Raises StartError and KeysError.
    """
    secret = _make_secret(var) if given is None else given
    store = open_store(settings, var, secret, redis)
    ring, made = rotation.create(store, clock, wanted)
    if not made:
        ring, _ = rotation.prepare(store, clock, wanted)
    return secret, store, ring, made


class _RedisStore(RedisStore):
    """A Redis store over `RedisLink`, which limits the time of every command."""

    def __init__(self, settings: RedisSettings, sealer: Sealer) -> None:
        self._link = RedisLink(settings, PATIENT)
        super().__init__(self._through, sealer, settings.url or ", ".join(settings.nodes))

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._link.close()

    def _through(self, use: Callable[[Any], Result], *, again: bool) -> Result:
        try:
            return self._link.run(use, again=again)
        except RedisUnavailableError as error:
            raise StoreUnavailable(f"{self.place} cannot be used: {error}") from None


def _in_redis(redis: RedisSettings | None, sealer: Sealer) -> RedisStore:
    if redis is None:
        raise StartError("keys.store: redis needs the section `redis`")
    return _RedisStore(redis, sealer)


def _check_not_lost(var: Path) -> None:
    """Raise StartError if there is a ring in `var` without its secret: a new secret could not open the ring."""
    secret_file, ring_file = (var / SECRET_FILE).absolute(), (var / RING_FILE).absolute()
    try:
        # The ring first: a process that starts beside ours creates the secret first, and must not look like a loss.
        lost = ring_file.exists() and not secret_file.exists()
    except OSError as error:
        raise StartError(f"{var.absolute()} cannot be used: {error.strerror}") from None
    if lost:
        raise StartError(
            f"there is a key ring at {ring_file}, but its deployment secret {secret_file} is missing: restore it"
        )


def _make_secret(var: Path) -> DeploymentSecret:
    _check_not_lost(var)
    return labels.create(var / SECRET_FILE)
