"""Storage of the metrics' numbers: in this process, or in one file per worker that every worker's scrape can read.

prometheus-client has such files too, but takes their directory from the environment at import, and looks up the
process id at each count. `prometheus_client.values.ValueClass` allows another kind of value. The file format and the
merging are those of prometheus-client; only when a file is opened is decided here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, mmap_dict, multiprocess
from prometheus_client import values as prometheus_values

_File: Final[Any] = mmap_dict.MmapedDict  # the library has no types
_key: Final[Any] = mmap_dict.mmap_key
_PREFIX: Final = "sts-metrics-"
_ALIVE: Final = "alive"


class _Place:
    """The numbers of this process, and the directory for sharing them; None until `prepare_metrics`."""

    def __init__(self) -> None:
        self.directory: Path | None = None
        self.lock = threading.Lock()
        self.values: list[Value] = []
        self.files: dict[str, Any] = {}

    def file(self, kind: str) -> Any:  # noqa: ANN401 - prometheus-client's file has no types
        """Return this process's file for a kind of metric; the caller holds the lock."""
        if kind not in self.files:
            self.files[kind] = _File(str(self.directory / f"{kind}_{os.getpid()}.db") if self.directory else "")
        return self.files[kind]

    def reopen(self, directory: Path, *, keep: bool) -> None:
        """Move to this process's own files in `directory`; with `keep` the numbers are kept, else they start at 0.

        The caller holds the lock, or is the only thread.
        """
        for value in self.values:
            value.file = None
        for file in self.files.values():
            file.close()
        self.files.clear()
        self.directory = directory
        for value in self.values:
            value.open(value.get() if keep else 0.0)

    def forked(self) -> None:
        """Reset in a new worker: a new lock, and its own files."""
        self.lock = threading.Lock()
        if self.directory is not None:
            self.reopen(self.directory, keep=False)


_place: Final = _Place()
os.register_at_fork(after_in_child=_place.forked)


class Value:
    """One number of a metric, with the interface of prometheus-client's `MutexValue` and `MmapedValue`."""

    _multiprocess = False

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: list[str],
        labelvalues: list[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: object,
    ) -> None:
        self._kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        self._key = _key(metric_name, name, labelnames, labelvalues, help_text)
        self._value = 0.0
        self.file: Any = None
        with _place.lock:
            _place.values.append(self)
            if _place.directory is not None:
                self.open(0.0)

    def open(self, value: float) -> None:
        """Start with `value` in this process's file; the caller holds the lock, or is the only thread."""
        self._value = value
        file = _place.file(self._kind)
        file.write_value(self._key, value, 0.0)
        self.file = file

    def inc(self, amount: float) -> None:
        """Add `amount`."""
        with _place.lock:
            self._value += amount
            if self.file is not None:
                self.file.write_value(self._key, self._value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set to `value`; `timestamp` is used only for gauges of the "most recent" kind."""
        with _place.lock:
            self._value = value
            if self.file is not None:
                self.file.write_value(self._key, value, timestamp or 0.0)

    def get(self) -> float:
        """Return the number of this process."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """Drop the exemplar: it could identify a request."""

    def get_exemplar(self) -> None:
        """Return None: there are no exemplars."""


prometheus_values.ValueClass = Value  # before any of our metrics is created
# Creation times differ between workers and carry no information.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


def prepare_metrics(directory: Path) -> None:
    """Share the numbers of this process, and of every worker that it forks from now on, through `directory`.

    The directory must belong to this service alone: files of an earlier run are deleted. A directory in memory
    (`/dev/shm`) avoids disk writes. Numbers counted before are kept.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in directory.glob("*.db"):
        old.unlink()
    with _place.lock:
        _place.reopen(directory, keep=True)


def make_metrics_directory(parent: Path | None) -> Path:
    """Create a directory for one service's numbers in `parent`, and delete those of services that were killed.

    A service holds a lock on a file in its directory as long as one of its processes lives. Directories of other users
    and directories without a lock file are not touched.
    """
    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    for other in made.parent.glob(f"{_PREFIX}*"):
        if other != made:
            with contextlib.suppress(OSError):
                _remove_if_dead(other)
    unseen = made / "new"
    lock = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # never closed: the workers share the lock
    fcntl.flock(lock, fcntl.LOCK_EX)
    unseen.rename(made / _ALIVE)
    return made


def _remove_if_dead(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    lock = os.open(directory / _ALIVE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError while a process of that service lives
        shutil.rmtree(directory)
    finally:
        os.close(lock)


def mark_dead(pid: int) -> None:
    """Add the counts of an ended worker to one file, and delete the values that were true only while it lived.

    Without this, each crashed worker would leave its files for ever, and its cache would still be reported.
    """
    directory = _place.directory
    if directory is None:
        return
    with _scrape_lock(directory, fcntl.LOCK_EX):
        for kind in ("counter", "histogram"):
            left = directory / f"{kind}_{pid}.db"
            if left.exists():
                _fold(left, directory / f"{kind}_dead.db")
                left.unlink()
        multiprocess.mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def _fold(left: Path, into: Path) -> None:
    total = _File(str(into))
    for key, value, _timestamp, _position in _File.read_all_values_from_file(str(left)):
        total.write_value(key, total.read_value(key)[0] + value, 0.0)
    total.close()


@contextmanager
def _scrape_lock(directory: Path, kind: int) -> Iterator[None]:
    """Prevent a scrape during the merging of files: it would count a number twice or miss it."""
    with (directory / "lock").open("ab") as lock:
        fcntl.flock(lock, kind)
        yield


@contextmanager
def merged(own: CollectorRegistry) -> Iterator[CollectorRegistry]:
    """Yield a registry with the numbers of all workers, or `own` (this process's) without a shared directory."""
    directory = _place.directory
    if directory is None:
        yield own
        return
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    with _scrape_lock(directory, fcntl.LOCK_SH):
        yield registry
