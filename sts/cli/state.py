"""`sts state`: commands for the state store as a whole."""

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
    """Accept the state store, after it was emptied or restored on purpose."""


@state.command("accept")
@common.config_option
@click.option("--dry-run", is_flag=True, help="Print the content of the store and any loss, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; implies --yes.")
def accept_store(*, config: Path, dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Accept the state store as it is now, on every machine.

    A running service detects that its store was emptied, replaced or restored from an older copy, and treats that as an
    outage: revocations and API keys may be lost, and one-time credentials could be used again. Restore the store if you
    can. Accept it only if the change was intended, or after you have recorded the missing data with `sts revoke` and
    `sts api-keys`. Running services detect the acceptance within two seconds.

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
    """Return why the store does not continue the last state that this machine has seen, "" if it does.

    Raises StateUnavailableError.
    """
    for name in FOLLOWED:
        watch = Continuity(store, name, seen_file(settings.var, settings.state.store, name))
        known = watch.known()
        for one in known:
            found = store.changes(name, Cursor(one.epoch, one.sequence))
            if not found.reset:
                continue  # it continues the known state
            while found.more:
                found = store.changes(name, found.cursor)
            if why := watch.judge(known, found.cursor):
                return why
    return ""


def warn_of_loss(settings: Settings, store: State) -> None:
    """Warn on standard error if the store has lost its content: then a list may be incomplete."""
    if why := lost_here(settings, store):
        common.console_err.print(f"warning: {why}")
