import dataclasses
import fcntl
import json
import os
import stat

import key_stores
import pytest

from keys import rotation, store_file
from keys.errors import Conflict, RingMissing, StoreUnauthentic, StoreUnavailable
from keys.replica_report import Sighting
from keys.seal import Sealer
from keys.store_file import FileStore

SIGHTING = Sighting(replica="one", host="host", pid=1, version=1, seen_at=0.0, until=1.0, guard=1.0, since={"kid": 0.0})
PREAMBLE = key_stores.PREAMBLE + "path = Path(sys.argv[2])\n"


@pytest.fixture
def path(file_store):
    return file_store._path


@pytest.fixture
def stored(file_store, ring):
    """A file store that holds the first ring."""
    file_store.compare_and_swap(None, ring)
    return file_store


def next_version(ring):
    return dataclasses.replace(ring, version=ring.version + 1)


def test_what_was_written_is_read_by_another_process_of_the_same_secret(stored, path, sealer, ring):
    assert stored.load() == ring
    assert FileStore(path, sealer).load() == ring


def test_an_unchanged_file_is_not_opened_anew(stored, ring):
    assert stored.load() is stored.load()
    stored.compare_and_swap(1, next_version(ring))
    assert stored.load().version == 2


def test_the_file_and_the_lock_are_for_their_owner_alone(stored, path):
    previous = os.umask(0)
    try:
        stored.compare_and_swap(1, next_version(stored.load()))
    finally:
        os.umask(previous)
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
    assert sorted(each.name for each in path.parent.iterdir()) == ["keyring.json", "keyring.json.lock"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o666, 0o700])
def test_a_wider_mode_is_refused(stored, path, mode):
    """Lesson 3.6."""
    path.chmod(mode)
    with pytest.raises(StoreUnavailable, match=f"mode {mode:04o}.*chmod 600"):
        stored.load()


def test_a_missing_ring_is_named_with_its_absolute_path(file_store, path, monkeypatch, sealer):
    with pytest.raises(RingMissing, match=str(path)):
        file_store.load()
    monkeypatch.chdir(path.parent.parent)
    with pytest.raises(RingMissing, match=str(path)):
        FileStore(store_file.Path("var/keyring.json"), sealer).load()


def test_looking_makes_nothing(file_store, path):
    with pytest.raises(RingMissing):
        file_store.load()
    assert not path.parent.exists()


def test_what_is_no_plain_file_is_refused(file_store, path, tmp_path):
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(StoreUnavailable):
        file_store.load()
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(StoreUnavailable, match="plain file"):  # and does not hang
        file_store.load()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        file_store.load()


def test_another_secret_is_told_from_damage_and_the_file_is_named(stored, path):
    with pytest.raises(StoreUnauthentic, match=f"{path}: .*secret that is not among"):
        FileStore(path, Sealer([b"x" * 32])).load()
    text = json.loads(path.read_text())
    path.write_text(json.dumps({**text, "version": 9}))
    with pytest.raises(StoreUnauthentic, match=f"{path}: .*not authentic"):
        stored.load()


@pytest.mark.usefixtures("stored")
def test_a_ring_of_another_secret_is_never_overwritten(path, ring):
    before = path.read_bytes()
    stranger = FileStore(path, Sealer([b"x" * 32]))
    with pytest.raises(StoreUnauthentic):
        stranger.compare_and_swap(None, ring)
    with pytest.raises(StoreUnauthentic):
        stranger.compare_and_swap(1, next_version(ring))
    assert path.read_bytes() == before


def test_a_swap_on_another_version_is_a_conflict_and_writes_nothing(stored, path, ring):
    before = path.read_bytes()
    for expected in (None, 2, 7):
        with pytest.raises(Conflict):
            stored.compare_and_swap(expected, dataclasses.replace(ring, version=(expected or 0) + 1))
    assert path.read_bytes() == before


def test_a_swap_on_a_ring_that_is_gone_is_a_conflict(stored, path, ring):
    path.unlink()
    with pytest.raises(Conflict):
        stored.compare_and_swap(1, next_version(ring))


def test_a_version_that_does_not_grow_by_one_is_a_fault_of_ours(stored, ring):
    with pytest.raises(ValueError, match="grows by one"):
        stored.compare_and_swap(1, dataclasses.replace(ring, version=3))


