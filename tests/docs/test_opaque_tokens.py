"""docs/opaque-tokens.md as somebody reads it: its settings and its commands, against a real authorization server."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from harness import SECRET, decoded, minimal
from opaque import OUR_SECRET, AuthorizationServer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "opaque-tokens.md").read_text(encoding="utf-8")
SETTINGS = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
COMMANDS = [text.removeprefix("$ ") for text in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture
def typed(make_service, idp):
    """Type a command of the page; the service and the server are this machine's."""
    server = AuthorizationServer()
    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"].update(SETTINGS["sources"])
    document["sources"]["legacy-as"]["endpoint"] = f"{server.url}/introspect"
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    service = make_service(yaml.safe_dump(document), environment={"LEGACY_AS_SECRET": OUR_SECRET})

    def typed(command):
        done = subprocess.run(
            ["bash", "-eu", "-c", command.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")],
            env={**os.environ, "SECRET": SECRET, "OPAQUE": server.token()},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    yield typed
    server.close()


def test_both_commands_of_the_page_work_with_its_settings(typed):
    at_token, at_forward = (typed(command) for command in COMMANDS)
    for token in (
        yaml.safe_load(at_token)["access_token"],
        re.search(r"(?i)^authorization: Bearer (\S+)", at_forward, re.MULTILINE)[1],
    ):
        assert decoded(token)[1]["sub"] == "legacy|batch"
    assert at_forward.startswith("HTTP/1.1 200")
