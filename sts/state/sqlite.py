"""The state in one SQLite file, shared by the workers and the commands of one machine.

Write-ahead log, every transaction on the disk before it counts: what was marked stays marked over kill -9 and a power
cut. A process has one connection, whose threads take turns; processes wait for each other for a short time only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from keys.files import hand_over, make_folder
from sts.errors import StartError
from sts.state.state import (
    ABSENT,
    FOREVER,
    KEEP_DELETED_S,
    PAGE,
    AlreadyMarkedError,
    Changes,
    ConflictError,
    Cursor,
    Record,
    StateUnavailableError,
    read_all,
)

FILE: Final = "state.db"
PATIENCE_S: Final = 0.5
"""How long one waits for the others, of the same process and then of other ones."""
STARTS: Final = 10
"""How often a start tries in vain while others are busy with the file."""

_MODE: Final = 0o600
_FORMAT: Final = 1
_BUSY: Final = "it is busy"
_PAUSE_S: Final = 0.1
_SWEEP: Final = 4
"""How many marks that are over go with each new one: more than come, so that the table does not grow."""
_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS store (id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL,
        sequence INTEGER NOT NULL, forgotten INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS mark (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS mark_until ON mark (until);
    CREATE TABLE IF NOT EXISTS record (namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB, until REAL NOT NULL,
        sequence INTEGER NOT NULL UNIQUE, PRIMARY KEY (namespace, key));
    CREATE INDEX IF NOT EXISTS record_until ON record (until);
    CREATE INDEX IF NOT EXISTS record_changes ON record (namespace, sequence);
    INSERT OR IGNORE INTO store VALUES (1, lower(hex(randomblob(16))), 0, 0);
    PRAGMA user_version = 1;
"""


class _BusyError(StateUnavailableError):
    """Others are at it."""


