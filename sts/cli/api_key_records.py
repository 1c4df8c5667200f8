"""The records of API keys as the commands open them, and the sources that they are for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sts.cli import common
from sts.credentials.api_key import ApiKeySource
from sts.mint.keystore import open_secret
from sts.settings import Settings
from sts.state import ConflictError, StateUnavailableError, open_state
from sts.state.api_keys import LABEL, ApiKey, KeyRecords


def source_of(settings: Settings, name: str | None) -> tuple[str, str]:
    """The name and prefix of a source of keys; ends the command where it cannot be told which."""
    sources = {one: source for one, source in settings.sources.items() if isinstance(source, ApiKeySource)}
    if name is None and len(sources) == 1:
        name = next(iter(sources))
    if name is None:
        many = f"several sources of type api_key: say which with --source ({', '.join(sources)})"
        common.fail(many if sources else "no source of type api_key is configured")
    if name not in sources:
        common.fail(f"{name} is no source of type api_key")
    return name, sources[name].prefix


def check_audiences(settings: Settings, source: str, audiences: tuple[str, ...]) -> None:
    """End the command where a key of `source` could not reach one of `audiences`."""
    listed = settings.sources[source].audiences or ("*",)
    for name in audiences:
        if name not in settings.audiences:
            common.fail(f"there is no audience {name}")
        if "*" not in listed and name not in listed:
            common.fail(f"the source {source} does not list the audience {name}")


def existing(records: KeyRecords, key_id: str) -> ApiKey:
    """The record of a key that must be there; else the command ends."""
    key = records.get(key_id)
    if key is None:
        common.fail(f"there is no API key {key_id}: `sts api-keys list --all` shows all")
    return key


@contextmanager
def opened(settings: Settings) -> Iterator[KeyRecords]:
    """The records in the state store; faults of the store end the command."""
    secret = open_secret(settings.given_secret(), settings.var)
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        state.check()
        yield KeyRecords(state, secret.keys(LABEL))
    except StateUnavailableError as error:
        common.fail(f"the state store cannot be used: {error}", common.EXIT_UNREACHABLE)
    except ConflictError:
        common.fail("somebody else changed this key just now: look again")
    finally:
        state.close()
