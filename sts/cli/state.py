"""`sts state`: what an operator says of the store as a whole."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import click

from sts.cli import common
from sts.cli.audited import audit
from sts.cli.keys.opening import ask
from sts.errors import StartError
from sts.mint.keystore import open_secret
from sts.settings import Settings
from sts.state import State, StateUnavailableError, open_state
from sts.state.continuity import Continuity, accept, seen_file
from sts.state.state import Cursor, read_all
from sts.state.worker_state import FOLLOWED

_TITLES: Final = {"revocations": "revocations", "api_keys": "API keys"}


@click.group("state")
def state() -> None:
    """Say that the state store is right as it is, after it was emptied or put back on purpose."""


@state.command("accept")
@common.config_option
@click.option("--dry-run", is_flag=True, help="Say what the store holds and lacks, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; implies --yes.")
def accept_store(*, config: Path, dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Accept the state store as it is now, on every machine.

    A running service notices that its store was emptied, replaced or put back to an older copy, and treats that as an
    outage: revocations and API keys may be lost with it, and credentials for one use may be used again. Restore
    the store if you can. Accept it only where you meant it, or after `sts revoke` and `sts api-keys` have brought back
    what is missing. Running services notice within two seconds.

    \b
    Examples:
      sts state accept --dry-run
      sts state accept

    \b
    Exit status: 0 accepted, 1 refused or faulty, 2 usage, 3 the state cannot be reached.
    """
    settings = common.load(config)
    open_secret(settings.given_secret(), settings.var)
    store = open_state(settings.state, settings.redis, settings.var, time.time)
    try:
        store.check()
        lost = lost_here(settings, store)
        counts = {name: len(read_all(store, name)) for name in FOLLOWED}
        if not as_json:
            held = ", ".join(f"{counts[name]} {_TITLES[name]}" for name in FOLLOWED)
            click.echo(f"{lost or 'the state store is the one that this machine knows'}\nit holds {held}")
        done = not dry_run
        if done:
            ask("Accept the store as it is?", yes=yes or as_json)
            accept(store, FOLLOWED, time.time())
    except (StateUnavailableError, StartError) as error:
        common.fail(str(error), common.EXIT_UNREACHABLE)
    finally:
        store.close()
    if done:
        audit(settings, "state", "accepted", aloud=True, **counts)
    if as_json:
        click.echo(json.dumps({"done": done, "lost": lost, **counts}))
    elif done:
        click.echo("accepted; running services take it within two seconds")


def lost_here(settings: Settings, store: State) -> str:
    """Why the store is not the one that this machine has seen, "" if it is. Raises StateUnavailableError."""
    for name in FOLLOWED:
        watch = Continuity(store, name, seen_file(settings.var, settings.state.store, name))
        known = watch.known()
        for one in known:
            found = store.changes(name, Cursor(one.epoch, one.sequence))
            if not found.reset:
                continue  # it goes on from where it was
            while found.more:
                found = store.changes(name, found.cursor)
            if why := watch.judge(known, found.cursor):
                return why
    return ""


def warn_of_loss(settings: Settings, store: State) -> None:
    """Warn on standard error where the store is not the one that this machine has seen: a list may lack much then."""
    if why := lost_here(settings, store):
        common.console_err.print(f"warning: {why}")
