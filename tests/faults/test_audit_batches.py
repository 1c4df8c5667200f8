"""What becomes of audit events of hits that wait to be written together, when the service ends."""

import json
import os
import signal
from pathlib import Path

import pytest
from harness import minimal, wait_for


@pytest.fixture
def audited(make_service, idp):
    """Start a service whose events of hits wait as long as `flush` says."""

    def audited(flush):
        service = make_service(minimal(idp) + f"\nworkers: 1\naudit: {{file: own.jsonl, flush: {flush}}}\n")
        service.own = service.directory / "own.jsonl"
        return service

    return audited


def asked(service, idp, hits):
    """The ids of a miss and of hits after it, in order."""
    token = idp.token()
    return [service.exchange(token).headers["x-request-id"] for _ in range(1 + hits)]


def written(service):
    return [json.loads(line)["request_id"] for line in service.own.read_text("utf-8").splitlines()]


def workers(service):
    """The process ids of the workers."""
    children = f"/proc/{service.process.pid}/task/{service.process.pid}/children"
    return [int(pid) for pid in Path(children).read_text(encoding="ascii").split()]


def kill(service):
    """Let no worker write anything more."""
    for pid in workers(service):
        signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL)


def test_a_killed_worker_loses_no_event_where_each_is_written_at_once(audited, idp):
    service = audited("0")
    ids = asked(service, idp, 20)
    kill(service)
    assert written(service) == ids


def test_a_killed_worker_loses_at_most_the_hits_that_waited(audited, idp):
    service = audited("1s")
    first = asked(service, idp, 3)
    wait_for(lambda: written(service) == first)  # the time is over
    second = asked(service, idp, 3)
    kill(service)
    assert written(service)[: len(first) + 1] == [*first, second[0]]  # a miss does not wait


def test_an_orderly_stop_writes_every_event_in_order(audited, idp):
    service = audited("1s")
    ids = asked(service, idp, 20)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert written(service) == ids


def test_a_reload_writes_what_waits_where_it_belonged(audited, idp):
    service = audited("1s")
    ids = asked(service, idp, 3)
    old = service.own.rename(service.directory / "old.jsonl")
    service.reload()
    later = asked(service, idp, 0)
    wait_for(lambda: later[0] in written(service))
    kept = [json.loads(line)["request_id"] for line in old.read_text("utf-8").splitlines()]
    assert kept + written(service) == ids + later
