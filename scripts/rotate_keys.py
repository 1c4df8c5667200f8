#!/usr/bin/env python3
"""Rotate the signing keys when that is due: what an operator schedules, daily or more often.

It says what it is about to do, rotates if `rotate_every` has passed, and looks again whether the ring is as it should
be. Running services need no restart: each worker sees the new ring within `poll`. Safe to run twice and on two
machines at once; of two that meet, one rotates and the other finds nothing to do.

Run it with the Python that sts is installed in; from a checkout (from elsewhere write both paths in full):

    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml
    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml --dry-run
    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml --wait 20m

Exit status:
    0  rotated, or not due
    1  refused: the next key is too young and --wait too short, or configuration, secret or ring are faulty
    2  usage
    3  the key store cannot be read or written
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NoReturn

from keys import rotation
from keys.errors import KeysError, StoreUnavailable
from keys.lifecycle import Schedule, guard_missing
from keys.record import KeyRecord
from sts.cli.common import EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE
from sts.cli.keys import open_ring, span
from sts.errors import StartError
from sts.options import parse_duration
from sts.settings import Settings, SettingsError, default_config, load


def main() -> int:
    """Run the script; returns its exit status."""
    arguments = _arguments()
    try:
        return _rotate(load(arguments.config), dry_run=arguments.dry_run, wait=arguments.wait)
    except SettingsError as error:
        _fail("; ".join(str(fault) for fault in error.faults), EXIT_REFUSED)
    except StoreUnavailable as error:
        _fail(str(error), EXIT_UNREACHABLE)
    except (KeysError, StartError) as error:
        _fail(str(error), EXIT_REFUSED)


def _rotate(settings: Settings, *, dry_run: bool, wait: float) -> int:
    algorithm, schedule = settings.keys.algorithm, settings.keys.schedule()
    store = open_ring(settings)
    plan = rotation.plan(store.load(), algorithm, time.time(), schedule)
    print(f"{store.place}: {plan.signing} signs {algorithm}, {plan.standby} waits")
    if not plan.due:
        print(f"nothing to do: the next rotation is due in {span(plan.due_in)}")
        return EXIT_OK
    print(f"due since {span(-plan.due_in)}: {plan.standby} is to sign from now on")
    if dry_run:
        print(
            f"dry run: allowed {f'in {span(plan.guard_missing)}' if plan.guard_missing else 'now'}, nothing was changed"
        )
        return EXIT_OK
    if 0 < plan.guard_missing <= wait:
        print(f"waiting {span(plan.guard_missing)} until every verifier has it")
        time.sleep(plan.guard_missing)
    ring, done = rotation.rotate(store, algorithm, time.time, schedule, settings.longest_ttl(), only_if_due=True)
    if not done:
        print("nothing to do any more: somebody else rotated meanwhile")
        return EXIT_OK
    found = open_ring(settings).load()  # as the next reader sees it, not as we remember it
    signing, standby = found.signing(algorithm), found.standby(algorithm)
    if found.version < ring.version or signing is None or standby is None:
        _fail(f"{store.place} is not as it was left: version {found.version} instead of {ring.version}", EXIT_REFUSED)
    print(f"rotated: {signing.kid} signs, {standby.kid} waits and may sign in {_in(standby, schedule)}")
    return EXIT_OK


def _in(standby: KeyRecord, schedule: Schedule) -> str:
    return span(guard_missing(standby, time.time(), schedule))


def _arguments() -> argparse.Namespace:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=default_config(),
        metavar="FILE",
        help="default: $STS_CONFIG, else ./sts.yaml",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    parser.add_argument(
        "--wait",
        type=_duration,
        default=0.0,
        metavar="DURATION",
        help='wait up to this long, such as "20m", for a next key that is still too young; default: do not wait',
    )
    return parser.parse_args()


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fail(text: str, status: int) -> NoReturn:
    print(f"rotate_keys: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
