"""`sts keys rotate | revoke | import | reseal`: the commands that change an existing ring."""

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
@click.option("--if-due", is_flag=True, help="Do nothing before `rotate_every` has passed; for schedulers.")
@click.option("--force", is_flag=True, help="Only after a compromise: verifiers without the next key refuse tokens.")
@yes_option
@dry_run_option
@json_option
def rotate(
    *, config: Path, algorithm: str | None, if_due: bool, force: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    r"""Let the standby sign, and publish the next one.

    The rotation is refused, with the remaining time, while a verifier may still lack the standby. Running services
    detect the change within `poll`, without a restart. Tokens of the former key stay valid. The command may run twice,
    and on two machines at once: the second run is refused because the new standby is too new. Keys of an algorithm that
    the configuration no longer uses are retired.

    \b
    Examples:
      sts keys rotate --dry-run
      sts keys rotate
      sts keys rotate --if-due            from cron or a Kubernetes CronJob
      sts keys rotate --force --yes       the next key signs, although verifiers may lack it

    \b
    Exit status: 0 rotated, or not due with --if-due, 1 refused, 2 usage, 3 the store cannot be used.
    """
    settings = common.load(config)
    wanted = settings.wanted()
    asked = None if algorithm is None else (algorithm,)
    with spoken(as_json=as_json):
        store = open_ring(settings)
        if not dry_run:
            rotation.prepare(store, time.time, wanted)  # publishes the first key of a new algorithm
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
            risk = f"Verifiers may refuse tokens for {span(missing)}." if missing else "--force is not needed."
            ask(f"{risk} Rotate with --force?", yes=yes)
        ring, done = rotation.rotate(store, time.time, wanted, asked, only_if_due=if_due, force=force)
        if not done:
            say_untouched(plans, "not due", "not due any more: another process rotated", as_json=as_json)
            return
        audit(settings, ROTATED, ring, forced=force)
        say_rotated(ring, done, as_json=as_json)


@click.command(context_settings={"ignore_unknown_options": True})  # the id of an imported key may begin with a dash
@common.config_option
@click.argument("kid", required=False)
@click.option("--all", "every", is_flag=True, help="Every key, for instance if the store was stolen.")
@yes_option
@dry_run_option
@json_option
def revoke(*, config: Path, kid: str | None, every: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    r"""Revoke a stolen key at once and permanently.

    KID may be shortened, as in the output of `list`. The command asks for confirmation; in a script, without an input,
    it continues.

    The standby signs at once. Within `poll`, running services drop the key from the JWKS, and every cached token that
    it signed. A verifier trusts the key until it fetches the JWKS again; the command prints the maximum time. With
    --all, new keys sign at once, and verifiers refuse their tokens until they fetch the JWKS.

    \b
    Examples:
      sts keys revoke Xb3kJ2pQ9a --dry-run
      sts keys revoke Xb3kJ2pQ9a --yes
      sts keys revoke --all --yes

    \b
    Exit status: 0 revoked, 1 refused, or the answer was no, 2 usage, 3 the store cannot be used.
    """
    if (kid is None) != every:
        raise click.UsageError("name one KID, or use --all")
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
    "--algorithm", type=click.Choice(list(ALGORITHMS)), help="The algorithm to sign with; default: the one that fits."
)
@dry_run_option
@json_option
def import_key(*, config: Path, file: BinaryIO, algorithm: str | None, dry_run: bool, as_json: bool) -> None:
    r"""Import a private key as the standby.

    FILE is unencrypted PEM or a JWK, `-` for standard input.

    The key replaces the present standby and may sign when every verifier has it. Its key id is its RFC 7638
    thumbprint; the `kid` of a JWK is ignored. A revoked key cannot be imported again.

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

    Run the command while the new and the former key are both configured, and after every service has been restarted
    with both. Afterwards the former key can be removed from the configuration.

    \b
    Example:
      sts keys reseal

    \b
    Exit status: 0 sealed again, 1 refused, 2 usage, 3 the store cannot be used.
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
        click.echo(f"{store.place}: version {ring.version} {'would be sealed again' if dry_run else 'is sealed again'}")


COMMANDS: Final = (rotate, revoke, import_key, reseal)


def _found(ring: Ring, name: str) -> str:
    """Return the key id for a shortened one. Raises KeysError if no key or several keys match."""
    cut = name.rstrip("….")
    found = [key.kid for key in ring.keys if key.kid.startswith(cut)]
    if len(cut) < _LEAST_OF_A_NAME or len(found) > 1:
        raise KeysError(
            f"write the first {_LEAST_OF_A_NAME} or more characters of one key id: `sts keys list --json` shows them"
        )
    if not found:
        raise KeysError(f"the ring has no key {name}")
    return found[0]


def _revoked(ring: Ring, kid: str | None, now: float, settings: Settings) -> Ring:
    """Return the ring as it would be after the revocation."""
    if kid is not None:
        key = ring.find(kid)
        return transitions.revoked(ring, kid, generate(key.algorithm if key is not None else ""), now)
    pairs: list[tuple[Pair, Pair]] = [(generate(one), generate(one)) for one in settings.wanted().algorithms]
    return transitions.all_revoked(ring, pairs, now)


def _awaited(store: Store, ring: Ring, schedule: Schedule) -> list[Sighting]:
    """Wait until each replica had the time to read the store, and return the reports; late replicas are reported."""
    end = time.monotonic() + 2 * schedule.poll + _PATIENCE_S
    while True:
        sightings, now = list(store.sightings()), time.time()
        if all(one.version >= ring.version or one.until <= now for one in sightings) or time.monotonic() > end:
            return sightings
        time.sleep(min(_LOOK_EVERY_S, schedule.poll))


def _question(ring: Ring, kid: str | None) -> str:
    if kid is None:
        return "Revoke every key? All issued tokens will be refused."
    key = ring.find(kid)
    what = "signs now" if key is not None and key.signs else "waits" if key is not None and key.waits else "has signed"
    return f"Revoke {kid}, which {what}? This is permanent, and its tokens will be refused."
