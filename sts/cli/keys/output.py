"""The output of the key commands: the keys as a table, the ring as JSON, durations for people."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich import box
from rich.table import Table

from keys import rotation
from keys.errors import KeysError
from keys.lifecycle import Schedule, State, guard_missing, state
from keys.record import KeyRecord, Ring
from keys.replica_report import Sighting
from keys.revocation_impact import Bounds

_KID_SHOWN: Final = 10
_TIMES: Final = ("published_at", "ready_at", "active_at", "retired_at", "leaves_at", "revoked_at")


def short(kid: str) -> str:
    """Return a key id, shortened for people."""
    return kid if len(kid) <= _KID_SHOWN else kid[:_KID_SHOWN] + "…"


def span(seconds: float) -> str:
    """Return a duration in seconds as text, with its two largest units."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def time_line(ring: Ring, now: float, schedule: Schedule, sightings: Iterable[Sighting] = ()) -> Table:
    """Return a table of the keys, their states, and the next change of each."""
    sightings = tuple(sightings)
    table = Table(box=box.SIMPLE, pad_edge=False)
    several = len({key.algorithm for key in ring.keys}) > 1
    for name in ("key", *(["algorithm"] if several else [])):
        table.add_column(name, overflow="ellipsis")  # these columns are shortened on a narrow terminal
    for name in ("state", "since (UTC)", "what comes next"):
        table.add_column(name, no_wrap=True)
    for key in ring.keys:
        found = state(key, now)
        table.add_row(
            short(key.kid),
            *([key.algorithm] if several else []),
            found,
            datetime.fromtimestamp(_since(key, found), UTC).strftime("%Y-%m-%d %H:%M"),
            _next(key, found, now, schedule, sightings),
            style="bold" if found is State.ACTIVE else "dim" if found in (State.REMOVED, State.REVOKED) else "",
        )
    return table


def plan_line(plan: rotation.Plan) -> str:
    """Return the plan of one algorithm as a sentence."""
    missing = f"in {span(plan.guard_missing)}" if plan.guard_missing else "now"
    late = f" (the replica {plan.late} published it late, or does not report)" if plan.late else ""
    if not plan.signing:
        return f"{plan.algorithm}: {short(plan.standby)} is its first key and may sign {missing}{late}"
    due = f"due in {span(plan.due_in)}" if plan.due_in > 0 else f"due since {span(-plan.due_in)}"
    return f"{plan.algorithm}: {short(plan.signing)} signs, {short(plan.standby)} may take over {missing}{late}; {due}"


def plan_facts(plan: rotation.Plan) -> dict[str, Any]:
    """Return the plan of one algorithm as JSON values."""
    rounded = {"due_in": round(plan.due_in, 3), "guard_missing": round(plan.guard_missing, 3)}
    return {**asdict(plan), "due": plan.due, **rounded}


def ring_facts(
    ring: Ring, place: str, now: float, plans: Iterable[rotation.Plan], sightings: Iterable[Sighting]
) -> dict[str, Any]:
    """Return the ring as JSON values, without private keys."""
    return {
        "place": place,
        "version": ring.version,
        "now": now,
        "longest_ttl": ring.longest_ttl,
        "default": ring.default or ring.algorithms[0],
        "keys": [
            {"kid": key.kid, "algorithm": key.algorithm, "state": state(key, now)}
            | {name: getattr(key, name) for name in _TIMES}
            for key in ring.keys
        ],
        "plans": [plan_facts(plan) for plan in plans],
        "replicas": [one.facts() for one in sightings if one.until > now],
    }


def replica_lines(ring: Ring, now: float, sightings: Iterable[Sighting]) -> Iterable[str]:
    """Yield lines about the processes that publish keys; processes with an older version are named."""
    here = [one for one in sightings if one.until > now]
    behind = [one for one in here if one.version != ring.version]
    if here:
        yield f"{len(here) - len(behind)} of {len(here)} serving processes publish this version"
    for one in behind:
        ago = span(now - one.seen_at)
        yield f"{one.replica} publishes version {one.version}; it read the store {ago} ago"


def _since(key: KeyRecord, found: State) -> float:
    times = {
        State.PUBLISHED: key.published_at,
        State.ACTIVE: key.active_at,
        State.RETIRED: key.retired_at,
        State.REMOVED: key.leaves_at,
        State.REVOKED: key.revoked_at,
    }
    return times[found] or key.published_at


def _next(key: KeyRecord, found: State, now: float, schedule: Schedule, sightings: tuple[Sighting, ...]) -> str:
    if found is State.PUBLISHED:
        missing, _ = guard_missing(key, now, schedule, sightings)
        return f"may sign in {span(missing)}" if missing else "may sign now"
    if found is State.ACTIVE and key.active_at is not None:
        left = key.active_at + schedule.rotate_every - now
        return f"rotation is due in {span(left)}" if left > 0 else f"rotation is due since {span(-left)}"
    if found is State.RETIRED and key.leaves_at is not None:
        return f"leaves the JWKS in {span(key.leaves_at - now)}"
    return "dropped by the next rotation" if found is State.REMOVED else "never comes back"


def newly_revoked(before: Ring, ring: Ring) -> list[str]:
    """Return the ids of the keys that are revoked in `ring` and not in `before`."""
    known = {key.kid for key in before.keys if key.revoked_at is not None}
    return [key.kid for key in ring.keys if key.revoked_at is not None and key.kid not in known]


def say_untouched(plans: list[rotation.Plan], why: str, text: str, *, as_json: bool) -> None:
    """Print that nothing was rotated: `why` as JSON, or `text`."""
    first = plan_facts(plans[0])
    facts = {name: first[name] for name in ("signing", "standby", "due_in")}
    told = {"rotated": False, "why": why, **facts, "plans": [plan_facts(one) for one in plans]}
    click.echo(json.dumps(told) if as_json else text)
    if not as_json and why == "not due" and len(plans) > 1:
        for one in plans:
            click.echo(plan_line(one))


def say_rotated(ring: Ring, algorithms: tuple[str, ...], *, as_json: bool) -> None:
    """Print the ring after the rotation of `algorithms`. Raises KeysError if another process changed it meanwhile."""
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
    """Print what was revoked, and the impact on verifiers; with `why`, what would be revoked."""
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
        click.echo(f"slow verifiers may refuse new tokens for {span(outside.unknown)}: let them fetch the JWKS again")
    for name, seconds in outside.out_of_sight:
        click.echo(f"{name} has not read the revocation: stop it, or the key stays in use there for {span(seconds)}")
