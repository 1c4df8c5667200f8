"""`sts api-keys import`: read a file of existing API keys, CSV with a header line or one JSON object per line."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import click
from rich.text import Text

from sts.cli import common
from sts.cli.api_keys.output import (
    MAX_TEXT,
    audit,
    checked_audiences,
    checked_scopes,
    checked_text,
    json_option,
    opened,
    source_of,
    source_option,
)
from sts.settings import Settings, printable
from sts.state import ConflictError
from sts.state.key_records import LATEST, ApiKey, KeyRecords, digest, imported_id, is_ours
from sts.state.state import BATCH, batches

LONGEST: Final = 64_000_000
"""The maximum size of a file in bytes."""
COLUMNS: Final = ("key", "sha256", "owner", "tenant", "scopes", "audiences", "tier", "expires_at")

_DIGEST: Final = 64
_LEAST: Final = 8


def read(file: BinaryIO) -> str:
    """Return the text of a file, without a byte order mark. Ends the command for a file that is not UTF-8 text."""
    found = file.read(LONGEST + 1)
    if len(found) > LONGEST:
        common.fail(f"the file is longer than {LONGEST} bytes: import it in parts")
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError:
        common.fail("the file is not UTF-8 text")


def rows(text: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the rows of a file with their line numbers, None for a line that is not a JSON object.

    Ends the command for a file of another format. Never prints a line, which may contain a key.
    """
    if text.lstrip().startswith("["):
        common.fail("the file is one JSON list: write one object per line, without brackets and commas around them")
    try:
        if text.lstrip().startswith("{"):
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    yield number, _object(line)
        else:
            reader = csv.DictReader(io.StringIO(text), strict=True)
            _check_header(reader.fieldnames or ())
            for row in reader:
                yield reader.line_num, dict(row)
    except csv.Error:
        common.fail(f"the file is not CSV after line {reader.line_num}: look for an open quotation mark")


def _object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _check_header(names: Sequence[str]) -> None:
    """Check the column names. The message does not repeat them: a file without a header begins with a key."""
    if not {"key", "sha256"} & set(names) or not set(names) <= set(COLUMNS) or len(set(names)) != len(names):
        common.fail(f"the first line must name the columns, each once, of: {', '.join(COLUMNS)}")


def imported(settings: Settings, source: str, prefix: str, row: dict[str, Any] | None) -> ApiKey:
    """Return one key of a file. Raises ValueError with the fault; the message never contains the key."""
    if row is None:
        raise ValueError("it is not a JSON object")
    if None in row:
        raise ValueError("it has more columns than the first line")
    if not set(row) <= set(COLUMNS):
        raise ValueError(f"it has an unknown column; they are {', '.join(COLUMNS)}")
    hashed = _digest(prefix, row)
    return ApiKey(
        id=imported_id(hashed),
        source=source,
        owner=checked_text("owner", row.get("owner")),
        digest=hashed,
        created_at=int(time.time()),
        tenant=checked_text("tenant", row["tenant"]) if row.get("tenant") else None,
        scopes=checked_scopes(_words(row.get("scopes"))),
        audiences=checked_audiences(
            settings, source, [checked_text("audiences", x) for x in _words(row.get("audiences"))]
        ),
        tier=checked_text("tier", row["tier"]) if row.get("tier") else None,
        expires_at=_end(row.get("expires_at")),
        imported=True,
    )


def _digest(prefix: str, row: dict[str, Any]) -> str:
    text, hashed = row.get("key") or "", row.get("sha256") or ""
    if not isinstance(text, str) or not isinstance(hashed, str) or bool(text) == bool(hashed):
        raise ValueError("write either `key` or `sha256`")
    if text:
        return digest(_importable(prefix, text))
    hashed = hashed.lower()
    if len(hashed) != _DIGEST or not set(hashed) <= set("0123456789abcdef"):
        raise ValueError("`sha256` is 64 hex digits")
    return hashed


def _importable(prefix: str, text: str) -> str:
    if not text.startswith(prefix):
        raise ValueError(f"the key does not begin with {prefix}")
    if is_ours(prefix, text):
        raise ValueError("the key has the format of generated keys, whose last characters are a checksum")
    if len(text) > MAX_TEXT or not text.isascii() or not text.isprintable() or " " in text or "," in text:
        raise ValueError(f"a key is at most {MAX_TEXT} visible ASCII characters without comma")
    if len(text) - len(prefix) < _LEAST:
        raise ValueError("the key is too short after its prefix")
    return text


