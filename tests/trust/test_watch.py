"""One thread that looks at what changes, whatever becomes of one look."""

from sts.x509.watch import Watch


class Looked:
    def __init__(self, fault=None):
        self.fault, self.looks = fault, 0

    def look(self):
        self.looks += 1
        if self.fault is not None:
            raise self.fault


def test_one_that_breaks_does_not_blind_us_to_the_others(until):
    watch = Watch(interval=0.005)
    broken, good = Looked(ValueError("broken")), Looked()
    for one in (broken, good):
        watch.add(one)
    watch.start()
    watch.start()  # twice is once
    try:
        until(lambda: good.looks > 3 and broken.looks > 3)
    finally:
        watch.stop()
    looks = good.looks
    until(lambda: good.looks == looks)
