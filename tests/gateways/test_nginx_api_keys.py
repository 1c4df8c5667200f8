"""API keys through nginx with the shipped configuration: the service sees the key, and no backend ever does."""

import json

import pytest
import yaml
from click.testing import CliRunner
from harness import minimal, wait_for

from sts.cli.main import cli

KEYS = {
    "type": "api_key",
    "prefix": "sk_live_",
    "audiences": ["orders"],
    "namespace": "key",
    "identity": {"subject": "key.owner", "scopes": "key.scopes", "tenant": "key.tenant"},
}
ALLOW = (200, [("Authorization", "Bearer a.b.c"), ("X-User-ID", "acme"), ("X-Tenant-ID", "-")])
PUBLIC = (200, [("Authorization", "-"), ("X-User-ID", "-"), ("X-Tenant-ID", "-")])
KEY = "sk_live_of-somebody"
SPELLINGS = ("X-API-Key", "x-api-key", "X-Api-KEY", "X_API_Key", "X-API_Key")


def request(headers, target="/orders/1"):
    return f"GET {target} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n{headers}\r\n".encode()


@pytest.mark.parametrize("says", [ALLOW, PUBLIC], ids=["allowed", "public"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_no_backend_sees_a_key_whatever_the_service_says_and_however_the_header_is_spelled(
    start_nginx, stand_in, backend, send, says, name
):
    """AK-01, FA-11."""
    stand_in.says = says
    answer = send(start_nginx(stand_in.port, backend.port), request(f"{name}: {KEY}\r\n"))
    assert answer.status == 200
    assert "sk_live_" not in json.dumps(answer.seen)
    (asked,) = stand_in.asked
    sent = [value for header, value in asked[2] if header == "x-api-key"]
    assert sent == ([KEY] if "_" not in name else [])  # two headers to a backend that takes `_` for `-` are none here


def test_without_a_key_the_service_sees_no_empty_header(start_nginx, stand_in, backend, send):
    """An empty one beside a token would be two credentials."""
    stand_in.says = ALLOW
    send(start_nginx(stand_in.port, backend.port), request("Authorization: Bearer a.b.c\r\n"))
    assert "x-api-key" not in dict(stand_in.asked[0][2])


@pytest.fixture
def service(make_service, idp):
    document = yaml.safe_load(minimal(idp))
    document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
    document["sources"]["partner-keys"] = KEYS
    document["clients"]["edge-gateway"]["sources"] = ["*"]
    return make_service(json.dumps(document))


def test_a_key_goes_the_whole_way(service, start_nginx, backend, send, idp):
    """AK-01, AK-03: the key becomes an internal token at the backend; beside a token, or twice, it opens nothing."""
    options = ["--owner", "acme", "--scope", "orders:read", "--tenant", "agency-7"]
    done = CliRunner().invoke(cli, ["api-keys", "create", *options, "--json", "-c", str(service.file)])
    key = json.loads(done.stdout)["key"]
    port = start_nginx(service.port, backend.port)
    wait_for(lambda: send(port, request(f"X-API-Key: {key}\r\n")).status == 200)
    for _ in range(3):
        seen = send(port, request(f"X-API-Key: {key}\r\nX-User-ID: admin\r\n")).seen
        assert service.verified(seen["headers"]["authorization"].removeprefix("Bearer "))["sub"] == "key|acme"
        assert (seen["headers"]["x-user-id"], seen["headers"]["x-tenant-id"]) == ("key|acme", "agency-7")
        assert key not in json.dumps(seen)
    count = len(backend.requests)
    for headers, target in (
        (f"X-API-Key: {key}\r\nAuthorization: Bearer {idp.token()}\r\n", "/orders/1"),
        (f"X-API-Key: {key[:-1]}\r\n", "/orders/1"),
        (f"X-API-Key: {key}x\r\n", "/orders/1"),
        (f"Authorization: Bearer {key}\r\n", "/orders/1"),
        (f"Cookie: X-API-Key={key}\r\n", "/orders/1"),
        ("", f"/orders/1?X-API-Key={key}&api_key={key}"),
    ):
        assert send(port, request(headers, target)).status == 401
    assert len(backend.requests) == count
    assert key not in service.log() + service.audit_file.read_text()
