"""Standard output and standard error may be pipes that no process reads: events are lost and counted, and no more."""

import json
import os
import re
import threading

import pytest
from harness import minimal, wait_for

ASKED = 250
"""More events than a pipe of 64 KiB holds."""


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def samples(service, name):
    return sum(
        float(value) for value in re.findall(rf"^{name} (\S+)$", service.get("/metrics").body.decode(), re.MULTILINE)
    )


def is_up(service):
    try:
        return service.get("/readyz").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("both", [False, True], ids=["the audit alone", "audit and log"])
def test_a_pipe_that_no_process_reads_stops_nothing_and_its_losses_are_counted(make_service, idp, pipe, both):
    """With both, the log's lines find the same pipe full."""
    read, write = pipe
    joined = ("sh", "-c", 'exec "$@" 2>&1', "sh") if both else ()
    service = make_service(minimal(idp) + "\nworkers: 2\nthreads: 4\n", audit=write, through=joined, ready=not both)
    wait_for(lambda: is_up(service))
    token = idp.token()
    assert {service.exchange(token).status for _ in range(ASKED)} == {200}
    assert service.raw(b"GET / HTTP/1.1\r\nbad header\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert service.get("/healthz").status == 200
    lost = samples(service, "sts_audit_failures_total")
    assert 0 < lost < ASKED

    found = []

    def drain():
        while data := os.read(read, 65536):
            found.append(data)
            if b'"end"' in data:
                return

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()

    def events():
        lines = b"".join(found).decode().splitlines()
        return [one for one in lines if one.startswith("{") and one.endswith("}") and '"event":"decision"' in one]

    wait_for(lambda: len(events()) == ASKED - lost)
    assert service.exchange(token).status == 200  # read again, written again
    wait_for(lambda: len(events()) == ASKED - lost + 1)
    assert all(json.loads(one)["outcome"] == "allowed" for one in events())
    assert service.stop() == 0
    os.write(write, b'"end"')
    reader.join(60)
