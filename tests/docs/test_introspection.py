"""docs/introspection.md as somebody reads it: its settings and its command, against the service."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml
from harness import minimal

from sts.clients.secret import digest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "introspection.md").read_text(encoding="utf-8")
SETTINGS = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
COMMAND = re.search(r"```console\n\$ (.*?)```", PAGE, re.DOTALL)[1]
ANSWER = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
SECRET = "backend-secret-for-tests-only"


def test_the_command_of_the_page_works_with_its_settings(make_service, idp):
    document = yaml.safe_load(minimal(idp))
    document["clients"].update(SETTINGS["clients"])
    document["clients"]["orders-service"]["secrets"] = [digest(SECRET)]
    document["audiences"]["orders"]["claims"] = {}
    service = make_service(yaml.safe_dump(document))

    def typed(token):
        done = subprocess.run(
            ["bash", "-eu", "-c", COMMAND.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")],
            env={**os.environ, "BACKEND_SECRET": SECRET, "TOKEN": token},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(done.stdout)

    found = typed(service.exchange(idp.token(scope="orders:read")).token)
    ours = {"exp", "iat", "src_iat", "jti"}  # of this very token
    assert set(found) == set(ANSWER)
    assert {name: found[name] for name in set(found) - ours} == {name: ANSWER[name] for name in set(found) - ours}
    assert typed("made-up") == {"active": False}
