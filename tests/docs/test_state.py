"""docs/state.md: every example runs as it stands there."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
import yaml
from harness import MINIMAL

from sts.audit.log import _line
from sts.settings import load
from sts.state import open_state

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def block(kind, word):
    (found,) = [text for language, text in BLOCKS if language == kind and word in text]
    return found


@pytest.fixture
def place(tmp_path):
    """A folder with a configuration that was served before, and what the examples name."""
    config = tmp_path / "sts.yaml"
    config.write_text(MINIMAL.read_text())
    (tmp_path / "leaked.jwt").write_text("head.payload.signature\n")
    command = tmp_path / "bin" / "sts"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sts "$@"\n')
    command.chmod(0o755)
    run(tmp_path, "sts keys init")
    return tmp_path


def run(place, text):
    environment = {**os.environ, "PATH": f"{place}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        ["bash", "-euc", text], cwd=place, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_the_commands_revoke_what_the_comments_say(place):
    said = run(place, block("sh", "laptop"))
    kinds = [line.partition(":")[0] for line in said.splitlines() if ": revoked" in line]
    assert kinds == ["subject", "credential", "jti", "source_subject"]
    assert "laptop stolen" in said
    found = json.loads(run(place, "sts revocations list --json"))["revocations"]
    assert sorted(one["what"] for one in found) == sorted(kinds)


def test_what_was_made_from_a_leaked_credential_is_found_in_the_audit(place):
    """The lines are those that the audit itself writes."""
    leaked, other = "hmac:" + "1" * 32, "hmac:" + "2" * 32
    lines = [_line({"credential_hash": one, "jti": jti}) for one, jti in ((leaked, "a"), (other, "b"), (leaked, None))]
    (place / "audit.jsonl").write_bytes(b"".join([*lines, lines[0]]))
    said = run(place, f"LEAKED={leaked}\n" + block("sh", "audit.jsonl"))
    (found,) = json.loads(run(place, "sts revocations list --json"))["revocations"]
    assert said.count(": revoked") == 1
    assert f"jti:{found['name']}: revoked" in said
    assert run(place, "sts revoke --jti a --dry-run").startswith(f"jti:{found['name']}: would be revoked")


def test_the_backup_is_one(place):
    run(place, "sts revoke --subject alice")
    run(place, block("sh", "backup"))
    with sqlite3.connect(place / "state-copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM record").fetchone() == (1,)
    copy.close()


@pytest.mark.parametrize("word", ["store: redis", "mode: sentinel"])
def test_the_configurations_load(place, word):
    trustme.CA().cert_pem.write_to_path(str(place / "redis-ca.pem"))
    document = yaml.safe_load(MINIMAL.read_text()) | yaml.safe_load(block("yaml", word))
    (place / "sts.yaml").write_text(json.dumps(document))
    settings = load(place / "sts.yaml", {"STS_SECRET": "A" * 43, "REDIS_PASSWORD": "hush"})
    open_state(settings.state, settings.redis, settings.var, time.time).close()


def test_the_server_needs_no_more_rights_than_the_page_says(run_redis, place):
    """The user of docs/state.md, on a real server, does everything that the state does."""
    server = run_redis()
    listed = re.search(r"must be allowed (.*?) on the\s+keys", PAGE, re.DOTALL)[1]
    commands = [f"+{word.lower()}" for word in re.findall(r"[A-Z]{3,}(?:\|[A-Z]+)?", listed)]
    assert len(commands) == 14
    server.client().acl_setuser(
        "sts", enabled=True, passwords=["+pw"], keys=["sts:*", "{sts:*"], commands=["-@all", *commands]
    )
    redis = {"url": server.settings["url"].replace("//", "//sts@"), "password": "pw"}
    document = yaml.safe_load(MINIMAL.read_text())
    document |= {"redis": redis, "secret": {"env": "STS_SECRET"}, "state": {"store": "redis"}}
    (place / "sts.yaml").write_text(json.dumps(document))
    settings = load(place / "sts.yaml", {"STS_SECRET": "A" * 43})
    state = open_state(settings.state, settings.redis, settings.var, time.time)
    state.check()
    state.mark(b"one", time.time() + 60)
    version = state.put("keys", "a", b"1", expected=0, until=time.time() - 1)
    state.put("keys", "b", b"2", expected=0)
    state.delete("keys", "b")
    assert state.get("keys", "b") is None
    assert state.list("keys") == ()
    assert version
    state.close()
