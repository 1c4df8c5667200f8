"""Many requests at once, and how long the service itself held each: a busy machine keeps a caller waiting too."""

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor

AT_ONCE_S = 1.5  # with room for a busy machine; who waits for another service does so for two seconds or more
_BLUR_S = 0.01  # the audit's times are in milliseconds


def held(service, answers):
    """From when to when (Unix seconds) the service held those of the requests that were not answered at once."""
    wanted = {answer.headers["x-request-id"] for answer in answers}
    spans = []
    for event in service.events():
        if event.get("request_id") in wanted and event["duration_us"] >= AT_ONCE_S * 1e6:
            end = dt.datetime.fromisoformat(event["time"]).timestamp()
            spans.append((end - event["duration_us"] / 1e6 + _BLUR_S, end - _BLUR_S))
    return spans


def at_one_moment(spans):
    """How many of them there were at one moment, at most."""
    return max((sum(began <= moment < ended for began, ended in spans) for moment, _ in spans), default=0)


def storm(service, asks, others):
    """Call all `asks` at once, and `others` while those wait that must: it is through before any of them.

    Returns the answers, and from when to when the service held those that it held.
    """
    with ThreadPoolExecutor(len(asks)) as pool:
        asked = [pool.submit(ask) for ask in asks]
        time.sleep(0.3)  # the first have arrived and wait
        others()
        others_done = time.time()
        for _ in range(4):
            others()
        answers = [one.result() for one in asked]
    spans = held(service, answers)
    assert spans  # else nothing was slow, and this proves nothing
    assert others_done < min(ended for _, ended in spans)
    assert max(ended - began for began, ended in spans) < 12
    return answers, spans
