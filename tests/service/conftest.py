"""What tests of a running service share: its processes, and configurations with a change."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from harness import wait_for


@pytest.fixture(scope="session")
def workers():
    """The pids of a service's worker processes, as the kernel knows them."""

    def workers(service):
        pid = service.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    return workers


@pytest.fixture(scope="session")
def configured():
    """A configuration with changes: values by path, `audiences/orders/ttl`; None removes what is there."""

    def configured(text, changes):
        document = yaml.safe_load(text)
        for path, value in changes.items():
            *above, last = path.split("/")
            place = document
            for name in above:
                place = place.setdefault(name, {})
            if value is None:
                del place[last]
            else:
                place[last] = value
        return json.dumps(document, indent=1)  # which is YAML too

    return configured


@pytest.fixture(scope="session")
def replaced(workers):
    """Kill a worker as the kernel would (out of memory, say), and wait for the one that takes its place."""

    def replaced(service, signal_number):
        before = workers(service)
        killed = min(before)
        os.kill(killed, signal_number)
        wait_for(lambda: killed not in workers(service) and len(workers(service)) == len(before), 20)
        wait_for(service.is_ready, 20)
        return killed

    return replaced


@pytest.fixture
def only(service, workers):
    """Let one worker alone serve: the others are stopped, and go on afterwards."""

    @contextlib.contextmanager
    def only(worker):
        others = workers(service) - {worker}
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    return only
