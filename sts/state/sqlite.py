"""The state in one SQLite file, shared by the workers and the commands of one machine.

The store uses a write-ahead log, and each transaction is on the disk before it counts: a mark survives kill -9 and a
power failure. A process has one connection, which its threads use in turn; processes wait for each other only briefly.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
    Write,
    read_all,
)

FILE: Final = "state.db"
PATIENCE_S: Final = 0.5
"""Seconds to wait for other threads of the process, and then for other processes."""
STARTS: Final = 10
"""How often a start tries while others use the file."""

_MODE: Final = 0o600
_FORMAT: Final = 1
_BUSY: Final = "it is busy"
_PAUSE_S: Final = 0.1
_SWEEP: Final = 4
"""How many expired marks are deleted with each new one: more than are added, so that the table does not grow."""
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
    """Another process uses the file."""


class SqliteState:
    """The `State` in the file `path`, which only `check` creates. `clock` returns Unix seconds."""

    def __init__(self, path: Path, clock: Callable[[], float], patience: float = PATIENCE_S) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._patience = patience
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Create the file if it is missing, and check that it can be used. Raises StartError.

        Several processes may start at the same time; SQLite does not wait while another one sets up its log, so this
        method tries several times.
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

    def put_many(self, namespace: str, writes: Sequence[Write]) -> tuple[int | None, ...]:
        """See State: one transaction."""
        now = self._clock()
        with self._transaction() as connection:
            done = tuple(_write(connection, namespace, write, now) for write in writes)
            _sweep(connection, now)
        return done

    def keys(self, namespace: str) -> tuple[str, ...]:
        """See State."""
        with self._transaction(writes=False) as connection:
            found = connection.execute(
                "SELECT key FROM record WHERE namespace = ? ORDER BY key", (namespace,)
            ).fetchall()
        return tuple(key for (key,) in found)

    def get_many(self, namespace: str, keys: Sequence[str]) -> tuple[Record, ...]:
        """See State."""
        now = self._clock()
        with self._transaction(writes=False) as connection:
            wanted = ",".join("?" * len(keys))
            rows = connection.execute(
                "SELECT key, value, sequence, until FROM record "  # noqa: S608 - question marks alone
                f"WHERE namespace = ? AND until > ? AND value NOT NULL AND key IN ({wanted})",
                (namespace, now, *keys),
            ).fetchall()
        found = {row[0]: Record(*row) for row in rows}
        return tuple(found[key] for key in keys if key in found)

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
        """Do nothing: the file got its epoch when it was created (see State)."""

    def close(self) -> None:
        """See State."""
        with self._turn:
            self._let_go()
            self._opened = None

    def _write(self, namespace: str, key: str, value: bytes | None, until: float, expected: int | None) -> int:
        (version,) = self.put_many(namespace, (Write(key, value, expected, until),))
        if version is None:
            raise ConflictError("the record was changed by another process")
        return version

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = True) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction on the connection, with the lock for writing; an error rolls it back.

        After a write to a full disk the connection stays open: it can still read, while a new one could not be opened
        on a full disk, because SQLite first creates a file for the index of its log.
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
        """Return the connection of this process.

        A file that was replaced while it was open is refused: SQLite would write the log of the former file into it.
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
        """Create an empty file that only its owner may read, before SQLite creates one that others may read.

        An existing file is never opened here: closing it would release SQLite's locks on it.
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


def _write(connection: sqlite3.Connection, namespace: str, write: Write, now: float) -> int | None:
    """Write one record within a transaction; returns its new version, None where its version is not the expected."""
    found = _find(connection, namespace, write.key)
    there = found is not None and found.value is not None and found.until > now
    if write.expected is not None and write.expected != (found.version if found is not None and there else ABSENT):
        return None
    if write.value is None and not there:
        return ABSENT
    (sequence,) = connection.execute("UPDATE store SET sequence = sequence + 1 RETURNING sequence").fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO record (namespace, key, value, until, sequence) VALUES (?, ?, ?, ?, ?)",
        (namespace, write.key, write.value, write.until, sequence),
    )
    return int(sequence)


def _sweep(connection: sqlite3.Connection, now: float) -> None:
    """Delete some expired records. A reader that has not read the deletion of one must read everything again."""
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
    """Return whether the disk refused a write: it is full, or a quota, a size limit or a read-only mount forbids it."""
    return _name(error) == "SQLITE_FULL" or _name(error).startswith("SQLITE_IOERR")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or type(error).__name__
