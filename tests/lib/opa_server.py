"""Policy servers: a real Open Policy Agent on a policy of the test's own, and one that answers as a test likes."""

import contextlib
import http.server
import json
import socket
import subprocess
import threading

import pytest
from harness import free_port, wait_for

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
        self.process.wait(20)


class FakeOpa:
    """Answers what `says` says: a function of the handler, or a value for `result`. `asked` are the inputs so far."""

    def __init__(self):
        self.says = True
        self.headers = {}
        self.asked = []
        self.requests = []
        self.connections = 0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                owner.connections += 1
                super().setup()

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.requests.append((self.path, dict(self.headers), body))
                owner.asked.append(json.loads(body)["input"])
                with contextlib.suppress(ConnectionError):
                    if callable(owner.says):
                        owner.says(self)
                    else:
                        self.reply(json.dumps({"result": owner.says}).encode())

            def reply(self, body, status=200, **headers):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **owner.headers, **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/data/sts/allow"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


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