class SqliteState:
    """See `State`. `path` is the file; only `check` makes it. `clock` gives Unix seconds."""

    def __init__(self, path: Path, clock: Callable[[], float], patience: float = PATIENCE_S) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._patience = patience
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Make the file where there is none, and look whether it can be used. Raises StartError.

        Several that start at once make it at once, and SQLite lets nobody wait while another sets up its log.
        """
        for left in reversed(range(STARTS)):
            try:
                self._make()
                self._judge(self._path.lstat())
                with self._transaction() as connection:
                    connection.execute("SELECT sequence FROM store").fetchone()
            except OSError as error:
                raise StartError(f"the state {self._path} cannot be used: {error.strerror}") from None
            except StateUnavailableError as error:
                if not left or not isinstance(error, _BusyError):
                    raise StartError(str(error)) from None
                time.sleep(_PAUSE_S)
            else:
                return

    def mark(self, key: bytes, until: float) -> None:
        """See State."""
        now = self._clock()
        with self._transaction() as connection:
            taken = connection.execute(
                "INSERT INTO mark VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE mark.until <= ?",
                (key, max(until, now + 1.0), now),
            ).rowcount
            if taken:
                over = "SELECT key FROM mark WHERE until <= ? LIMIT ?"
                connection.execute(f"DELETE FROM mark WHERE key IN ({over})", (now, _SWEEP))  # noqa: S608 - constant
        if not taken:
            raise AlreadyMarkedError("this was used before")

    def get(self, namespace: str, key: str) -> Record | None:
        """See State."""
        with self._transaction(writes=False) as connection:
            record = _find(connection, namespace, key)
        return record if record is not None and record.until > self._clock() and record.value is not None else None

    def put(self, namespace: str, key: str, value: bytes, *, expected: int | None, until: float = FOREVER) -> int:
        """See State."""
        return self._write(namespace, key, value, until, expected)

    def delete(self, namespace: str, key: str, *, expected: int | None = None) -> None:
        """See State."""
        self._write(namespace, key, None, self._clock() + KEEP_DELETED_S, expected)

    def list(self, namespace: str) -> tuple[Record, ...]:
        """See State."""
        now = self._clock()
        found = read_all(self, namespace)
        return tuple(found[key] for key in sorted(found) if found[key].until > now)

    def changes(self, namespace: str, since: Cursor | None) -> Changes:
        """See State."""
        with self._transaction(writes=False) as connection:
            epoch, last, forgotten = connection.execute("SELECT epoch, sequence, forgotten FROM store").fetchone()
            reset = since is None or since.epoch != epoch or not forgotten <= since.sequence <= last
            first = 0 if since is None or reset else since.sequence
            rows = connection.execute(
                "SELECT key, value, sequence, until FROM record WHERE namespace = ? AND sequence > ? "
                "ORDER BY sequence LIMIT ?",
                (namespace, first, PAGE),
            ).fetchall()
        more = len(rows) == PAGE
        return Changes(Cursor(epoch, rows[-1][2] if more else last), tuple(Record(*row) for row in rows), reset, more)

    def begin(self, namespace: str) -> None:
        """See State: the file got its epoch when it was made."""

    def close(self) -> None:
        """See State."""
        with self._turn:
            self._let_go()
            self._opened = None

    def _write(self, namespace: str, key: str, value: bytes | None, until: float, expected: int | None) -> int:
        now = self._clock()
        with self._transaction() as connection:
            found = _find(connection, namespace, key)
            there = found is not None and found.value is not None and found.until > now
            if expected is not None and expected != (found.version if found is not None and there else ABSENT):
                raise ConflictError("the record was changed by somebody else")
            if value is None and not there:
                return ABSENT
            (sequence,) = connection.execute("UPDATE store SET sequence = sequence + 1 RETURNING sequence").fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO record (namespace, key, value, until, sequence) VALUES (?, ?, ?, ?, ?)",
                (namespace, key, value, until, sequence),
            )
            _sweep(connection, now)
        return int(sequence)

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        """Take a turn at the connection, with the lock for writing; an error raised within undoes it all.

        A write for which there is no room leaves the connection open: it still reads, while a new one could not be
        opened on a full disk, since SQLite makes a file for its index of the log first.
        """
        if not self._turn.acquire(timeout=self._patience):
            raise StateUnavailableError("the state's file is busy")
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            why = _why(error)
            told = f"the state {self._path} cannot be used: {why}"
            if why == _BUSY:
                raise _BusyError(told) from None
            if not (writes and _is_refused_write(error)):
                self._let_go()
            raise StateUnavailableError(told) from None
        finally:
            self._turn.release()

    def _open(self) -> sqlite3.Connection:
        """The connection of this process.

        A file that was put in its place under us is refused: SQLite would play the former file's log into it.
        """
        try:
            there = self._path.lstat()
        except OSError as error:
            raise StateUnavailableError(f"the state {self._path} cannot be used: {error.strerror}") from None
        if self._opened is None or self._opened[0] != os.getpid():
            self._judge(there)
            self._connection, self._opened = None, (os.getpid(), there.st_dev, there.st_ino)
        if self._opened[1:] != (there.st_dev, there.st_ino):
            raise StateUnavailableError(
                f"the state {self._path} was replaced while it was open: stop the service before a file is restored"
            )
        if self._connection is None:
            self._connection = _connect(self._path, self._patience)
        return self._connection

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._opened is not None and self._opened[0] == os.getpid():
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _make(self) -> None:
        """Make an empty file that only its owner may read, before SQLite makes one that others may.

        An existing one is never opened here: closing it again would take SQLite's locks on it away.
        """
        make_folder(self._path.parent)
        with contextlib.suppress(FileExistsError):
            made = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            try:
                hand_over(made, self._path.parent)
            finally:
                os.close(made)

    def _judge(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise StateUnavailableError(f"the state {self._path} is not a plain file")
        mode = stat.S_IMODE(found.st_mode)
        if mode & ~_MODE:
            raise StateUnavailableError(
                f"the state {self._path} has mode {mode:04o}: only its owner may read it (chmod 600)"
            )


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw", uri=True, timeout=patience, isolation_level=None, check_same_thread=False
    )
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > _FORMAT:
            raise StateUnavailableError(f"the state {path} was written by a newer release")  # noqa: TRY301
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if found < _FORMAT:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _find(connection: sqlite3.Connection, namespace: str, key: str) -> Record | None:
    row = connection.execute(
        "SELECT key, value, sequence, until FROM record WHERE namespace = ? AND key = ?", (namespace, key)
    ).fetchone()
    return None if row is None else Record(*row)


def _sweep(connection: sqlite3.Connection, now: float) -> None:
    """Drop some records that are over. Who has not yet seen that one was deleted must read everything anew."""
    over = connection.execute(
        "SELECT sequence, value IS NULL FROM record WHERE until <= ? LIMIT ?", (now, _SWEEP)
    ).fetchall()
    connection.executemany("DELETE FROM record WHERE sequence = ?", [(sequence,) for sequence, _ in over])
    forgotten = max((sequence for sequence, deleted in over if deleted), default=0)
    connection.execute("UPDATE store SET forgotten = max(forgotten, ?)", (forgotten,))


def _why(error: sqlite3.Error) -> str:
    name = _name(error)
    if name == "SQLITE_FULL":
        return "its disk is full"
    return _BUSY if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) else name


def _is_refused_write(error: sqlite3.Error) -> bool:
    """Whether the disk took no write: it is full, or a quota, a file size limit or a read-only mount forbids it."""
    return _name(error) == "SQLITE_FULL" or _name(error).startswith("SQLITE_IOERR")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or type(error).__name__
