"""`sts keys rotate | revoke | import | reseal`: what changes the ring that is there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import BinaryIO, Final

import click

from keys import imported, rotation, transitions
from keys.algorithms import ALGORITHMS
from keys.errors import GuardRefused, KeysError
from keys.lifecycle import Schedule
from keys.record import Ring
from keys.replica_report import Sighting
from keys.revocation_impact import bounds, foreseen
from keys.signer import Pair, generate
from keys.store import Store
from sts.cli import common
from sts.cli.keys.opening import ROTATED, ask, audit, dry_run_option, json_option, no_key, open_ring, spoken, yes_option
from sts.cli.keys.output import newly_revoked, say_revoked, say_rotated, say_untouched, short, span
from sts.settings import Settings

_LEAST_OF_A_NAME: Final = 6
_PATIENCE_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.2

algorithm_option = click.option(
    "--algorithm", type=click.Choice(list(ALGORITHMS)), help="Only the keys of this algorithm; default: all in use."
)


@click.command()
@common.config_option
@algorithm_option
@click.option("--if-due", is_flag=True, help="Do nothing before `rotate_every` has passed: what a scheduler calls.")
@click.option("--force", is_flag=True, help="Only after a compromise: verifiers that lack the next key will refuse it.")
@yes_option
@dry_run_option
@json_option
def rotate(
    *, config: Path, algorithm: str | None, if_due: bool, force: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    r"""Let the standby sign, and publish the next one.

    Refused, with the seconds missing, while some verifier may still lack the standby. Running services notice by
    themselves within `poll`; nothing is restarted, and tokens of the former key stay good. Safe to run twice, and on
    two machines at once: the second is told that the new standby is too young. Keys of an algorithm that the
    configuration uses no more are retired.

    \b
    Examples:
      sts keys rotate --dry-run
      sts keys rotate
      sts keys rotate --if-due            from cron or a Kubernetes CronJob
      sts keys rotate --force --yes       the next key signs though some verifiers may lack it

    \b
    Exit status: 0 rotated, or not due with --if-due, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    wanted = settings.wanted()
    asked = None if algorithm is None else (algorithm,)
    with spoken(as_json=as_json):
        store = open_ring(settings)
        if not dry_run:
            rotation.prepare(store, time.time, wanted)  # an algorithm that no service has been told of yet
        ring, sightings, now = store.load(), tuple(store.sightings()), time.time()
        there = [one for one in asked or wanted.algorithms if one in ring.algorithms]
        if not there:
            raise no_key(asked or wanted.algorithms, wanted.algorithms)
        plans = [rotation.plan(ring, one, now, wanted.schedule, sightings) for one in there]
        due = [one for one in plans if one.due or not if_due]
        missing, late = max(((one.guard_missing, one.late) for one in due), default=(0.0, ""))
        if not due:
            say_untouched(plans, "not due", f"not due: due in {span(min(p.due_in for p in plans))}", as_json=as_json)
            return
        if missing and not force:
            raise GuardRefused(missing, late)
        if dry_run:
            would = "\n".join(f"{short(one.standby)} would sign instead of {short(one.signing)}" for one in due)
            say_untouched(due, "dry run", would, as_json=as_json)
            return
        if force:
            risk = f"Verifiers may refuse tokens for {span(missing)}." if missing else "It would do without --force."
            ask(f"{risk} Rotate all the same?", yes=yes)
        ring, done = rotation.rotate(store, time.time, wanted, asked, only_if_due=if_due, force=force)
        if not done:
            say_untouched(plans, "not due", "not due any more: somebody else rotated", as_json=as_json)
            return
        audit(settings, ROTATED, ring, forced=force)
        say_rotated(ring, done, as_json=as_json)


