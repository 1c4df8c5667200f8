"""The state in SQLite: its file, its durability, its manners."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from sts.errors import StartError
from sts.state import AlreadyMarkedError, StateUnavailableError
from sts.state.sqlite import PATIENCE_S, SqliteState
from sts.state.state import Cursor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "state.db"


@pytest.fixture
def state(path):
    made = SqliteState(path, time.time)
    made.check()
    yield made
    made.close()


def soon():
    return time.time() + 60


def test_only_its_owner_can_read_the_file_and_those_beside_it(state, path):
    state.mark(b"one", soon())
    found = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert found == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_a_file_that_others_can_read_is_refused_with_what_to_do(state, path):
    state.close()
    path.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        SqliteState(path, time.time).check()


def test_a_link_is_not_followed(state, path, tmp_path):
    state.close()
    other = tmp_path / "link.db"
    other.symlink_to(path)
    with pytest.raises(StartError, match="not a plain file"):
        SqliteState(other, time.time).check()


def test_a_start_waits_while_others_are_busy_with_the_file(state, path):
    """Two services over one folder start at once: neither may fail because the other is slow to make it."""
    state.close()
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    letting_go = threading.Timer(3 * PATIENCE_S, holder.rollback)
    letting_go.start()
    started = SqliteState(path, time.time)
    started.check()
    started.close()
    letting_go.join()
    holder.close()


def test_what_is_no_database_is_refused(path):
    path.parent.mkdir()
    path.write_bytes(b"nothing of that kind" * 100)
    path.chmod(0o600)
    with pytest.raises(StartError, match="SQLITE_NOTADB"):
        SqliteState(path, time.time).check()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "var").write_text("a file")
    with pytest.raises(StartError, match="cannot be used"):
        SqliteState(tmp_path / "var" / "state.db", time.time).check()


def test_what_a_newer_release_wrote_is_not_touched(state, path):
    state.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StartError, match="newer release"):
        SqliteState(path, time.time).check()


def test_every_transaction_is_on_the_disk_before_it_counts(state):
    state.mark(b"one", soon())
    assert state._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert state._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_file_that_is_gone_is_an_outage_and_never_made_anew_under_a_running_service(state, path):
    state.mark(b"one", soon())
    path.unlink()
    with pytest.raises(StateUnavailableError, match="No such file"):
        state.mark(b"two", soon())
    assert not path.exists()


def test_a_file_that_is_put_in_its_place_under_a_running_service_is_refused(state, path, tmp_path):
    state.mark(b"one", soon())
    other = SqliteState(tmp_path / "other.db", time.time)
    other.check()
    other.mark(b"two", soon())
    other.close()
    (tmp_path / "other.db").rename(path)
    with pytest.raises(StateUnavailableError, match="stop the service"):
        state.mark(b"two", soon())


def test_a_process_killed_within_a_transaction_leaves_nothing_of_it(state, path):
    dies = "import sqlite3, sys, os, signal; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    dies += "c.execute('BEGIN IMMEDIATE'); c.execute('INSERT INTO mark VALUES (?, 9e12)', (b'one',)); "
    dies += "os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", dies, str(path)], check=False).returncode == -9
    state.mark(b"one", soon())


def test_marks_that_are_over_do_not_pile_up(path):
    now = [1000.0]
    state = SqliteState(path, lambda: now[0])
    state.check()
    for number in range(200):
        state.mark(b"%d" % number, now[0] + 5)
        now[0] += 1
    (count,) = state._connection.execute("SELECT count(*) FROM mark").fetchone()
    assert count < 20
    state.close()


def test_a_child_opens_its_own_connection(state):
    state.mark(b"one", soon())
    child = os.fork()
    if child == 0:
        code = 1
        try:
            state.mark(b"of the child", soon())
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(AlreadyMarkedError):
        state.mark(b"of the child", soon())


def test_a_copy_made_by_sqlite_itself_holds_everything(state, path, tmp_path):
    """docs/state.md: Backup."""
    state.put("keys", "a", b"1", expected=0)
    copy = tmp_path / "copy" / "state.db"
    copy.parent.mkdir()
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    copy.chmod(0o600)
    other = SqliteState(copy, time.time)
    assert other.get("keys", "a").value == b"1"
    other.close()
    shutil.rmtree(copy.parent)


def test_whoever_follows_many_records_reads_each_once_and_sorts_none(state):
    """With 100 000 API keys, sorting a namespace for every page took 20 seconds of a worker's time each minute."""
    asked = []
    with state._transaction(writes=False) as connection:
        connection.set_trace_callback(asked.append)
    state.changes("api_keys", None)
    state.changes("api_keys", Cursor("another", 5))
    explained = [connection.execute(f"EXPLAIN QUERY PLAN {sql}") for sql in asked if "LIMIT" in sql]
    plans = [" ".join(row[3] for row in rows) for rows in explained]
    assert len(plans) == 2
    for plan in plans:
        assert "USING INDEX record_changes (namespace=? AND sequence>?)" in plan
        assert "B-TREE" not in plan


RACE = """
import os, sys, time
from pathlib import Path
from sts.state.sqlite import SqliteState
children = []
for number in range(60):
    path, at = Path(sys.argv[1]) / str(number) / "state.db", time.time() + 0.02
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            while time.time() < at: pass
            try:
                SqliteState(path, time.time).check()
            except Exception as error:
                print(error, flush=True)
            os._exit(0)
        children.append(pid)
    while children:
        os.waitpid(children.pop(), 0)
"""


def test_of_several_that_make_the_file_at_the_same_moment_none_fails(tmp_path):
    """SQLite lets nobody wait while another turns its log on: it says at once that the file is busy."""
    done = subprocess.run([sys.executable, "-c", RACE, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == ""
