"""Many requests at once at something that does not answer: which of them the service kept waiting, and for how long.

A busy machine keeps a caller waiting too. So what counts is not how long an answer took but what the service says: a
request that was refused without waiting has another reason in the audit.
"""

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor

from harness import wait_for

_BLUR_S = 0.01  # the audit's times are in milliseconds
AT_ONCE = ("not waited for", "not asked", "too many requests", "services like it", "no answer yet")
"""How the reasons begin that stand in the audit where a request did not wait."""


def held(service, answers):
    """From when to when (Unix seconds) the service held those of the requests that were not answered at once."""
    wanted = {answer.headers["x-request-id"] for answer in answers}
    spans = []
    for event in service.events():
        if event.get("request_id") in wanted and not waited_for_nothing(event):
            end = dt.datetime.fromisoformat(event["time"]).timestamp()
            spans.append((end - event["duration_us"] / 1e6 + _BLUR_S, end - _BLUR_S))
    return spans


def waited_for_nothing(event):
    """Whether the audit says that the request was refused without waiting."""
    return event["facts"]["why"].startswith(AT_ONCE)


def at_one_moment(spans):
    """How many of them there were at one moment, at most."""
    return max((sum(began <= moment < ended for began, ended in spans) for moment, _ in spans), default=0)


def storm(service, asks, others):
    """Call all `asks` at once, and `others` meanwhile, until one of the latter went through while some of them waited.

    Returns the answers, and from when to when the service held those that it held.
    """
    return wait_for(lambda: _storm(service, asks, others), every=0.2)


def _storm(service, asks, others):
    through = []
    with ThreadPoolExecutor(len(asks)) as pool:
        asked = [pool.submit(ask) for ask in asks]
        while not all(one.done() for one in asked):
            began = time.time()
            others()
            through.append((began, time.time()))
        answers = [one.result() for one in asked]
    spans = held(service, answers)
    if any(first <= began and ended <= last for began, ended in through for first, last in spans):
        return answers, spans
    return None  # none had to wait, since a fetch had just failed; or the machine was too busy for `others`
