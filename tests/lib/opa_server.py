"""Policy servers: a real Open Policy Agent on a policy of the test's own, and one that answers as a test likes."""

import contextlib
import json
import socket
import subprocess

import pytest
from harness import free_port, wait_for
from web import Web

from scripts import servers


class RealOpa:
    """`opa run --server` on one module of Rego."""

    def __init__(self, program, directory, rego):
        directory.mkdir()
        (directory / "policy.rego").write_text(rego)
        port = free_port()
        address = f"127.0.0.1:{port}"
        self.base = f"http://{address}"
        command = [program, "run", "--server", "--disable-telemetry", f"--addr={address}", "policy.rego"]
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready():
            assert self.process.poll() is None, (directory / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True  # it listens once the policy is loaded
            return False

        wait_for(ready)

    def url(self, rule="sts/allow"):
        return f"{self.base}/v1/data/{rule}"

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class FakeOpa(Web):
    """Answers what `says` says: a function of the handler, or a value for `result`. `asked` are the inputs so far."""

    def __init__(self):
        super().__init__()
        self.says = True
        self.headers = {}
        self.asked = []
        self.requests = []
        self.url += "/v1/data/sts/allow"

    def handle(self, handler):
        self.requests.append((handler.path, dict(handler.headers), handler.body))
        self.asked.append(json.loads(handler.body)["input"])
        if callable(self.says):
            self.says(handler)
        else:
            handler.reply({"result": self.says}, headers=self.headers)


@pytest.fixture(scope="session")
def make_opa(tmp_path_factory):
    """Start a real OPA on a module of Rego."""
    program = servers.find(servers.OPA)
    if program is None:
        pytest.skip("no opa is installed, and none could be built: that needs go on PATH and a network")
    made = []

    def make(rego):
        made.append(RealOpa(program, tmp_path_factory.mktemp("opa") / "opa", rego))
        return made[-1]

    yield make
    for running in made:
        running.stop()


@pytest.fixture
def fake_opa():
    running = FakeOpa()
    yield running
    running.close()
