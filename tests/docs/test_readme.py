"""README.md as a newcomer reads it: every example, in order, in an empty directory.

Only addresses differ: the identity provider is one that is there, and the service listens on a port that is free.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import jwt
import pytest
from harness import Idp, free_port, wait_for

from scripts import servers

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))


class Newcomer:
    """Somebody with a shell, an empty directory, `sts` on the PATH, and what the README told so far."""

    def __init__(self, directory):
        self.directory = directory
        self.provider = Idp()
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "INBOUND": self.provider.token(aud="api-gateway", scope="orders:read orders:write"),
        }
        self.service = None

    def here(self, text):
        """The README's text with the addresses of this machine."""
        text = text.replace("https://idp.example.com/jwks.json", self.provider.url)
        return text.replace("127.0.0.1:8080", self.address)

    def types(self, commands, status=0):
        """Type commands; returns what was printed."""
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", self.here(commands)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done
        return done.stdout + done.stderr

    def serves(self):
        """Type `sts serve`; it stays in the foreground of a shell of its own."""
        with (self.directory / "log").open("wb") as log:
            self.service = subprocess.Popen(
                ["sts", "serve"], cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )
        wait_for(self.is_served)

    def is_served(self):
        assert self.service.poll() is None, (self.directory / "log").read_text()
        ready = ["curl", "-sf", f"http://{self.address}/readyz"]
        return subprocess.run(ready, capture_output=True, check=False).returncode == 0

    def goes(self):
        self.provider.close()
        if self.service is not None:
            self.service.terminate()
            assert self.service.wait(120) == 0


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"))
    yield newcomer
    newcomer.goes()


@pytest.fixture(scope="module")
def read(newcomer):
    """Read the README from its beginning: the blocks of each language, and what came of the commands."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    told = types.SimpleNamespace(newcomer=newcomer, **{name: [] for name, _ in BLOCKS})
    for language, text in BLOCKS:
        getattr(told, language).append(text)
    told.answers = follow(newcomer, told)
    return told


def follow(newcomer, told):
    """Do what the README says, in its order; returns what each of its shell blocks printed."""
    first, then, exchange, explain, forward, keys = told.sh
    answers = [newcomer.types(first)]
    newcomer.environment["SECRET"] = re.search(r"shown once: +(\S+)", answers[0])[1]

    config = newcomer.directory / "sts.yaml"
    (source,) = told.yaml
    assert source in config.read_text()  # what the README shows is what `sts init` wrote
    config.write_text(newcomer.here(config.read_text()))

    check, serve = then.splitlines()
    assert serve.split()[:2] == ["sts", "serve"]
    answers.append(newcomer.types(check))
    newcomer.serves()
    answers.append(newcomer.types(exchange))
    answers.append([newcomer.types(line) for line in explain.splitlines()])
    answers.append(newcomer.types(forward))
    listed, rotated = keys.splitlines()
    answers.append((newcomer.types(listed), newcomer.types(rotated, status=1)))
    return answers


def test_every_block_of_the_readme_is_known_here():
    assert [language for language, _ in BLOCKS] == [
        *("sh", "yaml", "sh", "sh", "json", "sh", "nginx", "sh", "python", "sh"),
    ]


def test_the_first_configuration_is_right(read):
    assert "nothing is wrong" in read.answers[1]


def test_an_exchange_answers_as_shown(read):
    (shown,) = read.json
    shown, answered = json.loads(shown.replace("eyJ…", "eyJ")), json.loads(read.answers[2])
    assert answered.pop("access_token").startswith(shown.pop("access_token"))
    assert shown["expires_in"] - 5 <= answered.pop("expires_in") <= shown.pop("expires_in")
    assert answered == shown


def test_explain_says_what_a_request_would_get(read):
    for said in read.answers[3]:
        assert "✓ mint: the token would hold" in said
        assert "✗" not in said


def test_the_question_of_nginx_is_answered_by_hand(read):
    head = read.answers[4]
    assert head.startswith("HTTP/1.1 200 ")
    assert "\nAuthorization: Bearer eyJ" in head
    assert "\nX-User-ID: alice" in head


def test_the_backend_verifies_the_token_and_no_other(read):
    (snippet,) = read.python
    backend = {}
    exec(compile(read.newcomer.here(snippet), "README.md", "exec"), backend)  # noqa: S102 - it is what this is about
    token = json.loads(read.answers[2])["access_token"]
    claims = backend["verify"](token)
    assert (claims["sub"], claims["client_id"], claims["roles"]) == ("alice", "edge-gateway", ["accountant"])
    for bad in (read.newcomer.environment["INBOUND"], token[:-6] + "AAAAAA", "x"):
        with pytest.raises(jwt.PyJWTError):
            backend["verify"](bad)


def test_keys_are_listed_and_not_rotated_too_early(read):
    listed, rotated = read.answers[5]
    assert "active" in listed
    assert "published" in listed
    assert re.search(r"\d+ ?s", rotated), rotated


def test_the_nginx_fragment_is_a_configuration(read, tmp_path):
    nginx = servers.find(servers.NGINX)
    if nginx is None:
        pytest.skip("no nginx is installed, and none could be")
    (fragment,) = read.nginx
    whole = f"""
        pid {tmp_path}/pid;
        error_log stderr;
        events {{}}
        http {{
            access_log off;
            upstream orders {{ server 127.0.0.1:1; }}
            server {{ listen 127.0.0.1:{free_port()}; {fragment} }}
        }}
    """
    (tmp_path / "nginx.conf").write_text(whole)
    command = [nginx, "-t", "-q", "-p", tmp_path, "-c", tmp_path / "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_faulty_change_and_sighup_change_nothing_as_the_readme_says(read):
    newcomer = read.newcomer
    config = newcomer.directory / "sts.yaml"
    before = config.read_text()
    config.write_text(before.replace("ttl: 5m", "ttl: soon"))
    newcomer.service.send_signal(signal.SIGHUP)
    wait_for(lambda: "nothing has changed" in (newcomer.directory / "log").read_text())
    config.write_text(before)
    (_, _, exchange, *_) = read.sh
    assert json.loads(newcomer.types(exchange))["access_token"]
