"""scripts/rotate_keys.py, as a scheduler would start it."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import in_time
from web import Web

from keys.transitions import Wanted
from sts.cli.main import cli
from sts.mint.keystore import prepare
from sts.settings import load

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "rotate_keys.py"
DAY = 86400.0


@pytest.fixture
def config(tmp_path):
    return tmp_path / "sts.yaml"


@pytest.fixture
def made(config):
    """Write a configuration and make a ring that is `age` seconds old, under another schedule where that is given."""

    def make(age, **schedule):
        config.write_text("issuer: https://sts.example.internal\naudiences: {orders: {ttl: 5m}}\n")
        settings = load(config)
        keys = settings.keys.model_copy(update=schedule)
        wanted = Wanted(keys.schedule(), settings.longest_ttl(), (keys.algorithm,))
        return prepare(keys, settings.var, None, lambda: time.time() - age, wanted)[2]

    return make


def listed(path):
    return json.loads(CliRunner().invoke(cli, ["keys", "list", "--json", "-c", str(path)]).stdout)


def script(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_it_does_nothing_until_a_rotation_is_due(made, config):
    made(29 * DAY)
    done = script("-c", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do: the next rotation is due in" in done.stdout
    assert listed(config)["version"] == 1


def test_it_rotates_when_that_is_due_and_is_safe_to_run_twice(made, config):
    ring = made(31 * DAY)
    dry = script("-c", config, "--dry-run")
    assert (dry.returncode, listed(config)["version"]) == (0, 1)
    assert "allowed now, nothing was changed" in dry.stdout
    done = script("-c", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"rotated: {ring.keys[1].kid} signs" in done.stdout
    again = script("-c", config)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to do" in again.stdout
    assert listed(config)["plans"][0]["signing"] == ring.keys[1].kid
    assert listed(config)["version"] == 2


def test_a_next_key_that_is_too_young_is_refused_or_waited_for(made, config, tmp_path):
    def refused(seconds):
        shutil.rmtree(tmp_path / "var", ignore_errors=True)
        made(31 * DAY, jwks_max_age=31 * DAY - 635 + seconds)  # by the schedule of its publication, ready in `seconds`
        done = script("-c", config)
        return done if done.returncode else None

    assert "has not been published for long enough" in in_time(refused).stderr
    waited = script("-c", config, "--wait", "1h")
    assert (waited.returncode, waited.stderr) == (0, "")
    assert "rotated" in waited.stdout


def test_its_exit_statuses_are_those_it_documents(made, config, tmp_path):
    assert script("--wait", "soon").returncode == 2
    assert script("-c", tmp_path / "none.yaml").returncode == 1
    made(0)
    (tmp_path / "var" / "keyring.json").chmod(0o644)
    unreadable = script("-c", config)
    assert unreadable.returncode == 3
    assert "chmod 600" in unreadable.stderr
    (tmp_path / "var" / "secret").unlink()
    lost = script("-c", config)
    assert lost.returncode == 1
    assert f"its deployment secret {tmp_path / 'var' / 'secret'} is missing: restore it" in lost.stderr
    assert "Traceback" not in lost.stderr


def test_its_help_documents_the_exit_statuses():
    shown = script("--help").stdout
    for status in (0, 1, 2, 3):
        assert f"\n    {status}  " in shown


@pytest.fixture
def replica(config):
    """A replica over the ring that is there; `lag` makes it publish the ring as it was so many looks ago."""

    def answer(handler):
        server.asked.append(handler.path)
        found = server.kids()
        handler.reply({"keys": [{"kid": kid} for kid in found or ()]}, 503 if found is None else 200)

    def kids():
        server.held.append([key["kid"] for key in listed(config)["keys"] if key["state"] != "revoked"])
        return server.held[max(0, len(server.held) - 1 - server.lag)]

    server = Web(answer)
    server.asked, server.held, server.lag, server.kids = [], [], 0, kids
    yield server
    server.close()


def test_it_waits_until_every_replica_publishes_the_next_key(made, config, replica):
    ring = made(31 * DAY)
    replica.lag = 3
    done = script("-c", config, "--check-url", replica.url, "--check-url", f"{replica.url}/.well-known/jwks.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{replica.url}/.well-known/jwks.json publishes the key that is to sign" in done.stdout
    order = [done.stdout.index(text) for text in ("is to sign", "rotated: ", "publishes the next key")]
    assert order == sorted(order)
    assert set(replica.asked) == {"/.well-known/jwks.json"}
    assert listed(config)["plans"][0]["signing"] == ring.keys[1].kid


def test_it_does_not_rotate_to_a_key_that_a_replica_does_not_publish(made, config, replica):
    made(31 * DAY)
    replica.kids = lambda: ["another"]
    for check in (replica.url, "http://127.0.0.1:1"):
        done = script("-c", config, "--check-url", check, "--check-for", "300ms")
        assert done.returncode == 3
        assert "does not publish" in done.stderr or "cannot be asked" in done.stderr
    assert listed(config)["version"] == 1


def test_a_replica_that_answers_no_keys_is_no_replica_that_publishes(made, config, replica):
    made(31 * DAY)
    replica.kids = lambda: None
    assert script("-c", config, "--check-url", replica.url, "--check-for", "300ms").returncode == 3
