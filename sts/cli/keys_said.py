"""What `sts keys rotate | revoke` say of what they did: sentences, or one JSON object."""

from __future__ import annotations

import json
import time

import click

from keys import rotation
from keys.bounds import Bounds
from keys.errors import KeysError
from keys.record import KeyRecord, Ring
from sts.cli.keys_shown import plan_facts, plan_line, short, span


def newly_revoked(before: Ring, ring: Ring) -> list[str]:
    """The keys that were revoked between the two."""
    known = {key.kid for key in before.keys if key.revoked_at is not None}
    return [key.kid for key in ring.keys if key.revoked_at is not None and key.kid not in known]


def say_untouched(plans: list[rotation.Plan], why: str, text: str, *, as_json: bool) -> None:
    """Nothing was rotated: `why` for programs, `text` for people."""
    first = plan_facts(plans[0])
    facts = {name: first[name] for name in ("signing", "standby", "due_in")}
    told = {"rotated": False, "why": why, **facts, "plans": [plan_facts(one) for one in plans]}
    click.echo(json.dumps(told) if as_json else text)
    if not as_json and why == "not due" and len(plans) > 1:
        for one in plans:
            click.echo(plan_line(one))


def say_rotated(ring: Ring, algorithms: tuple[str, ...], *, as_json: bool) -> None:
    """What `ring` is after the rotation of `algorithms`. Raises KeysError if it is not as that leaves it."""
    now = time.time()
    told = []
    gone: list[KeyRecord] = []
    for algorithm in algorithms:
        signing, standby = ring.signing(algorithm), ring.standby(algorithm)
        if signing is None or standby is None:
            raise KeysError("the ring is not as it was left")
        former = [key for key in ring.keys if key.algorithm == algorithm and key.retired_at == signing.active_at]
        leaves_at = former[0].leaves_at if former else None
        facts = {"algorithm": algorithm, "signing": signing.kid, "retired": former[0].kid if former else None}
        told.append({**facts, "leaves_at": leaves_at, "standby": standby.kid})
        gone = [key for key in ring.keys if key.retired_at == signing.active_at and key.algorithm not in algorithms]
        if as_json:
            continue
        click.echo(f"{short(signing.kid)} signs now")
        for key in former:
            left = span((key.leaves_at or now) - now)
            click.echo(f"{short(key.kid)} is retired and stays published for {left}")
        click.echo(f"{short(standby.kid)} is published and may sign in {span(standby.ready_at - now)}")
    for key in gone if not as_json else ():
        left = span((key.leaves_at or now) - now)
        click.echo(
            f"{short(key.kid)} is retired, since {key.algorithm} is wanted no more, and stays published for {left}"
        )
    if as_json:
        more = {"rotations": told, "wanted_no_more": [key.kid for key in gone]}
        click.echo(json.dumps({"rotated": True, "version": ring.version, **told[0], **more}))


def say_revoked(before: Ring, ring: Ring, outside: Bounds, why: str, *, as_json: bool) -> None:
    """What was revoked and what that means outside; with `why`, what would be."""
    ended = newly_revoked(before, ring)
    signing = {key.algorithm: key.kid for key in ring.keys if key.signs}
    if as_json:
        facts = {"revoked": ended, "version": ring.version, "signing": signing}
        times = {"believed_for": round(outside.believed, 3), "unknown_for": round(outside.unknown, 3)}
        lost = [{"replica": name, "seconds": round(seconds, 3)} for name, seconds in outside.out_of_sight]
        click.echo(json.dumps({"done": not why, "why": why, **facts, **times, "out_of_sight": lost}))
        return
    verb = "would be" if why else "is"
    for kid in ended:
        click.echo(f"{short(kid)} {verb} revoked")
    for algorithm, kid in signing.items():
        click.echo(f"{short(kid)} {'would sign' if why else 'signs'} {algorithm} now")
    click.echo(f"verifiers outside may believe the revoked key for {span(outside.believed)} at most")
    if outside.unknown:
        click.echo(f"slow verifiers may refuse new tokens for {span(outside.unknown)}: have them fetch the JWKS anew")
    for name, seconds in outside.out_of_sight:
        click.echo(f"{name} does not know of it: stop it, or the key lives on there for {span(seconds)}")
