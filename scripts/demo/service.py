"""The token service as an operator runs it: `sts serve` under gunicorn, `sts keys …`, and calls over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import urllib3

from scripts.nginx import PATIENCE_S, await_port, free_port, stop

ISSUER: Final = "https://sts.example.internal"
CLIENT: Final = "edge-gateway"
SECRET: Final = "edge-gateway-secret-for-tests-only"  # noqa: S105 - the one whose hash the client below holds
GATEWAY: Final = """\
clients:
  edge-gateway:
    auth: secret
    secrets: ["sha256:346166fccc2baaf9c0e989c00ad085a5c32aefc1e2a61d97d4058388450240ad"]
    audiences: [orders]
"""
"""The gateway that all services of the demo know; a configuration may add to it."""
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
_STS: Final = str(Path(sys.executable).with_name("sts"))

# Like the smallest useful configuration in the documentation. The `keys:` numbers are short, so that a rotation can be
# shown within seconds; the guard that they feed is the real one.
GUARD_S: Final = 6.25  # what the numbers under `keys:` add up to
CONFIGURATION: Final = (
    """\
issuer: {issuer}
listen: 127.0.0.1:{port}
workers: 2
audit: {{file: audit.jsonl, flush: 0}}
keys: {{jwks_max_age: 1s, verifier_refresh: 4s, clock_skew: 1s, poll: 250ms}}

"""
    + GATEWAY
    + """\
    profile: nginx

sources:
  corporate-idp:
    type: jwt
    issuer: https://idp.example.com
    jwks_uri: {jwks_uri}
    algorithms: [RS256, ES256]
    audience: api-gateway
    identity:
      subject: claims.sub
      scopes: claims.scope
      roles: claims.roles
      tenant: claims.agency_id

audiences:
  orders:
    ttl: 5m
    scopes: [orders:read, orders:write]
    claims: {{tenant: identity.tenant, roles: identity.roles}}
    headers: {{X-User-ID: identity.subject, X-Tenant-ID: identity.tenant}}
  billing:                      # the gateway may not ask for this one
    ttl: 2m
    scopes: [billing:read]

routes:
  orders-read: {{host: api.example.com, path: "/orders/**", methods: [GET], audience: orders, scopes: ["orders:read"]}}
  health: {{host: api.example.com, path: /health, public: true}}
"""
)


@dataclass(frozen=True)
class Answer:
    """One answer of the service: status, headers, JSON body ({} where there is none), and how long it took in ms."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    milliseconds: float


class Service(AbstractContextManager["Service"]):
    """A running service in `directory`; `port` is where it listens. `cpu` pins it to these processors.

    `tls` is whom a caller trusts, for a configuration that listens with TLS.
    """

    def __init__(
        self,
        directory: Path,
        jwks_uri: str,
        configuration: str = CONFIGURATION,
        cpu: set[int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = free_port()
        self._directory = directory
        self._log = directory / "serve.log"
        text = configuration.format(issuer=ISSUER, port=self.port, jwks_uri=jwks_uri)
        (directory / "sts.yaml").write_text(text, encoding="utf-8")
        # Nothing of the caller's own service may get in.
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("STS_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [_STS, "serve"],
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if cpu is not None:  # at once, so that the workers, forked much later, inherit it
            os.sched_setaffinity(self._process.pid, cpu)
        # One kept connection stays with one worker, so that its second request meets that worker's cache.
        self.connection = (
            urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=1, block=True, retries=False)
            if tls is None
            else urllib3.HTTPSConnectionPool(
                "127.0.0.1", self.port, maxsize=1, block=True, retries=False, ssl_context=tls
            )
        )
        try:
            await_port(self.port, self._process, self._log)
            self._await_ready()
        except RuntimeError:
            stop(self._process)
            raise

    def _await_ready(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if _call(self.connection, "GET", "/readyz", {}).status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the service is not ready:\n{self.log[-4000:]}")

    def __enter__(self) -> Self:
        """Running already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and wait for its end."""
        self.connection.close()
        stop(self._process)

    @property
    def pid(self) -> int:
        """The process id of its master."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run `sts ARGUMENTS` as the operator would; returns exit status and everything it printed."""
        done = subprocess.run(
            [_STS, *arguments],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.strip()

    def exchange(self, token: str, audience: str = "orders", pool: urllib3.HTTPConnectionPool | None = None) -> Answer:
        """Exchange `token` at `POST /token` (RFC 8693 §2.1)."""
        fields = [
            ("grant_type", GRANT_TYPE),
            ("subject_token", token),
            ("subject_token_type", JWT_TYPE),
            ("audience", audience),
        ]
        headers = urllib3.make_headers(basic_auth=f"{CLIENT}:{SECRET}")
        return _call(pool or self.connection, "POST", "/token", headers, fields)

    def forward_auth(self, headers: dict[str, str]) -> Answer:
        """Ask the forward-auth door the way nginx would."""
        return _call(self.connection, "GET", f"/forward-auth/{CLIENT}", {"X-Gateway-Secret": SECRET, **headers})

    def signing_keys(self) -> list[str]:
        """Key ids that the JWKS shows, in its order."""
        body = _call(self.connection, "GET", "/.well-known/jwks.json", {}).body
        return [key["kid"] for key in body["keys"]]

    def audited(self) -> list[dict[str, Any]]:
        """Read the audit events so far."""
        lines = (self._directory / "audit.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def log(self) -> str:
        """What the service printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _call(
    pool: urllib3.HTTPConnectionPool,
    method: str,
    path: str,
    headers: dict[str, str],
    fields: list[tuple[str, str]] | None = None,
) -> Answer:
    started = time.perf_counter()
    extra: dict[str, Any] = {} if fields is None else {"fields": fields, "encode_multipart": False}
    reply = pool.request(method, path, headers=headers, retries=False, redirect=False, **extra)
    milliseconds = (time.perf_counter() - started) * 1000
    body = json.loads(reply.data) if "json" in reply.headers.get("Content-Type", "") else {}
    return Answer(reply.status, {name.lower(): value for name, value in reply.headers.items()}, body, milliseconds)
