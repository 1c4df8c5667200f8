"""`sts serve` as a process: what it refuses to start from, how it says so, and the Unix socket."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner
from harness import MINIMAL, SECRET, Answer, free_port, wait_for

from sts.cli.main import cli

FORK = """
import json, os, signal, sys
from sts.cli import main, serve

children = {}
for name, folder, arguments in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        for stream, number in (("out", 1), ("log", 2)):
            os.dup2(os.open(os.path.join(folder, stream), os.O_WRONLY | os.O_CREAT), number)
        signal.alarm(60)
        sys.argv = ["sts", "serve", "-c", os.path.join(folder, "sts.yaml"), *arguments]
        main.main()
    children[child] = name
statuses = {}
for _ in list(children):
    child, status = os.wait()
    statuses[children[child]] = os.waitstatus_to_exitcode(status)
print(json.dumps(statuses))
"""
"""Runs `sts serve` several times, each in a process of its own; they share what takes longest, the imports."""


def write(folder, changes):
    folder.mkdir(exist_ok=True)
    document = yaml.safe_load(MINIMAL.read_text()) | {"workers": 1} | changes
    (folder / "sts.yaml").write_text(json.dumps(document))
    return folder / "sts.yaml"


@pytest.fixture(scope="module")
def unstartable(tmp_path_factory):
    """Services that could not start: their folders, with `log` and `out`, and their exit statuses by name."""
    root = tmp_path_factory.mktemp("unstartable")
    ring, foreign = root / "ring without secret", root / "secret of another ring"
    assert CliRunner().invoke(cli, ["keys", "init", "-c", str(write(ring, {}))]).exit_code == 0
    (ring / "var" / "secret").unlink()
    shutil.copytree(ring, foreign)
    (foreign / "var" / "secret").write_text("A" * 43)
    (foreign / "var" / "secret").chmod(0o600)
    (root / "plain").touch()
    (root / "secret").write_text("A" * 43)
    (root / "secret").chmod(0o600)
    (root / "var is a file").mkdir()
    (root / "var is a file" / "var").touch()
    with socket.create_server(("127.0.0.1", 0)) as busy, socket.socket(socket.AF_UNIX) as living:
        living.bind(str(root / "living"))
        living.listen()
        free, taken = f"127.0.0.1:{free_port()}", f"127.0.0.1:{busy.getsockname()[1]}"
        cases = {
            "faulty": ({"audiences": {"orders": {"tttl": "5m"}}, "treads": 8}, []),
            "ring without secret": ({}, []),
            "secret of another ring": ({}, []),
            "var is a file": ({}, []),
            "no audit": ({"audit": {"file": "no/such/folder/audit.jsonl"}}, []),
            "no key store": (
                {
                    "keys": {"store": "redis"},
                    "redis": {"url": f"redis://127.0.0.1:{free_port()}"},
                    "state": {"store": "redis"},
                    "secret": {"file": str(root / "secret")},
                },
                [],
            ),
            "no secret": ({"secret": {"env": "NO_SUCH_VARIABLE"}}, []),
            "beyond loopback": ({"listen": "0.0.0.0:8080"}, []),
            "beyond loopback by option": ({}, ["--listen", "0.0.0.0:8080"]),
            "no address": ({}, ["--listen", "8080"]),
            "no socket": ({}, ["--listen", f"unix:{root}/plain"]),
            "no folder": ({}, ["--listen", f"unix:{root}/nowhere/sts.sock"]),
            "taken socket": ({}, ["--listen", f"unix:{root}/living"]),
            "taken port": ({"listen": taken}, []),
        }
        for name, (changes, _) in cases.items():
            write(root / name, {"listen": free} | changes)
        told = json.dumps([(name, str(root / name), arguments) for name, (_, arguments) in cases.items()])
        done = subprocess.run([sys.executable, "-c", FORK], input=told, capture_output=True, text=True, check=True)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(root / "living"))  # it is still there, and still whose it was
    return root, json.loads(done.stdout)


EXPECTED = {
    "faulty": ["audiences.orders.tttl", "treads", "sts: ", " faults"],
    "ring without secret": ["there is a key ring at", "var/keyring.json", "var/secret is missing"],
    "secret of another ring": ["keyring.json"],
    "var is a file": ["var/secret"],
    "no audit": ["the audit file", "no/such/folder/audit.jsonl cannot be opened"],
    "beyond loopback": ["sts.yaml:", "listen", "beyond loopback needs"],
    "beyond loopback by option": ["--listen  0.0.0.0:8080", "beyond loopback needs"],
    "no address": ["--listen  8080", "an address is"],
    "no key store": ["redis://127.0.0.1:", "it cannot be reached"],
    "no socket": ["/plain: it is there and no socket"],
    "no folder": ["there is no directory"],
    "taken socket": ["/living: another process does"],
    "taken port": ["sts: cannot listen at 127.0.0.1:", "Address already in use"],
    "no secret": ["the environment variable NO_SUCH_VARIABLE is not set"],
}
OTHER_STATUSES = {"beyond loopback by option": 2, "no address": 2, "no key store": 3}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_cannot_start_says_why_in_words_and_ends_with_the_documented_status(unstartable, name):
    root, statuses = unstartable
    log = (root / name / "log").read_text()
    assert statuses[name] == OTHER_STATUSES.get(name, 1), log
    assert [text for text in EXPECTED[name] if text not in log] == [], log
    assert "Traceback" not in log
    assert (root / name / "out").read_text() == ""


def test_all_that_cannot_start_is_expected(unstartable):
    assert set(unstartable[1]) == set(EXPECTED)


@pytest.mark.parametrize("name", ["faulty", "no audit", "beyond loopback", "no secret"])
def test_nothing_is_made_before_the_configuration_is_right(unstartable, name):
    assert not (unstartable[0] / name / "var").exists()


def test_no_second_secret_is_made_for_a_ring(unstartable):
    assert not (unstartable[0] / "ring without secret" / "var" / "secret").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_no_command_runs_with_a_standard_stream_closed(closed):
    """The key ring would be opened under its number, and the audit written into it."""
    script = f'"$0" -m sts version {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def at_socket(tmp_path_factory):
    """A service on a Unix socket, whose client may call from there alone."""
    folder = tmp_path_factory.mktemp("socket")
    document = yaml.safe_load(MINIMAL.read_text())
    document["clients"]["edge-gateway"]["networks"] = ["unix"]
    audit = {"file": "var/audit.jsonl"}  # which the first start has to make the folder for
    config = write(folder, {"listen": "unix:sts.sock", "clients": document["clients"], "audit": audit})
    with (folder / "log").open("wb") as log, (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sts", "serve", "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=log,
        )
    wait_for(lambda: _is_ready(folder / "sts.sock"))
    yield process, folder
    process.terminate()
    process.wait(120)


def _is_ready(path):
    with contextlib.suppress(OSError):  # it is not there, or nobody listens yet
        return _ask(path, "/readyz").status == 200
    return False


def _ask(path, target, headers=None):
    with contextlib.closing(http.client.HTTPConnection("localhost", timeout=60)) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", target, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())


def test_only_owner_and_group_may_open_the_socket(at_socket):
    assert stat.S_IMODE((at_socket[1] / "sts.sock").stat().st_mode) == 0o660


def test_a_request_through_the_socket_is_from_the_network_unix(at_socket):
    _, folder = at_socket
    asked = {"X-Gateway-Secret": SECRET, "X-Original-Method": "GET", "X-Original-URI": "/health"}
    answer = _ask(folder / "sts.sock", "/forward-auth/edge-gateway", asked | {"X-Original-Host": "api.example.com"})
    assert answer.status == 200
    assert _ask(folder / "sts.sock", "/metrics").status == 200
    assert json.loads((folder / "var" / "audit.jsonl").read_text().splitlines()[-1])["outcome"] == "allowed"
    assert stat.S_IMODE((folder / "var").stat().st_mode) == 0o700


def test_health_asks_through_the_socket(at_socket, sts):
    result = sts("health", "-c", at_socket[1] / "sts.yaml", "--ready")
    assert (result.exit_code, result.stdout) == (0, "ready\n")


def test_a_reload_cannot_move_the_socket(at_socket):
    process, folder = at_socket
    config = folder / "sts.yaml"
    before = config.read_text()
    config.write_text(before.replace("unix:sts.sock", "unix:other.sock"))
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: "listen cannot change without a restart" in (folder / "log").read_text())
    config.write_text(before)
    assert _ask(folder / "sts.sock", "/healthz").status == 200


def test_a_socket_that_was_removed_does_not_hinder_the_end(at_socket):
    """The last test with this service: it ends it."""
    process, folder = at_socket
    (folder / "sts.sock").unlink()
    process.terminate()
    assert process.wait(120) == 0
    assert "Traceback" not in (folder / "log").read_text()


PROBE = """
import json, os, subprocess, sys
from sts.cli import main, serve

