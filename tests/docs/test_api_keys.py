"""docs/api-keys.md as somebody reads it: its settings, its commands, its file, its expression and its snippet."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from harness import SECRET, decoded, minimal

from sts.state.key_records import make

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api-keys.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


CREATE, AT_FORWARD, AT_TOKEN, CHANGES, IMPORT = blocks("console")


@pytest.fixture(scope="module")
def service(tmp_path_factory, idp):
    from harness import Service  # noqa: PLC0415 - a fixture of the session has the same name

    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"].update(yaml.safe_load(blocks("yaml")[0])["sources"])
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    running = Service(tmp_path_factory.mktemp("page"), yaml.safe_dump(document))
    yield running
    assert running.stop() == 0, running.log()


@pytest.fixture(scope="module")
def typed(service):
    """Type a command of the page, in the folder of the configuration; `more` are its variables, `key_id` its id."""

    def typed(command, **more):
        command = command.removeprefix("$ ").replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
        command = command.replace("mtKoFfcwiBVa", more.pop("key_id", "?"))
        done = subprocess.run(
            ["bash", "-eu", "-c", command],
            cwd=service.directory,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SECRET": SECRET, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return typed


@pytest.fixture(scope="module")
def made(typed):
    """What the first command of the page said: the key and its id."""
    command, *_ = CREATE.splitlines()
    said = typed(command)
    shape = re.sub(r"sk_live_\w+|\b\w{12}\b|\d{4}-\d\d-\d\d", "…", said)
    assert shape == re.sub(r"sk_live_\w+|\b\w{12}\b|\d{4}-\d\d-\d\d", "…", "\n".join(CREATE.splitlines()[1:]) + "\n")
    return re.search(r"sk_live_\w+", said)[0], re.search(r"^id (\w+)", said, re.MULTILINE)[1]


def test_a_key_of_the_page_opens_both_doors(service, typed, made):
    key, _ = made
    service.everywhere(lambda: typed(AT_FORWARD, API_KEY=key).startswith("HTTP/1.1 200"))
    at_forward = typed(AT_FORWARD, API_KEY=key)
    at_token = json.loads(typed(AT_TOKEN, API_KEY=key))["access_token"]
    for token in (at_token, re.search(r"(?i)^authorization: Bearer (\S+)", at_forward, re.MULTILINE)[1]):
        claims = decoded(token)[1]
        assert (claims["sub"], claims["scope"], claims["tenant"]) == ("key|acme", "orders:read", "agency-7")


def test_the_commands_of_the_page_list_rotate_and_revoke(typed, made):
    table, listed, rotated, revoked = (line for line in CHANGES.splitlines() if line.startswith("$ "))
    key, key_id = made
    assert key_id in typed(table)
    assert key_id in {one["id"] for one in json.loads(typed(listed))}
    assert f"{key_id} works until" in typed(rotated, key_id=key_id)
    assert "is revoked" in typed(revoked, key_id=key_id)
    assert "is revoked" in typed('printf %s "$API_KEY" | sts api-keys revoke -', API_KEY=key)


def test_the_file_of_the_page_is_imported(typed, service):
    (service.directory / "keys.csv").write_text(blocks("csv")[0])
    dry, done = map(typed, IMPORT.splitlines())
    assert (dry, done) == ("2 would be imported, 0 there already\n", "2 imported, 0 there already\n")


def test_a_scanner_with_the_rule_of_the_page_finds_our_keys_and_the_checksum_tells_what_is_one():
    (rule,) = tomllib.loads(blocks("toml")[0])["rules"]
    found, namespace = re.compile(rule["regex"]), {}
    exec(blocks("python")[0], namespace)  # noqa: S102 - it is our own page
    is_key = namespace["is_key"]
    for _ in range(200):
        _, key = make("sk_live_")
        leaked = f'headers = {{"X-API-Key": "{key}"}}  # TODO'
        assert found.findall(leaked) == [key]
        assert is_key(key)
        assert not is_key(key[:-7] + ("a" if key[-7] != "a" else "b") + key[-6:])
    assert not found.findall("sk_live_short sk_test_" + "x" * 50 + " sk_live_" + "x" * 51)


def test_the_lengths_that_the_page_tells_are_those_of_a_key(made):
    key, key_id = made
    id_chars, secret, checksum = map(int, re.search(r"(\d+) characters id><(\d+) \w+ secret><(\d+)", PAGE).groups())
    assert len(key) == len("sk_live_") + id_chars + secret + checksum
    assert key.startswith("sk_live_" + key_id)
    assert len(key_id) == id_chars
