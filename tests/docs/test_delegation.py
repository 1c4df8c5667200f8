"""docs/delegation.md as somebody reads it: its settings and its commands, against the service."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from harness import ACCESS_TOKEN, CLIENT, SECRET, decoded, minimal

from sts.clients.secret import digest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "delegation.md").read_text(encoding="utf-8")
ACTORS, SETTINGS = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
ACTOR, AGAIN = re.findall(r"```console\n\$ (.*?)```", PAGE, re.DOTALL)
GATEWAY_ACTS, JOB_ACTS, BACKEND_ACTS = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
BACKEND_SECRET = "orders-service-secret-for-tests-only"


@pytest.fixture
def service(make_service, idp):
    document = yaml.safe_load(minimal(idp))
    document["clients"][CLIENT].update(ACTORS["clients"][CLIENT])
    document["audiences"]["orders"].update(ACTORS["audiences"]["orders"])
    document["clients"].update(SETTINGS["clients"])
    document["clients"]["orders-service"]["secrets"] = [digest(BACKEND_SECRET)]
    del document["audiences"]["billing"]["allow"]
    return make_service(yaml.safe_dump(document))


def typed(service, command, **variables):
    """The claims of the token that a command of the page gets."""
    done = subprocess.run(
        ["bash", "-eu", "-c", command.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")],
        env={**os.environ, "SECRET": SECRET, "BACKEND_SECRET": BACKEND_SECRET, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return decoded(json.loads(done.stdout)["access_token"])[1]


def shown(claims, example):
    return {name: claims.get(name) for name in example}


def test_without_further_words_the_gateway_acts(service, idp):
    claims = decoded(service.exchange(idp.token()).token)[1]
    assert shown(claims, GATEWAY_ACTS) == GATEWAY_ACTS


def test_an_actor_token_names_who_acts(service, idp):
    claims = typed(service, ACTOR, USER_TOKEN=idp.token(), JOB_TOKEN=idp.token(sub="nightly-job"))
    assert shown(claims, JOB_ACTS) == JOB_ACTS
    other = service.exchange(idp.token(), actor_token=idp.token(sub="bob"), actor_token_type=ACCESS_TOKEN)
    assert (other.status, other.reason) == (400, "not_allowed")


def test_a_backend_exchanges_its_token_again(service, idp):
    first = service.exchange(idp.token(), scope="orders:read orders:write").token
    assert decoded(first)[1]["src"] == "corporate-idp"
    document = yaml.safe_load(service.file.read_text())
    document["audiences"]["billing"]["scopes"] = ["orders:read"]
    del document["routes"]["billing"]
    service.write(yaml.safe_dump(document))
    assert service.reload()["event"] == "reloaded"
    claims = typed(service, AGAIN, ORDERS_TOKEN=first)
    assert shown(claims, BACKEND_ACTS) == BACKEND_ACTS
    assert claims["scope"] == "orders:read"
