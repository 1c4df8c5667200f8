"""The Python snippets of docs/clients.md, and a service with a client of an odd name and with long lifetimes."""

import hashlib
import re
from pathlib import Path

import pytest
from harness import MINIMAL, Service

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
ODD_CLIENT, ODD_SECRET = "node_client-1.a~b", "s_e-c.r~et_of-the-odd.client~1"

ANOTHER_CLIENT = f"""
workers: 2
cache:
  min_remaining: 5m
clients:
  {ODD_CLIENT}:
    auth: secret
    secrets: ["sha256:{hashlib.sha256(ODD_SECRET.encode()).hexdigest()}"]
    audiences: [orders]
    default_audience: orders
"""


@pytest.fixture(scope="session")
def snippets():
    """What each Python snippet of the page defines, by the name in its first line."""
    blocks = re.findall(
        r'^```python\n("""(\w+)\.py: .*?)^```', PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 4
    found = {}
    for source, name in blocks:
        found[name] = {}
        exec(compile(source, f"docs/clients.md: {name}.py", "exec"), found[name])  # noqa: S102 - the page is ours
    return found


@pytest.fixture(scope="session")
def odd_client():
    """Id and secret in which some clients encode every other character."""
    return ODD_CLIENT, ODD_SECRET


@pytest.fixture(scope="module")
def lasting(idp, tmp_path_factory):
    """A service whose answers have at least five minutes left, as the page advises for clients that keep tokens."""
    text = MINIMAL.read_text(encoding="utf-8").replace("http://127.0.0.1:9000/jwks.json", idp.url)
    text = re.sub(r"^clients:.*\n", ANOTHER_CLIENT, text, count=1, flags=re.MULTILINE)
    text = text.replace("    ttl: 5m", "    ttl: 10m")
    running = Service(tmp_path_factory.mktemp("lasting"), text)
    yield running
    assert running.stop() == 0, running.log()
