"""The watchdog of the event loop says how long it was held, and where."""

import asyncio
import json
import threading
import time

from sts.server.watchdog import HELD_S, Watchdog
from sts.telemetry import metrics


def hold(seconds):
    """Keep the loop from everybody else, as a call that waits would."""
    threading.Event().wait(seconds)


def samples(name):
    _, text = metrics.render()
    return sum(float(line.split()[-1]) for line in text.decode().splitlines() if line.startswith(name))


def test_a_loop_that_is_held_is_measured_and_told_with_its_place(capsys):
    before = samples("sts_loop_lag_seconds_sum"), samples("sts_loop_lag_seconds_count")
    loop = asyncio.new_event_loop()
    watchdog = Watchdog(loop)
    loop.call_later(0.1, hold, 1.0)
    loop.call_later(1.5, loop.stop)
    watchdog.start()
    loop.run_forever()
    watchdog.stop()
    loop.close()
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    held = max((line for line in told if line["event"] == "event loop was held"), key=lambda line: line["held_s"])
    assert held["held_s"] > 1.0 - 2 * HELD_S
    assert held["busy_s"] < 0.9
    assert "threading" in held["at"]  # nothing of ours is on this stack but the test itself
    assert samples("sts_loop_lag_seconds_sum") - before[0] > 1.0 - 2 * HELD_S
    assert samples("sts_loop_lag_seconds_count") - before[1] >= 2


def test_a_loop_that_nothing_holds_is_looked_at_again_and_again():
    before = samples("sts_loop_lag_seconds_count")
    loop = asyncio.new_event_loop()
    watchdog = Watchdog(loop)
    watchdog.start()
    end = time.monotonic() + 60

    def look():
        if samples("sts_loop_lag_seconds_count") - before >= 4 or time.monotonic() > end:
            loop.stop()
        loop.call_later(0.05, look)

    look()
    loop.run_forever()
    watchdog.stop()
    loop.close()
    assert samples("sts_loop_lag_seconds_count") - before >= 4
