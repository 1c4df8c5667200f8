#!/usr/bin/env python3
"""Rotate the signing keys when a rotation is due; for a scheduler, daily or more often.

The script prints its plan, rotates if `rotate_every` has passed, and then verifies the ring in the store. Running
services need no restart: each worker reads the new ring within `poll`. The script may run twice, and on two machines at
once: one rotates and the other finds nothing to do.

With --check-url, once for each running replica, the script first verifies that the replica publishes the key that will
sign, and at the end waits until it publishes the next one.

Run it with the Python environment in which sts is installed; from a checkout (elsewhere write both paths in full):

    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml
    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml --dry-run
    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml --wait 20m
    .venv/bin/python scripts/rotate_keys.py -c /etc/sts/sts.yaml --check-url http://10.0.0.5:8080 --check-url ...

Exit status:
    0  rotated, or not due
    1  refused: the next key is too new and --wait too short, or configuration, secret or ring are faulty
    2  usage
    3  the key store cannot be read or written, or a replica does not publish the key
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import urllib3

from keys import rotation
from keys.errors import KeysError, StoreUnavailable
from keys.record import Ring
from keys.store import Store
from sts.cli.common import EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE
from sts.cli.keys.opening import ROTATED, audit, open_ring
from sts.cli.keys.output import plan_line, replica_lines, span
from sts.errors import StartError
from sts.options import parse_duration
from sts.settings import Settings, SettingsError, default_config, load

_JWKS: Final = "/.well-known/jwks.json"
_IN_A_ROW: Final = 8
"""How many successive responses must contain the key: several workers answer at one address."""
_PAUSE_S: Final = 0.1


def main() -> int:
    """Run the script; returns its exit status."""
    arguments = _arguments()
    try:
        return _rotate(load(arguments.config), arguments)
    except SettingsError as error:
        _fail("; ".join(str(fault) for fault in error.faults), EXIT_REFUSED)
    except StoreUnavailable as error:
        _fail(str(error), EXIT_UNREACHABLE)
    except (KeysError, StartError) as error:
        _fail(str(error), EXIT_REFUSED)


def _rotate(settings: Settings, arguments: argparse.Namespace) -> int:
    store, wanted = open_ring(settings), settings.wanted()
    if not arguments.dry_run:
        rotation.prepare(store, time.time, wanted)  # publishes the first key of a new algorithm
    plans = _plans(store, settings)
    print(store.place)
    for plan in plans:
        print(plan_line(plan))
    due = [plan for plan in plans if plan.due]
    if not due:
        print(f"nothing to do: the next rotation is due in {span(min(plan.due_in for plan in plans))}")
        return _checked(store, settings, arguments, "publishes what waits to sign")
    missing = max(plan.guard_missing for plan in due)
    if arguments.dry_run:
        print(f"dry run: allowed {f'in {span(missing)}' if missing else 'now'}, nothing was changed")
        return EXIT_OK
    if 0 < missing <= arguments.wait:
        print(f"waiting {span(missing)} until every verifier has the next key")
        time.sleep(missing)
    _checked(store, settings, arguments, "publishes the key that is to sign")
    ring, done = rotation.rotate(store, time.time, wanted, only_if_due=True)
    if not done:
        print("nothing to do any more: another process has rotated")
        return _checked(store, settings, arguments, "publishes what waits to sign")
    audit(settings, ROTATED, ring)
    found = open_ring(settings).load()  # read it again from the store
    if found.version < ring.version or any(found.signing(algorithm) is None for algorithm in done):
        _fail(f"{store.place} has changed: version {found.version} instead of {ring.version}", EXIT_REFUSED)
    for algorithm in done:
        signing, standby = found.signing(algorithm), found.standby(algorithm)
        if signing is not None and standby is not None:
            ready = span(standby.ready_at - time.time())
            print(f"rotated: {signing.kid} signs, {standby.kid} waits and may sign in {ready}")
    return _checked(store, settings, arguments, "publishes the next key")


def _plans(store: Store, settings: Settings) -> list[rotation.Plan]:
    ring, sightings, wanted = store.load(), tuple(store.sightings()), settings.wanted()
    return [
        rotation.plan(ring, name, time.time(), wanted.schedule, sightings)
        for name in wanted.algorithms
        if name in ring.algorithms
    ]


def _checked(store: Store, settings: Settings, arguments: argparse.Namespace, what: str) -> int:
    """Wait until every named replica publishes all standby keys; ends the script if one does not."""
    ring = store.load()
    waiting = {key.kid for key in ring.keys if key.waits}
    end = time.monotonic() + arguments.check_for
    for url in arguments.check_url:
        address = url.rstrip("/") + _JWKS if urlsplit(url).path in {"", "/"} else url
        why = _wait_for(address, waiting, end, arguments.ca_file)
        if why:
            _fail(f"{address} {why}", EXIT_UNREACHABLE)
        print(f"{address} {what}")
    if arguments.check_url:
        _say_replicas(store, settings, ring)
    return EXIT_OK


def _wait_for(address: str, kids: set[str], end: float, ca_file: str | None) -> str:
    """Fetch the JWKS until the responses contain the keys; returns why they do not, "" if they do."""
    pool = urllib3.PoolManager(retries=False, timeout=5.0, ca_certs=ca_file)
    found, why = 0, "was not asked"
    while found < _IN_A_ROW:
        try:
            # a new connection each time, so that another worker may answer
            answer = pool.request("GET", address, headers={"Connection": "close", "Cache-Control": "no-cache"})
            lacking = kids - {key.get("kid") for key in json.loads(answer.data)["keys"]}
            why = f"does not publish {', '.join(sorted(lacking))}" if lacking else ""
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"cannot be asked: {type(error).__name__}"
        found = 0 if why else found + 1
        if why:
            if time.monotonic() > end:
                return why
            time.sleep(_PAUSE_S)
    return ""


def _say_replicas(store: Store, settings: Settings, ring: Ring) -> None:
    if not list(store.sightings()):
        return
    time.sleep(min(settings.keys.poll, 5.0))
    lines: Iterable[str] = replica_lines(ring, time.time(), store.sightings())
    for line in lines:
        print(line)


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
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
    parser.add_argument(
        "--wait",
        type=_duration,
        default=0.0,
        metavar="DURATION",
        help='wait up to this long, such as "20m", for a next key that is still too new; default: do not wait',
    )
    parser.add_argument(
        "--check-url",
        action="append",
        default=[],
        metavar="URL",
        help="a running replica, or its JWKS: it must publish the keys; once for each replica",
    )
    parser.add_argument(
        "--check-for", type=_duration, default=60.0, metavar="DURATION", help="how long to wait for that; default: 1m"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="CA certificates for https URLs; default: the system's")
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
