"""What tests of a running service share: its processes, and configurations with a change."""

import json
import os

import pytest
import yaml
from harness import wait_for


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
def replaced():
    """Kill a worker as the kernel would (out of memory, say), and wait for the one that takes its place."""

    def replaced(service, signal_number):
        killed = min(service.workers())
        os.kill(killed, signal_number)
        wait_for(lambda: killed not in service.workers() and service.is_complete())
        service.everywhere(service.is_ready)
        return killed

    return replaced
