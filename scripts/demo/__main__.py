"""Run the demo: `make demo`, or `python -m scripts.demo`. Exit status 0 only if each step did what it says."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from scripts import servers
from scripts.demo import steps
from scripts.demo.api_keys import api_keys
from scripts.demo.backend import Backend, Verifier
from scripts.demo.certificates import mutual_tls
from scripts.demo.encryption import CONFIGURATION_WITH_LEDGER, Ledger, encrypted
from scripts.demo.opaque import opaque
from scripts.demo.provider import Provider
from scripts.demo.rotation import rotation
from scripts.demo.service import ISSUER, SECRET, Service
from scripts.demo.show import Stage
from scripts.nginx import Nginx


def main() -> int:
    """Start everything on free ports of the loopback, show the steps, stop everything."""
    started = time.monotonic()
    stage = Stage()
    with tempfile.TemporaryDirectory(prefix="sts-demo-") as folder, contextlib.ExitStack() as running:
        directory = Path(folder)
        service: Service | None = None
        try:
            stage.step("An identity provider, the token service under gunicorn, a backend, a gateway")
            provider = running.enter_context(Provider())
            ledger = Ledger(directory)
            service = running.enter_context(Service(directory, provider.jwks_uri, CONFIGURATION_WITH_LEDGER))
            verifier = Verifier(ISSUER, f"{service.url}/.well-known/jwks.json")
            backend = running.enter_context(Backend(verifier))
            nginx = _nginx(directory, service, backend, running)
            stage.table(
                ("who", "what", "where"),
                [
                    ("provider", "RSA and EC keys of its own, JWKS over HTTP", provider.jwks_uri),
                    ("service", "sts serve, 2 workers", service.url),
                    ("backend", "verifies by JWKS with PyJWT", f"http://127.0.0.1:{backend.port}"),
                    ("gateway", "nginx" if nginx else "none installed", f"http://127.0.0.1:{nginx}" if nginx else None),
                ],
            )
            steps.exchange(stage, provider, service, verifier)
            steps.refusals(stage, provider, service)
            steps.cached(stage, provider, service)
            steps.forward_auth(stage, provider, service, verifier, nginx)
            encrypted(stage, provider, service, ledger)
            mutual_tls(stage, directory)
            opaque(stage, directory)
            api_keys(stage, directory)
            rotation(stage, provider, service, verifier)
        except Exception as fault:  # noqa: BLE001 - whatever broke, the reader learns what and where to look
            stage.fault(f"the demo broke off: {type(fault).__name__}: {fault}")
        if stage.failed and service is not None:
            stage.say("the service's log ends with:\n" + service.log[-3000:])
    return stage.end(time.monotonic() - started)


def _nginx(directory: Path, service: Service, backend: Backend, running: contextlib.ExitStack) -> int | None:
    program = servers.find(servers.NGINX)
    if program is None:
        return None
    folder = directory / "nginx"
    folder.mkdir()
    nginx = Nginx(program, folder, services=[service.port], backend=backend.port, secret=SECRET)
    return running.enter_context(nginx).port


if __name__ == "__main__":
    sys.exit(main())