def _end(value: object) -> int | None:
    if value is None or value == "":
        return None
    written = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (written.isascii() and written.isdigit()) or len(written) > len(str(LATEST)) or int(written) > LATEST:
        raise ValueError("`expires_at` is Unix seconds")
    if int(written) <= time.time():
        raise ValueError("`expires_at` is in the past")
    return int(written)


def _words(value: object) -> list[object]:
    if value is None or isinstance(value, str):
        return list((value or "").split())
    if not isinstance(value, list):
        raise ValueError("scopes and audiences are lists, or texts separated by spaces")  # noqa: TRY004 - for the user
    return value


_COMPARED: Final = ("source", "owner", "tenant", "scopes", "audiences", "tier", "expires_at")
_SHOWN: Final = 20


@click.command("import")
@common.config_option
@source_option
@click.option("--dry-run", is_flag=True, help="Check every line, and write nothing.")
@json_option
@click.argument("file", type=click.File("rb"))
def import_keys(*, config: Path, source: str | None, dry_run: bool, as_json: bool, file: BinaryIO) -> None:
    r"""Import existing keys from a file.

    FILE is CSV with a header line, or one JSON object per line.

    Columns: `key`, or `sha256` with its hex digest if the keys themselves are not available; `owner`; and optionally
    `tenant`, `scopes` and `audiences` (separated by spaces), `tier`, `expires_at` (Unix seconds). Keys begin with the
    source's prefix. A plain hash protects only keys of high entropy: import no short or guessable keys. All lines are
    checked before the first key is written. An existing key stays unchanged; if it differs from the file, or is
    revoked, the command reports it.

    \b
    Examples:
      sts api-keys import --dry-run keys.csv
      sts api-keys import --source partner-keys keys.jsonl

    \b
    Exit status: 0 done, 1 a line is faulty or an existing key differs, 2 usage, 3 the state store cannot be used.
    """
    settings = common.load(config)
    found = _read(settings, *source_of(settings, source), file)
    made: list[str] = []
    differ: dict[str, list[str]] = {}
    with opened(settings) as records, _progress(len(found)) as advance:
        for batch in batches(list(found.values())):
            there = records.get_many([key.id for key in batch])
            for key in batch:
                if key.id in there:
                    differ[key.id] = list(_differences(key, there[key.id]))
            new = [key for key in batch if key.id not in there]
            if not dry_run:
                new = _write(settings, records, new)
            made += [key.id for key in new]
            advance(len(batch))
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
    """Return all keys of a file by id; ends the command if a line is faulty."""
    found: dict[str, ApiKey] = {}
    faults = []
    for line, row in rows(read(file)):
        try:
            key = imported(settings, name, prefix, row)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
            continue
        if key.id in found:
            faults.append(f"line {line}: this key is in the file twice")
        found[key.id] = key
    if faults:
        _fail(faults, f"{len(faults)} faulty; nothing was imported")
    return found


def _write(settings: Settings, records: KeyRecords, keys: Sequence[ApiKey]) -> list[ApiKey]:
    """Write new keys in one step. Raises ConflictError where another process made one of them meanwhile.

    An import that was interrupted can be run again: what is there already is left as it is.
    """
    written = [key for key in records.put_many(keys) if key is not None]
    audit(settings, "imported", *written)
    if len(written) < len(keys):
        raise ConflictError("another process made one of these keys")
    return written


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far a long import is, where that is a terminal."""
    if total <= BATCH or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label="importing", file=sys.stderr) as bar:
        yield bar.update


def _differences(key: ApiKey, there: ApiKey | None) -> Iterator[str]:
    """How the record of a key differs from its line; `there` is None for one that is not authentic."""
    if there is None:
        yield "not authentic"
        return
    if there.revoked_at is not None:
        yield "revoked"
    if there.replaced_by is not None:
        yield "replaced"
    yield from (f"another {name}" for name in _COMPARED if getattr(key, name) != getattr(there, name))


def _fail(lines: list[str], summary: str) -> NoReturn:
    for line in lines[:_SHOWN]:
        common.console_err.print(Text(printable(line)))
    common.fail(summary)
