"""`sts api-keys import`: keys that were made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import click
from rich.text import Text

from sts.cli import common
from sts.cli.api_key_records import audit, json_option, opened, source_of, source_option
from sts.cli.key_files import imported, read, rows
from sts.settings import Settings, printable
from sts.state.key_records import ApiKey

_COMPARED: Final = ("source", "owner", "tenant", "scopes", "audiences", "tier", "expires_at")
_SHOWN: Final = 20


@click.command("import")
@common.config_option
@source_option
@click.option("--dry-run", is_flag=True, help="Check every line, and write nothing.")
@json_option
@click.argument("file", type=click.File("rb"))
def import_keys(*, config: Path, source: str | None, dry_run: bool, as_json: bool, file: BinaryIO) -> None:
    r"""Import keys that were made elsewhere.

    FILE is CSV with a header line, or one JSON object a line.

    Columns: `key`, or `sha256` with its hex digest where the keys themselves are not to be had; `owner`; and if wanted
    `tenant`, `scopes` and `audiences` (separated by spaces), `tier`, `expires_at` (Unix seconds). Keys begin with the
    source's prefix. A plain hash protects only keys of high entropy: import no short or guessable ones. All lines are
    checked before the first key is written. A key that is there already is left as it is, and where it says something
    else than the file does, or is revoked, that is told.

    \b
    Examples:
      sts api-keys import --dry-run keys.csv
      sts api-keys import --source partner-keys keys.jsonl

    \b
    Exit status: 0 done, 1 a line is faulty or a key is there that differs, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    found = _read(settings, *source_of(settings, source), file)
    made, differ = [], {}
    with opened(settings) as records:
        keys, strange = records.judged()
        there = {key.id: key for key in keys}
        for key in found.values():
            if key.id in strange:
                differ[key.id] = ["not authentic"]
            elif key.id in there:
                differ[key.id] = list(_differences(key, there[key.id]))
            else:
                made.append(key.id)
                if not dry_run:
                    records.put(key)
                    audit(settings, "imported", key)
    same = sum(1 for names in differ.values() if not names)
    differ = {key_id: names for key_id, names in differ.items() if names}
    if as_json:
        done = {"imported": [] if dry_run else made, "there_already": same, "differ": differ}
        click.echo(json.dumps({**done, "would_import": made} if dry_run else done))
    else:
        click.echo(f"{len(made)} {'would be imported' if dry_run else 'imported'}, {same} there already")
    if differ:
        shown = [f"{name} is there already and was left as it is: {', '.join(why)}" for name, why in differ.items()]
        _fail(shown, f"{len(differ)} there already differ from the file")


def _read(settings: Settings, name: str, prefix: str, file: BinaryIO) -> dict[str, ApiKey]:
    """All keys of a file by id; ends the command where one is faulty."""
    found: dict[str, ApiKey] = {}
    faults = []
    for line, row in rows(read(file)):
        try:
            key = imported(settings, name, prefix, row)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
            continue
        if key.id in found:
            faults.append(f"line {line}: this key stands there twice")
        found[key.id] = key
    if faults:
        _fail(faults, f"{len(faults)} faulty; nothing was imported")
    return found


def _differences(key: ApiKey, there: ApiKey) -> Iterator[str]:
    """How a key that is there says something else than its line."""
    if there.revoked_at is not None:
        yield "revoked"
    if there.replaced_by is not None:
        yield "replaced"
    yield from (f"another {name}" for name in _COMPARED if getattr(key, name) != getattr(there, name))


def _fail(lines: list[str], summary: str) -> NoReturn:
    for line in lines[:_SHOWN]:
        common.console_err.print(Text(printable(line)))
    common.fail(summary)
