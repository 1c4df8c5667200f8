"""docs/certificates.md as somebody follows it: its commands in their order, its settings, the real service."""

import os
import re
import ssl
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness import SECRET, Service, minimal, wait_for
from pki import Authority

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "certificates.md").read_text(encoding="utf-8")
MAKE_CA, MAKE_CRL, EXCHANGE, REVOKE = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
SETTINGS, CLIENT, PROXY = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))


class Reader:
    """Somebody in a directory, with the service that the page's settings make."""

    def __init__(self, directory, idp):
        self.directory = directory
        for commands in (MAKE_CA, MAKE_CRL):
            assert self.types(commands).returncode == 0
        ca = Authority("Server CA", now=time.time())
        server = ca.issue("sts", uris=(), ips=[ip_address("127.0.0.1")], purposes=[ExtendedKeyUsageOID.SERVER_AUTH])
        for name, text in {
            "server-ca.pem": ca.pem,
            "server.pem": server.pem,
            "server.key": server.key_pem,
            "secret": SECRET,
        }.items():
            (directory / name).write_text(text)
        document = yaml.safe_load(minimal(idp))
        document["sources"]["corporate-idp"].update({"audiences": ["*"], "namespace": ""})
        document["sources"].update(SETTINGS["sources"])
        document["clients"]["edge-gateway"].update(CLIENT["clients"]["edge-gateway"])
        document.update(listen=SETTINGS["listen"], **PROXY)
        tls = ssl.create_default_context(cadata=ca.pem)
        self.service = Service(directory, yaml.safe_dump(document), tls=tls)

    def types(self, commands):
        here = commands.replace("127.0.0.1:8443", f"127.0.0.1:{self.service.port}" if "8443" in commands else "")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-eu", "-c", here],
            cwd=self.directory,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def reader(tmp_path_factory, idp):
    reader = Reader(tmp_path_factory.mktemp("reader"), idp)
    yield reader
    assert reader.service.stop() == 0, reader.service.log()


def test_the_page_leads_to_a_token_and_to_its_end(reader):
    found = reader.types(EXCHANGE)
    assert found.returncode == 0, found
    assert '"sub": "partner|spiffe://partners.example/billing"' in found.stdout
    revoked = reader.types(REVOKE)
    assert revoked.returncode == 0, revoked
    wait_for(lambda: "refused with 400: revoked" in reader.types(EXCHANGE).stderr, every=0.5)


def test_the_lines_for_nginx_are_those_of_the_shipped_configuration():
    shipped = (ROOT / "deploy" / "gateways" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    for line in re.search(r"```nginx\n(.*?)```", PAGE, re.DOTALL)[1].splitlines():
        assert f"# {line}" in shipped
