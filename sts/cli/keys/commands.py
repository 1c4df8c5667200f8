"""`sts keys`: create and show the signing keys; the commands that change them are in `changes`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from keys import jwks, rotation
from keys.errors import RingMissing
from keys.record import Ring
from sts.cli import common
from sts.cli.keys import changes
from sts.cli.keys.opening import dry_run_option, json_option, looks_only, open_ring, spoken
from sts.cli.keys.output import plan_facts, plan_line, replica_lines, ring_facts, short, time_line
from sts.mint import keystore
from sts.settings import Settings


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke the keys that sign tokens.

    There is always one key that signs and one standby. The standby is published long before it signs, so that every
    verifier has it by then. `rotate` lets the standby sign and publishes the next one; the former key stays published
    until its last token has expired. `revoke` is for a stolen key.
    """


for command in changes.COMMANDS:
    keys.add_command(command)


@keys.command()
@common.config_option
@dry_run_option
@json_option
def init(*, config: Path, dry_run: bool, as_json: bool) -> None:
    r"""Create the deployment secret and the key ring.

    An existing secret or ring stays unchanged. `sts serve` does the same at its first start. A ring without its secret
    is a fault: a new secret could not open it.

    \b
    Examples:
      sts keys init
      sts keys init -c /etc/sts/sts.yaml --json

    \b
    Exit status: 0 the ring exists, created now or before, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    if dry_run:
        _say_what_init_would_do(settings, as_json=as_json)
        return
    with spoken():
        before = _there(settings)
        _, store, ring, made = keystore.prepare(
            settings.keys, settings.var, settings.given_secret(), time.time, settings.wanted(), settings.redis
        )
    fresh = [key for key in ring.keys if before is not None and before.find(key.kid) is None]
    if as_json:
        facts = {"made": made, "place": store.place, "version": ring.version}
        click.echo(json.dumps({**facts, "published": [key.kid for key in fresh]}))
    elif made:
        click.echo(f"{store.place}: made; {_signing(ring)} signs, its standby is published")
    elif fresh:
        for key in fresh:
            click.echo(f"{store.place}: {short(key.kid)}, the first {key.algorithm} key, is published and waits")
    else:
        click.echo(f"{store.place}: is there already (version {ring.version}), nothing was made")


@keys.command("list")
@common.config_option
@looks_only
@json_option
def list_keys(*, config: Path, as_json: bool) -> None:
    r"""Show the keys, their states, and when each changes.

    An `active` key signs, a `published` key is a standby, a `retired` key still verifies. Key ids are shortened; --json
    prints them completely.

    \b
    Examples:
      sts keys list
      sts keys list --json | jq '.plans[].due_in'

    \b
    Exit status: 0 done, 1 there is no ring or it is not authentic, 2 usage, 3 the store cannot be read.
    """
    settings = common.load(config)
    schedule = settings.keys.schedule()
    with spoken():
        store = open_ring(settings)
        ring, sightings, now = store.load(), tuple(store.sightings()), time.time()
        plans = [rotation.plan(ring, name, now, schedule, sightings) for name in ring.algorithms]
    if as_json:
        click.echo(json.dumps(ring_facts(ring, store.place, now, plans, sightings), indent=1))
        return
    common.console.print(f"{store.place}, version {ring.version}")
    common.console.print(time_line(ring, now, schedule, sightings))
    for line in replica_lines(ring, now, sightings):
        common.console.print(line)


@keys.command()
@common.config_option
@looks_only
@json_option
def plan(*, config: Path, as_json: bool) -> None:
    r"""Show when rotations are due and possible.

    For each algorithm: when a rotation is due, and when the next key may sign. The command changes nothing.

    \b
    Examples:
      sts keys plan
      sts keys plan --json | jq '.[] | select(.due)'

    \b
    Exit status: 0 done, 1 there is no ring or it is not authentic, 2 usage, 3 the store cannot be read.
    """
    settings = common.load(config)
    with spoken():
        store = open_ring(settings)
        ring, sightings, now = store.load(), tuple(store.sightings()), time.time()
        plans = [rotation.plan(ring, name, now, settings.keys.schedule(), sightings) for name in ring.algorithms]
    if as_json:
        click.echo(json.dumps([plan_facts(one) for one in plans], indent=1))
        return
    unwanted = set(ring.algorithms) - set(settings.wanted().algorithms)
    for one in plans:
        click.echo(
            plan_line(one) + (" and is wanted no more: the next rotation retires it" * (one.algorithm in unwanted))
        )


@keys.command("jwks")
@common.config_option
@looks_only
@click.option("--json", is_flag=True, expose_value=False, help="Accepted; the output is always JSON.")
def show_jwks(*, config: Path) -> None:
    r"""Print the JWK Set that services publish now.

    For verifiers that cannot fetch it.

    \b
    Example:
      sts keys jwks > jwks.json

    \b
    Exit status: 0 done, 1 there is no ring or it is not authentic, 2 usage, 3 the store cannot be read.
    """
    with spoken():
        ring = open_ring(common.load(config)).load()
    click.echo(json.dumps(jwks.jwks(ring, time.time()), indent=1))


def _there(settings: Settings) -> Ring | None:
    """Return the existing ring, None if there is none."""
    if settings.secret is None and not (settings.var / keystore.SECRET_FILE).exists():
        return None
    try:
        return open_ring(settings).load()
    except RingMissing:
        return None


def _say_what_init_would_do(settings: Settings, *, as_json: bool) -> None:
    with spoken():
        found = _there(settings)
    lacking = [] if found is None else [name for name in settings.wanted().algorithms if found.standby(name) is None]
    if as_json:
        click.echo(json.dumps({"made": False, "would_make": found is None, "would_publish": lacking}))
    elif found is None:
        click.echo(f"a ring would be made in {settings.var}")
    elif lacking:
        click.echo(f"the ring is there; a first key would be published for {', '.join(lacking)}")
    else:
        click.echo("nothing would be made: the ring is there")


def _signing(ring: Ring) -> str:
    return ", ".join(short(key.kid) for key in ring.keys if key.signs)
