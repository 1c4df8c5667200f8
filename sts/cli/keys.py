"""`sts keys`: make, look at and rotate the signing keys."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich import box
from rich.table import Table

from keys import rotation
from keys.errors import GuardRefused, KeysError, RingMissing, StoreUnavailable
from keys.lifecycle import Schedule, State, guard_missing, state
from keys.record import KeyRecord, Ring
from keys.store import Store
from sts.cli import common
from sts.mint import keystore
from sts.settings import Settings

_KID_SHOWN: Final = 10

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object; times are Unix seconds.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")


@click.group()
def keys() -> None:
    """Make, list and rotate the keys that tokens are signed with.

    There is always one key that signs and one that waits: the standby is published long before it signs, so that
    every verifier has it by then. `rotate` lets the standby sign and publishes the next one; the former key stays
    published until its last token is over.
    """


@keys.command()
@common.config_option
@json_option
def init(*, config: Path, as_json: bool) -> None:
    r"""Make the deployment secret and the key ring.

    What is there already stays as it is. `sts serve` does so itself on the first start. A ring whose secret is gone is
    a fault: a new secret could not open it.

    \b
    Examples:
      sts keys init
      sts keys init -c /etc/sts/sts.yaml --json

    \b
    Exit status: 0 the ring is there, made now or before, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    with spoken():
        _, store, ring, made = keystore.prepare(
            settings.keys, settings.var, settings.secret, time.time, settings.longest_ttl()
        )
    if as_json:
        click.echo(json.dumps({"made": made, "place": store.place, "version": ring.version}))
    elif made:
        click.echo(f"{store.place}: made; {_short(_signing_kid(ring, settings))} signs, its standby is published")
    else:
        click.echo(f"{store.place}: is there already (version {ring.version}), nothing was made")


@keys.command("list")
@common.config_option
@json_option
def list_keys(*, config: Path, as_json: bool) -> None:
    r"""Show the time line: what signs, what waits, what may go and when.

    An `active` key signs, a `published` one waits, a `retired` one still verifies. Key ids are cut; --json has them
    whole.

    \b
    Examples:
      sts keys list
      sts keys list --json | jq '.plans[].due_in'

    \b
    Exit status: 0 done, 1 there is no ring or it is not authentic, 2 usage, 3 the store cannot be read.
    """
    settings = common.load(config)
    with spoken():
        store = open_ring(settings)
        ring = store.load()
        now = time.time()
        plans = [rotation.plan(ring, name, now, settings.keys.schedule()) for name in ring.algorithms]
    if as_json:
        click.echo(json.dumps(_as_json(ring, store.place, now, plans), indent=1))
        return
    common.console.print(f"{store.place}, version {ring.version}")
    common.console.print(_table(ring, now, settings.keys.schedule()))


@keys.command()
@common.config_option
@click.option("--if-due", is_flag=True, help="Do nothing before `rotate_every` has passed: what a scheduler calls.")
@dry_run_option
@json_option
def rotate(*, config: Path, if_due: bool, dry_run: bool, as_json: bool) -> None:
    r"""Let the standby sign, and publish the next one.

    Refused, with the seconds missing, while some verifier may still lack the standby. Running services notice by
    themselves within `poll`; nothing is restarted, and tokens of the former key stay good. Safe to run twice, and on
    two machines at once: the second is told that the new standby is too young.

    \b
    Examples:
      sts keys rotate --dry-run
      sts keys rotate
      sts keys rotate --if-due            from cron or a Kubernetes CronJob

    \b
    Exit status: 0 rotated, or not due with --if-due, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    algorithm, schedule = settings.keys.algorithm, settings.keys.schedule()
    with spoken(as_json=as_json):
        store = open_ring(settings)
        plan = rotation.plan(store.load(), algorithm, time.time(), schedule)
        if if_due and not plan.due:
            _say_untouched(plan, "not due", f"not due: due in {span(plan.due_in)}", as_json=as_json)
        elif dry_run:
            _refuse_too_early(plan)
            would = f"{_short(plan.standby)} would sign instead of {_short(plan.signing)}"
            _say_untouched(plan, "dry run", would, as_json=as_json)
        else:
            longest = settings.longest_ttl()
            ring, done = rotation.rotate(store, algorithm, time.time, schedule, longest, only_if_due=if_due)
            if done:
                _say_rotated(ring, algorithm, as_json=as_json)
            else:
                _say_untouched(plan, "not due", "not due any more: somebody else rotated", as_json=as_json)


def open_ring(settings: Settings) -> Store:
    """The key store of this configuration, with what is there; nothing is made. Raises StartError."""
    return keystore.open_store(settings.keys, settings.var, keystore.open_secret(settings.secret, settings.var))


@contextlib.contextmanager
def spoken(*, as_json: bool = False) -> Iterator[None]:
    """End the command with a sentence and the documented exit status where keys raise."""
    try:
        yield
    except StoreUnavailable as error:
        common.fail(str(error), common.EXIT_UNREACHABLE)
    except RingMissing as error:
        common.fail(f"{error}: `sts serve` and `sts keys init` make one", common.EXIT_REFUSED)
    except GuardRefused as error:
        if as_json:
            click.echo(json.dumps({"rotated": False, "why": "guard", "seconds": round(error.seconds, 3)}))
        common.fail(str(error), common.EXIT_REFUSED)
    except KeysError as error:
        common.fail(str(error), common.EXIT_REFUSED)


def span(seconds: float) -> str:
    """Write a length of time the way people say it: its two largest units."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def _refuse_too_early(plan: rotation.Plan) -> None:
    if plan.guard_missing:
        raise GuardRefused(plan.guard_missing)