class Probe(serve.Server):
    def run(self):
        again = self.load_settings()
        child = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
        print(json.dumps({"same": again == self.accepted, "own": dict(os.environ), "child": child}))

serve.Server = Probe
sys.argv = ["sts", "serve", "-c", sys.argv[1]]
main.main()
"""


def test_secrets_leave_the_environment_before_any_worker_is_made_and_a_reload_has_them(tmp_path):
    """/proc keeps what the process was started with; its own environment, its children and a dump of it do not."""
    document = yaml.safe_load(MINIMAL.read_text())
    (digest,) = document["clients"]["edge-gateway"]["secrets"]
    document["clients"]["edge-gateway"]["secrets"] = [{"env": "GATEWAY_DIGEST"}]
    config = tmp_path / "sts.yaml"
    config.write_text(json.dumps(document | {"secret": {"env": "DEPLOYMENT_SECRET"}}))
    given = {"GATEWAY_DIGEST": digest, "DEPLOYMENT_SECRET": "A" * 43, "OTHER": "stays"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, config], env={**os.environ, **given}, capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["same"] is True
    assert seen["own"]["OTHER"] == "stays"
    for secret in (digest, "A" * 43):
        assert secret not in done.stdout + done.stderr
    assert {"GATEWAY_DIGEST", "DEPLOYMENT_SECRET"}.isdisjoint(seen["own"])
    assert "OTHER=stays" in seen["child"]
    assert not (tmp_path / "var" / "secret").exists()