@click.command(context_settings={"ignore_unknown_options": True})  # a name of an imported key may begin with a dash
@common.config_option
@click.argument("kid", required=False)
@click.option("--all", "every", is_flag=True, help="Every key: the store was stolen.")
@yes_option
@dry_run_option
@json_option
def revoke(*, config: Path, kid: str | None, every: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    r"""End a key that was stolen, now and for good.

    KID may be cut, as `list` shows it. Asks first; where nobody is there to answer, as in a script, it goes ahead.

    The standby signs from the same moment on. Running services drop the key from the JWKS, and every cached token that
    it signed, within `poll`. Whoever verifies with a JWKS of its own believes the key until it fetches that anew; how
    long at most is printed. With --all fresh keys sign at once, and verifiers refuse them until they fetch the JWKS.

    \b
    Examples:
      sts keys revoke Xb3kJ2pQ9a --dry-run
      sts keys revoke Xb3kJ2pQ9a --yes
      sts keys revoke --all --yes

    \b
    Exit status: 0 revoked, 1 refused, or the answer was no, 2 usage, 3 the store cannot be used.
    """
    if (kid is None) != every:
        raise click.UsageError("name one KID, or say --all")
    settings = common.load(config)
    schedule = settings.wanted().schedule
    with spoken():
        store = open_ring(settings)
        before, sightings, now = store.load(), tuple(store.sightings()), time.time()
        found = None if kid is None else _found(before, kid)
        would = _revoked(before, found, now, settings)
        if dry_run:
            outside = bounds(before, would, now, schedule, foreseen(would, now, schedule, sightings))
            say_revoked(before, would, outside, "dry run", as_json=as_json)
            return
        ask(_question(before, found), yes=yes, alone=True)
        wanted = settings.wanted()
        ring = (
            rotation.revoke_all(store, time.time, wanted) if found is None else rotation.revoke(store, time.time, found)
        )
        ended = newly_revoked(before, ring)
        audit(settings, "revoked all" if every else "revoked", ring, forced=True, revoked=ended)
        outside = bounds(before, ring, time.time(), schedule, _awaited(store, ring, schedule))
        say_revoked(before, ring, outside, "", as_json=as_json)


@click.command("import")
@common.config_option
@click.argument("file", type=click.File("rb"))
@click.option(
    "--algorithm", type=click.Choice(list(ALGORITHMS)), help="What it is to sign with; default: what it fits."
)
@dry_run_option
@json_option
def import_key(*, config: Path, file: BinaryIO, algorithm: str | None, dry_run: bool, as_json: bool) -> None:
    r"""Let a private key from elsewhere wait to sign.

    FILE is unencrypted PEM or a JWK, `-` for standard input.

    It takes the place of the standby and may sign once every verifier has it, like any other. Its name is its
    RFC 7638 thumbprint, whatever it was called. A revoked key does not come back.

    \b
    Examples:
      sts keys import key.pem
      sts keys import rsa.jwk --algorithm PS256
      openssl genpkey -algorithm ed25519 | sts keys import -

    \b
    Exit status: 0 imported, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    with spoken():
        pair = imported.read_private_key(file.read(imported.MAX_BYTES + 1), algorithm, settings.keys.algorithm)
        store = open_ring(settings)
        if dry_run:
            ring = transitions.imported(store.load(), pair, time.time())
        else:
            ring = rotation.import_key(store, time.time, pair)
            audit(settings, "imported", ring)
    ready_in = next(key.ready_at for key in ring.keys if key.kid == pair.kid) - time.time()
    if as_json:
        facts = {"kid": pair.kid, "algorithm": pair.algorithm, "ready_in": round(ready_in, 3)}
        click.echo(json.dumps({"imported": not dry_run, **facts}))
    else:
        click.echo(
            f"{pair.kid} {'would wait' if dry_run else 'waits'}; it may sign {pair.algorithm} in {span(ready_in)}"
        )
    if pair.algorithm not in settings.wanted().algorithms:
        common.console_err.print(
            f"sts: the configuration uses no {pair.algorithm}: the next rotation drops this key, unless "
            "`keys.algorithm` or an audience's `algorithm` names it by then"
        )


@click.command()
@common.config_option
@dry_run_option
@json_option
def reseal(*, config: Path, dry_run: bool, as_json: bool) -> None:
    r"""Seal the ring with the present key.

    That is the first of `seal_keys`, or the key of the present `secret`.

    Run it while both the new and the former one are configured, and every service has been restarted with both; after
    it the former one can be taken out.

    \b
    Example:
      sts keys reseal

    \b
    Exit status: 0 sealed anew, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    with spoken():
        store = open_ring(settings)
        ring = store.load() if dry_run else rotation.reseal(store)
        if not dry_run:
            audit(settings, "resealed", ring)
    if as_json:
        click.echo(json.dumps({"resealed": not dry_run, "version": ring.version}))
    else:
        click.echo(f"{store.place}: version {ring.version} {'would be sealed anew' if dry_run else 'is sealed anew'}")


COMMANDS: Final = (rotate, revoke, import_key, reseal)


def _found(ring: Ring, name: str) -> str:
    """The key that a cut name means. Raises KeysError where there is none, or several."""
    cut = name.rstrip("….")
    found = [key.kid for key in ring.keys if key.kid.startswith(cut)]
    if len(cut) < _LEAST_OF_A_NAME or len(found) > 1:
        raise KeysError(
            f"a key is named by {_LEAST_OF_A_NAME} letters or more that no other begins with: `sts keys list --json`"
        )
    if not found:
        raise KeysError(f"the ring has no key {name}")
    return found[0]


def _revoked(ring: Ring, kid: str | None, now: float, settings: Settings) -> Ring:
    """What a revocation would make of the ring."""
    if kid is not None:
        key = ring.find(kid)
        return transitions.revoked(ring, kid, generate(key.algorithm if key is not None else ""), now)
    pairs: list[tuple[Pair, Pair]] = [(generate(one), generate(one)) for one in settings.wanted().algorithms]
    return transitions.all_revoked(ring, pairs, now)


def _awaited(store: Store, ring: Ring, schedule: Schedule) -> list[Sighting]:
    """What replicas say once each has had the time to look at the store; those that do not are to be named."""
    end = time.monotonic() + 2 * schedule.poll + _PATIENCE_S
    while True:
        sightings, now = list(store.sightings()), time.time()
        if all(one.version >= ring.version or one.until <= now for one in sightings) or time.monotonic() > end:
            return sightings
        time.sleep(min(_LOOK_EVERY_S, schedule.poll))


def _question(ring: Ring, kid: str | None) -> str:
    if kid is None:
        return "Revoke every key? All tokens that are out will be refused."
    key = ring.find(kid)
    what = "signs now" if key is not None and key.signs else "waits" if key is not None and key.waits else "has signed"
    return f"Revoke {kid}, which {what}? It never comes back, and its tokens are refused."
