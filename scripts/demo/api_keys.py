"""API keys in the demo: one is made and shown once, opens a door, and is revoked without a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from scripts.demo.service import GATEWAY, Service
from scripts.demo.show import Stage
from scripts.nginx import PATIENCE_S

_STS: Final = str(Path(sys.executable).with_name("sts"))
_CONFIGURATION: Final = (
    """\
issuer: {issuer}
listen: 127.0.0.1:{port}
workers: 2
audit: {{file: audit.jsonl}}
"""
    + GATEWAY
    + """\
    profile: nginx
sources:
  partner-keys:
    type: api_key
    prefix: sk_demo_
    identity: {{subject: key.owner, scopes: key.scopes}}
audiences:
  orders: {{ttl: 5m, scopes: ["orders:read"]}}
routes:
  orders: {{host: api.example.com, path: "/orders/**", audience: orders, scopes: ["orders:read"]}}
"""
)


def api_keys(stage: Stage, directory: Path) -> None:
    """A key that a command makes opens a door soon, and a revocation shuts it as soon."""
    stage.step("API keys: made by a command, kept as a hash, revoked without a restart")
    folder = directory / "api-keys"
    folder.mkdir()
    with Service(folder, "", _CONFIGURATION) as service:
        made = _keys(folder, "create", "--owner", "acme", "--scope", "orders:read", "--json")
        key = made["key"]
        stage.say(f"sts api-keys create: {key[:20]}… (its id {made['id']}), shown this once")
        asked = _until(service, key, "")
        stage.check("the header X-API-Key opens the route", holds=asked == "", found=asked)
        kept = [file for file in folder.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
        stage.check("the key itself is kept nowhere: not in the store, the log, the audit", holds=not kept, found=kept)
        mistyped = key[:-1] + ("a" if key[-1] != "a" else "b")
        beside = _ask(service, {"X-API-Key": key, "Authorization": "Bearer a.b.c"})
        for what, found in (
            ("a typing error", _ask(service, {"X-API-Key": mistyped})),
            ("a key beside a token", beside),
        ):
            stage.check(f"{what}: refused", holds=found == "invalid_credential", found=found)
        _keys(folder, "revoke", made["id"], "--json")
        began = time.monotonic()
        found = _until(service, key, "invalid_credential")
        took = time.monotonic() - began
        stage.check("revoked: refused", holds=bool(found), found=found)
        stage.say(f"after {took:.1f} s: each worker looks once a second")


def _ask(service: Service, headers: dict[str, str]) -> str:
    """Ask at forward-auth; "" where the request may pass, else the reason."""
    original = {"X-Original-Method": "GET", "X-Original-URI": "/orders/1", "X-Original-Host": "api.example.com"}
    answer = service.forward_auth({**original, **headers})
    return "" if answer.status == 200 else answer.headers["x-auth-reason"]


def _until(service: Service, key: str, wanted: str) -> str:
    """Ask until the answer is as wanted, or for long enough; returns the last one."""
    end = time.monotonic() + PATIENCE_S  # every worker knows of a change within two seconds
    while (found := _ask(service, {"X-API-Key": key})) != wanted and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _keys(folder: Path, *arguments: str) -> dict[str, Any]:
    # Nothing of the caller's own service may get in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STS_")}
    command = [_STS, "api-keys", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
