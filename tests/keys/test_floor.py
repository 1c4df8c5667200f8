import gc
import threading
from pathlib import Path

from keys.rollback_guard import Floor

# Eight processes raise one floor at the same time, each to its own versions, and look whether it ever fell.
RACE = """
import os, sys
from keys.rollback_guard import Floor
floor = Floor()
children = []
for worker in range(8):
    pid = os.fork()
    if pid == 0:
        fell = False
        for step in range(2000):
            mine = step * 8 + worker + 1
            floor.raise_to(mine)
            fell = fell or floor.version < mine
        os._exit(fell)
    children.append(pid)
fell = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(floor.version, fell)
"""

# A process is killed while it holds the lock; another waits for it until then, and no longer.
KILLED = """
import fcntl, os, signal, threading
from keys.rollback_guard import Floor
floor = Floor()
told, tell = os.pipe()
pid = os.fork()
if pid == 0:
    fcntl.lockf(floor._between_processes, fcntl.LOCK_EX)
    os.write(tell, b"+")
    signal.pause()
os.read(told, 1)
raising = threading.Thread(target=floor.raise_to, args=(7,))
raising.start()
raising.join(0.2)
meanwhile = floor.version
os.kill(pid, signal.SIGKILL)
raising.join()
print(meanwhile, floor.version)
"""


def test_a_floor_only_rises():
    floor = Floor()
    assert floor.version == 0
    seen = []
    for version in (3, 2, 3, 2**63, 5):
        floor.raise_to(version)
        seen.append(floor.version)
    assert seen == [3, 3, 3, 2**63, 2**63]


def test_two_floors_have_nothing_in_common():
    one, other = Floor(), Floor()
    one.raise_to(9)
    assert other.version == 0


def test_a_floor_never_falls_whichever_process_raises_it(python):
    done = python(RACE)
    assert done.stdout.strip() == f"{2000 * 8} {[0] * 8}", done.stderr


def test_one_process_raises_the_floor_at_a_time_and_one_that_is_killed_holds_up_no_other(python):
    done = python(KILLED, timeout=60)
    assert done.stdout.strip() == "0 7", done.stderr


def test_one_thread_raises_the_floor_at_a_time():
    floor = Floor()
    raising = threading.Thread(target=floor.raise_to, args=(7,))
    with floor._between_threads:
        raising.start()
        raising.join(0.2)
        assert floor.version == 0
    raising.join()
    assert floor.version == 7


def test_a_floor_that_is_gone_leaves_nothing_open():
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        Floor()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