def _say_untouched(plan: rotation.Plan, why: str, text: str, *, as_json: bool) -> None:
    facts = {"signing": plan.signing, "standby": plan.standby, "due_in": round(plan.due_in, 3)}
    click.echo(json.dumps({"rotated": False, "why": why, **facts}) if as_json else text)


def _say_rotated(ring: Ring, algorithm: str, *, as_json: bool) -> None:
    now = time.time()
    signing, standby = ring.signing(algorithm), ring.standby(algorithm)
    retired = max((key for key in ring.keys if key.retired_at), key=lambda key: key.retired_at or 0.0)
    if signing is None or standby is None:
        raise KeysError("the ring is not as it was left")
    if as_json:
        facts = {"signing": signing.kid, "retired": retired.kid, "leaves_at": retired.leaves_at}
        click.echo(json.dumps({"rotated": True, "version": ring.version, **facts, "standby": standby.kid}))
        return
    click.echo(f"{_short(signing.kid)} signs now")
    click.echo(f"{_short(retired.kid)} is retired and stays published for {span((retired.leaves_at or now) - now)}")
    click.echo(f"{_short(standby.kid)} is published and may sign in {span(standby.ready_at - now)}")


def _table(ring: Ring, now: float, schedule: Schedule) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    several = len(ring.algorithms) > 1
    for name in ("key", *(["algorithm"] if several else [])):
        table.add_column(name, overflow="ellipsis")  # what gives way on a narrow terminal
    for name in ("state", "since (UTC)", "what comes next"):
        table.add_column(name, no_wrap=True)
    for key in ring.keys:
        found = state(key, now)
        table.add_row(
            _short(key.kid),
            *([key.algorithm] if several else []),
            found,
            datetime.fromtimestamp(_since(key, found), UTC).strftime("%Y-%m-%d %H:%M"),
            _next(key, found, now, schedule),
            style="bold" if found is State.ACTIVE else "dim" if found in (State.REMOVED, State.REVOKED) else "",
        )
    return table


def _since(key: KeyRecord, found: State) -> float:
    times = {
        State.PUBLISHED: key.published_at,
        State.ACTIVE: key.active_at,
        State.RETIRED: key.retired_at,
        State.REMOVED: key.leaves_at,
        State.REVOKED: key.revoked_at,
    }
    return times[found] or key.published_at


def _next(key: KeyRecord, found: State, now: float, schedule: Schedule) -> str:
    if found is State.PUBLISHED:
        missing = guard_missing(key, now, schedule)
        return f"may sign in {span(missing)}" if missing else "may sign now"
    if found is State.ACTIVE and key.active_at is not None:
        left = key.active_at + schedule.rotate_every - now
        return f"rotation is due in {span(left)}" if left > 0 else f"rotation is due since {span(-left)}"
    if found is State.RETIRED and key.leaves_at is not None:
        return f"leaves the JWKS in {span(key.leaves_at - now)}"
    return "dropped by the next rotation" if found is State.REMOVED else ""


def _as_json(ring: Ring, place: str, now: float, plans: list[rotation.Plan]) -> dict[str, Any]:
    times = ("published_at", "ready_at", "active_at", "retired_at", "leaves_at", "revoked_at")
    return {
        "place": place,
        "version": ring.version,
        "now": now,
        "longest_ttl": ring.longest_ttl,
        "keys": [
            {"kid": key.kid, "algorithm": key.algorithm, "state": state(key, now)}
            | {name: getattr(key, name) for name in times}
            for key in ring.keys
        ],
        "plans": [
            {"algorithm": plan.algorithm, "signing": plan.signing, "standby": plan.standby, "due": plan.due}
            | {"due_in": round(plan.due_in, 3), "guard_missing": round(plan.guard_missing, 3)}
            for plan in plans
        ],
    }


def _signing_kid(ring: Ring, settings: Settings) -> str:
    signing = ring.signing(settings.keys.algorithm)
    return signing.kid if signing is not None else ""


def _short(kid: str) -> str:
    return kid if len(kid) <= _KID_SHOWN else kid[:_KID_SHOWN] + "…"