def test_a_lock_that_is_held_is_waited_for_but_not_for_ever(stored, ring, monkeypatch):
    monkeypatch.setattr(store_file, "LOCK_WAIT_S", 0.1)
    with stored._lock_path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable, match="held by another process"):
            stored.compare_and_swap(1, next_version(ring))
        assert stored.load() == ring  # readers need no lock
    stored.compare_and_swap(1, next_version(ring))


def test_a_folder_that_cannot_be_written_is_an_outage_not_a_crash(tmp_path, sealer, ring):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        FileStore(tmp_path / "file" / "keyring.json", sealer).compare_and_swap(None, ring)
    with pytest.raises(StoreUnavailable):
        FileStore(tmp_path / "file" / "keyring.json", sealer).load()


def test_a_full_disk_leaves_the_old_ring(stored, ring, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        stored.compare_and_swap(1, next_version(ring))
    monkeypatch.undo()
    assert stored.load() == ring
    stored.compare_and_swap(1, next_version(ring))


def test_the_ring_and_its_name_are_on_the_disk_before_the_swap_is_told(stored, ring, monkeypatch):
    synced = []

    def fsync(descriptor):
        found = os.fstat(descriptor)
        synced.append(("folder" if stat.S_ISDIR(found.st_mode) else "file", stored.load().version))
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    stored.compare_and_swap(1, next_version(ring))
    assert synced == [("file", 1), ("folder", 2)]  # the bytes before the rename, the name after it


def test_what_root_makes_belongs_to_the_owner_of_the_folder(stored, ring, path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _descriptor, *owner: given.append(owner))
    stored.compare_and_swap(1, next_version(ring))
    folder = path.parent.stat()
    assert given == [(folder.st_uid, folder.st_gid)] * 2  # the lock and the ring


def test_what_root_says_belongs_to_the_owner_of_the_folder_too(stored, path, monkeypatch):
    """A service that root started first must be able to run as its own user."""
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _descriptor, *owner: given.append(owner))
    monkeypatch.setattr(os, "chown", lambda _path, *owner: given.append(owner))
    stored.report(SIGHTING)
    stored.report(SIGHTING)
    folder = path.parent.stat()
    assert given == [(folder.st_uid, folder.st_gid)] * 3  # the folder once, and each time the file
    (said,) = (path.parent / "keyring.json.replicas").iterdir()
    assert said.stat().st_mode & 0o777 == 0o600


def test_a_writer_killed_at_any_step_leaves_a_whole_ring_and_no_lock(python, path):
    """Each child dies before another system call of the swap: the ring is the old or the new one, and goes on."""
    done = python(
        PREAMBLE
        + """
start = time.time()
now = start
rotation.create(store(), lambda: start, wanted())

def die_before_call(number):
    calls = [0]
    def deadly(name):
        real = getattr(os, name)
        def wrapper(*arguments, **more):
            calls[0] += 1
            if calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)
        setattr(os, name, wrapper)
    for name in ("open", "fdopen", "unlink", "fsync", "replace", "close"):
        deadly(name)

outcomes = []
for number in range(1, 100):
    now += 50
    before = store().load().version
    pid = os.fork()
    if pid == 0:
        die_before_call(number)
        rotation.rotate(store(), lambda: now, wanted())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    after = store().load().version
    outcomes.append([killed, after - before])
    now += 50
    rotation.rotate(store(), lambda: now, wanted())  # the next writer is not in the way of anything
    if not killed:
        break
left = sorted(each.name for each in path.parent.iterdir())
print(json.dumps([outcomes, left]))
""",
        "file",
        path,
    )
    assert done.returncode == 0, done.stderr
    outcomes, left = json.loads(done.stdout)
    assert outcomes[-1] == [False, 1]
    steps = [written for killed, written in outcomes if killed]
    assert steps == sorted(steps)  # nothing before the rename, everything after it
    assert {0, 1} == set(steps)
    assert len(steps) > 8
    assert left == ["keyring.json", "keyring.json.lock"]


def test_a_store_serves_the_operations(file_store, clock, schedule, wanted):
    ring, made = rotation.create(file_store, clock, wanted(schedule, 300.0))
    assert (made, ring) == (True, file_store.load())
    clock.sleep(schedule.guard)
    assert rotation.rotate(file_store, clock, wanted(schedule, 300.0)) == (file_store.load(), ("ES256",))
