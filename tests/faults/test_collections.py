"""The garbage collector never walks the token cache: its pauses do not grow with it."""

import subprocess
import sys

CODE = """\
import gc
from sts.server.process import collect_all, settle_memory

class Cycle:
    alive = 0
    def __init__(self):
        self.me = self
        Cycle.alive += 1
    def __del__(self):
        Cycle.alive -= 1

walked = [0]
def count(phase, info):
    if phase == "start" and info["generation"] == 2:
        walked.append(len(gc.get_objects()))

settle_memory()
gc.callbacks.append(count)
cache = {}
for number in range(20_000):
    cache[number] = [{"claims": [number]}, ({}, [])]
    Cycle()
grown = max(walked), len(walked), Cycle.alive
walked[:] = [0]
collect_all()
print(*grown, walked[-1], Cycle.alive)
"""


def test_a_full_collection_walks_only_what_is_new_and_frees_its_cycles():
    """Counted in objects, about half a microsecond each: the cache holds 120 000, and 40 000 are 20 ms."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    most, collections, cycles, whole, left = map(int, ran.stdout.split())
    assert collections > 5
    assert most < 40_000
    assert cycles < 20_000
    assert whole > 100_000
    assert left == 0
