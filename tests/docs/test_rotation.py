"""docs/rotation.md: each runbook's commands, run as they stand, over an accelerated schedule."""

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness import wait_for

from keys import rotation, store_redis
from keys.keyring import Keyring
from keys.transitions import Wanted
from sts.cli.main import cli
from sts.labels import DeploymentSecret
from sts.mint.keystore import prepare
from sts.mint.settings import KeysSettings
from sts.options import Place
from sts.redis_link import RedisSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rotation.md").read_text(encoding="utf-8")
RUNBOOK = re.compile(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
RUNBOOKS = dict(RUNBOOK.findall(PAGE.partition("## Runbooks")[2]))
CONFIGURATION = """\
issuer: https://sts.example.internal
audiences: {orders: {ttl: 5m}}
keys:
  algorithm: ES256
  rotate_every: 1h
  jwks_max_age: 50ms
  verifier_refresh: 0s
  clock_skew: 0s
  poll: 50ms
  store_grace: 1m
"""


@pytest.fixture
def operator(tmp_path, monkeypatch):
    """Type a runbook's commands one after the other, and give time for the guard; returns what was printed."""
    (tmp_path / "sts.yaml").write_text(CONFIGURATION)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STS_CONFIG", str(tmp_path / "sts.yaml"))

    def run(commands):
        printed = ""
        for command in commands.strip().splitlines():
            words = shlex.split(os.path.expandvars(command))
            if words[0] == "sts":  # in this process: what a shell would start, without the start
                done = CliRunner().invoke(cli, words[1:])
                status, out, err = done.exit_code, done.stdout, done.stderr
            else:
                finished = subprocess.run(["bash", "-eu", "-c", command], capture_output=True, text=True, check=False)
                status, out, err = finished.returncode, finished.stdout, finished.stderr
            assert status == 0, (command, out, err)
            printed += out
            time.sleep(0.12)
        return printed

    run("sts keys init")
    return run


def blocks(title):
    found = re.findall(r"^```sh\n(.*?)^```", RUNBOOKS[title], re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.fixture
def signing(tmp_path):
    """The kid that signs."""

    def signing():
        shown = CliRunner().invoke(cli, ["keys", "list", "--json", "-c", str(tmp_path / "sts.yaml")]).stdout
        return next(one["kid"] for one in json.loads(shown)["keys"] if one["state"] == "active")

    return signing


def test_every_runbook_has_commands_and_a_test():
    assert set(RUNBOOKS) == {
        "A planned rotation",
        "Another algorithm",
        "A key was stolen",
        "Another secret",
        "A key from elsewhere",
        "Restore from a backup",
        "The store is lost",
    }


def test_a_planned_rotation(operator, signing):
    former = signing()
    printed = operator(*blocks("A planned rotation"))
    assert "signs now" in printed
    assert "leaves the JWKS in" in printed
    assert signing() != former


def test_another_algorithm(operator):
    printed = operator(*blocks("Another algorithm"))
    assert "RS256: " in printed
    assert [line.split()[1:3] for line in printed.splitlines()[-8:] if "…" in line] == [
        ["ES256", "retired"],
        ["RS256", "active"],
        ["RS256", "published"],
    ]


def test_a_key_was_stolen(operator, signing, monkeypatch):
    stolen = signing()
    monkeypatch.setenv("KID", stolen)
    one, every = blocks("A key was stolen")
    printed = operator(one)
    assert f"{stolen[:10]}… is revoked" in printed
    assert stolen not in printed.partition('"keys"')[2]  # the JWKS
    after = signing()
    assert after != stolen
    assert f"{after[:10]}… is revoked" in operator(every)


def test_another_secret(operator, signing, tmp_path):
    (tmp_path / "new").write_text("22" * 32)
    (tmp_path / "sts.yaml").write_text(CONFIGURATION + "secret: {file: new, previous: {file: var/secret}}\n")
    kid = signing()
    assert "is sealed again" in operator(*blocks("Another secret"))
    (tmp_path / "sts.yaml").write_text(CONFIGURATION + "secret: {file: new}\n")
    assert signing() == kid


def test_a_key_from_elsewhere(operator, tmp_path):
    printed = operator(*blocks("A key from elsewhere"))
    assert "waits; it may sign ES256 in" in printed
    assert not (tmp_path / "key.pem").exists()


def test_restore_from_a_backup(operator, signing):
    former = signing()
    operator("cp -rp var backup")
    operator("sts keys rotate")
    assert signing() != former
    operator(*blocks("Restore from a backup"))
    assert signing() == former


def test_without_its_last_step_a_backup_is_refused(operator):
    operator("cp -rp var backup\nsts keys rotate\ncp -p backup/keyring.json var/keyring.json")
    with pytest.raises(AssertionError, match="has seen version 2"):
        operator("sts keys rotate")


@pytest.mark.parametrize("gone", ["secret", "keyring.json"])
def test_the_store_is_lost(operator, signing, tmp_path, gone):
    former = signing()
    (tmp_path / "var" / gone).unlink()
    assert "made;" in operator(*blocks("The store is lost"))
    assert signing() != former


def test_the_numbers_of_the_page_are_the_defaults():
    schedule = KeysSettings().schedule()
    assert (schedule.guard, schedule.keep(300.0)) == (15 * 60 + 35, 3600 + 5 * 60 + 30)
    assert "(15m 35s)" in PAGE
    assert "(1h 5m 30s with a ttl of 5m)" in PAGE
    assert f"`store_grace` ({schedule.store_grace / 3600:.0f}h)" in PAGE
    assert f"`rotate_every` ({schedule.rotate_every / 86400:.0f}d)" in PAGE


def test_the_server_needs_no_more_rights_for_the_ring_than_the_page_says(run_redis, tmp_path, monkeypatch):
    """The user of docs/rotation.md and docs/state.md, on a real server, does all that operators and replicas do."""
    state_page = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
    listed = re.search(r"must be allowed (.*?) on the\s+keys", state_page, re.DOTALL)[1]
    listed += re.search(r"A user of its own must be allowed.*?\n\n", PAGE, re.DOTALL)[0]
    commands = {f"+{word.lower()}" for word in re.findall(r"[A-Z]{3,}(?:\|[A-Z]+)?", listed)} - {"+acl"}
    assert "+subscribe" in commands
    server = run_redis()
    rights = {"keys": ["{sts:*"], "channels": ["{sts:*"], "commands": ["-@all", *sorted(commands)]}
    server.client().acl_setuser("sts", enabled=True, passwords=["+pw"], **rights)
    url = server.settings["url"].replace("//", "//sts@")
    redis = RedisSettings.model_validate({"url": url, "password": "pw"}, context=Place(tmp_path, {}))
    keys = KeysSettings(store="redis", poll="1h", store_grace="2h")
    wanted = Wanted(keys.schedule(), 300.0, ("ES256",))
    monkeypatch.setattr(store_redis, "_SILENCE_S", 0.2)  # so that it asks whether the server is there
    given, deaf = DeploymentSecret.parse("0b" * 32), []
    _, store, ring, made = prepare(keys, tmp_path / "var", given, time.time, wanted, redis)
    assert made
    keyring = Keyring(store, keys.schedule(), time.time, on_deaf=deaf.append)
    keyring.start()
    wait_for(lambda: server.client().pubsub_numsub("{sts:keys}:changed")[0][1] == 1)
    time.sleep(1.5)  # it was told at once when it began to listen, and hears the next notice as such
    later = rotation.revoke(store, time.time, ring.keys[0].kid)
    wait_for(lambda: keyring.status(time.time()).version == later.version)
    store.forget("nobody")
    keyring.stop()
    store.close()
    assert deaf == []
    log = server.client().acl_log()
    assert {entry["object"] for entry in log} <= {"config|get"}, log
