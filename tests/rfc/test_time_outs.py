"""Who says no when something hangs: the service, before the gateway in front of it gives up."""

import re
import time
from pathlib import Path

import pytest

NGINX = Path(__file__).resolve().parents[2] / "deploy" / "gateways" / "nginx" / "nginx.conf"


@pytest.fixture
def hanging(make_idp):
    """A provider that takes every connection and never answers."""
    provider = make_idp(issuer="https://hanging.example.com")
    provider.answer = lambda handler: handler.owner.over.wait(60)
    return provider


def test_a_hanging_issuer_is_given_up_before_the_gateway_gives_us_up(make_service, hanging):
    """FA-10, BE-08: with the shipped nginx configuration the answer is ours, a 503 that says why."""
    patience = min(int(seconds) for seconds in re.findall(r"proxy_read_timeout (\d+)s", NGINX.read_text("utf-8")))
    running = make_service(f"""
issuer: https://sts.example.internal
workers: 1
clients:
  edge-gateway:
    auth: secret
    secrets: ["sha256:346166fccc2baaf9c0e989c00ad085a5c32aefc1e2a61d97d4058388450240ad"]
    audiences: [orders]
    profile: nginx
sources:
  hanging:
    type: jwt
    issuer: {hanging.issuer}
    jwks_uri: {hanging.url}
    algorithms: [RS256]
    audience: api-gateway
    identity: {{subject: claims.sub}}
audiences: {{orders: {{}}}}
routes: {{orders: {{path: "/orders/**", audience: orders}}}}
""")
    began = time.monotonic()
    answer = running.forward(hanging.token())
    took = time.monotonic() - began
    assert (answer.status, answer.reason) == (503, "source_unreachable")
    assert took < patience
