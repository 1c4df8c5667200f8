import gc
import threading
from pathlib import Path

from keys.floor import Floor

# Eight processes raise one floor at the same time, each to its own versions, and look whether it ever fell.
RACE = """
import os, sys
from keys.floor import Floor
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

# A process is killed while it holds the lock.
KILLED = """
import fcntl, os, signal
from keys.floor import Floor
floor = Floor()
told, tell = os.pipe()
pid = os.fork()
if pid == 0:
    fcntl.lockf(floor._between_processes, fcntl.LOCK_EX)
    os.write(tell, b"+")
    signal.pause()
os.read(told, 1)
os.kill(pid, signal.SIGKILL)
floor.raise_to(7)
print(floor.version)
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


def test_a_process_killed_while_it_raises_the_floor_holds_up_no_other(python):
    done = python(KILLED, timeout=20)
    assert done.stdout.strip() == "7", done.stderr


def test_a_floor_never_falls_whichever_thread_raises_it():
    floor, fell = Floor(), []

    def run(first):
        for version in range(first, 8000, 4):
            floor.raise_to(version)
            if floor.version < version:
                fell.append(version)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (floor.version, fell) == (7999, [])


def test_a_floor_that_is_gone_leaves_nothing_open():
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        Floor()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
