"""docs/callers.md as somebody reads it: its settings in one configuration, its commands typed against it, its nginx."""

import hashlib
import importlib.util
import json
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness import ISSUER, SECRET, Key, decoded, minimal

from scripts import nginx as real_nginx
from scripts import servers
from scripts.nginx import Nginx

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "callers.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
COMMANDS = [text.removeprefix("$ ") for text in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
SNIPPET = re.search(r"```nginx\n(.*?)```", PAGE, re.DOTALL)[1]
PROGRAM = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
CLIENTS = {name: client for block in BLOCKS for name, client in block.get("clients", {}).items()}


def written(folder, name, certificate):
    (folder / f"{name}.pem").write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
    (folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files that the page names, made as it says."""
    folder = tmp_path_factory.mktemp("page")
    ours, mesh = trustme.CA(), trustme.CA()
    (folder / "ca.pem").write_bytes(ours.cert_pem.bytes())
    (folder / "mesh-ca.pem").write_bytes(mesh.cert_pem.bytes())
    own = ours.issue_cert("localhost", "127.0.0.1")
    written(folder, "cert", own)
    (folder / "key.pem").write_bytes((folder / "cert.key").read_bytes())
    written(folder, "gateway", mesh.issue_cert("gateway.example.com"))
    pinned = trustme.CA()
    written(folder, "pinned-gateway", pinned.issue_cert("pinned.example.com"))
    (folder / "pinned.pem").write_bytes(pinned.cert_pem.bytes())
    batch = Key("batch-1", "ES256")
    (folder / "batch-gateway.jwks.json").write_text(json.dumps({"keys": [batch.jwk]}))
    pem = batch.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "batch.key").write_bytes(pem)
    (folder / "assertion.py").write_text(PROGRAM)
    return folder


@pytest.fixture(scope="module")
def document(folder, idp):
    """The page's clients and proxies beside those of the smallest configuration."""
    document = yaml.safe_load(minimal(idp)) | {"workers": 1}
    document["clients"] |= {name: dict(client) for name, client in CLIENTS.items()}
    der = ssl.PEM_cert_to_DER_cert((folder / "pinned-gateway.pem").read_text().partition("\n\n")[0])
    document["clients"]["pinned-gateway"]["certificates"] = ["sha256:" + hashlib.sha256(der).hexdigest()]
    document["clients"]["sidecar"]["uids"] = [os.getuid()]
    document["proxies"] = next(block["proxies"] for block in BLOCKS if "proxies" in block)
    document["listen"] = {
        "address": "127.0.0.1:0",
        "tls": next(b for b in BLOCKS if "ca_file" in str(b))["listen"]["tls"],
    }
    document["listen"]["tls"] = {
        name: str(folder / file)
        for name, file in {"cert_file": "cert.pem", "key_file": "key.pem", "ca_file": "pinned.pem"}.items()
    }
    for client in document["clients"].values():
        for key in ("ca_file", "jwks_file"):
            if key in client:
                client[key] = str(folder / client[key])
    return document


@pytest.fixture(scope="module")
def tls(folder):
    return ssl.create_default_context(cafile=folder / "ca.pem")


@pytest.fixture
def service(make_service, document, tls):
    return make_service(json.dumps(document), tls=tls)


@pytest.fixture
def typed(folder, idp):
    """Type a command of the page in the folder with its files; addresses and paths are this run's."""

    def typed(command, service):
        own = idp.token(aud=ISSUER, sub="partner-gateway", client_id="partner-gateway")
        command = command.replace("127.0.0.1:8443", f"127.0.0.1:{service.port}").replace(
            "python ", f"{sys.executable} "
        )
        command = command.replace("/run/sts/sts.sock", str(service.unix))
        done = subprocess.run(
            ["bash", "-eu", "-c", command.replace("curl ", "curl --silent --show-error --max-time 20 ")],
            env={**os.environ, "SECRET": SECRET, "TOKEN": idp.token(), "OWN_TOKEN": own},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return typed


def client_of(answer):
    found = json.loads(answer)
    assert "access_token" in found, found
    return decoded(found["access_token"])[1]["client_id"]


def commands(*marks):
    return [one for one in COMMANDS if any(mark in one for mark in marks)]


def test_every_command_at_the_tls_listener_gets_a_token_as_its_client(service, typed):
    """MT-01, PK-01, CC-09."""
    wanted = ["edge-gateway", "mesh-gateway", "mesh-gateway", "batch-gateway", "partner-gateway"]
    assert [client_of(typed(one, service)) for one in commands("https://127.0.0.1:8443")] == wanted


def test_the_hash_of_a_certificate_is_what_openssl_says(typed, service, folder):
    (command,) = commands("openssl dgst -sha256 -r")
    der = ssl.PEM_cert_to_DER_cert((folder / "pinned.pem").read_text())
    assert typed(command, service).split(" ")[0] == hashlib.sha256(der).hexdigest()


def test_a_pinned_certificate_proves_its_client(service, typed):
    """MT-03."""
    command = commands("--cert gateway.pem")[0].replace("gateway.pem", "pinned-gateway.pem")
    command = command.replace("gateway.key", "pinned-gateway.key").replace("mesh-gateway", "pinned-gateway")
    assert client_of(typed(command, service)) == "pinned-gateway"


def test_the_command_at_the_unix_socket_gets_a_token_as_its_client(make_service, document, typed, tmp_path):
    path = tmp_path / "sts.sock"
    plain = document | {"listen": f"unix:{path}"}
    running = make_service(json.dumps(plain), unix=path)
    (command,) = commands("--unix-socket")
    assert client_of(typed(command, running)) == "sidecar"


def test_sts_exchange_shows_the_same_certificate(service, folder, idp):
    asked = (
        "exchange",
        "--url",
        f"https://127.0.0.1:{service.port}",
        "--client",
        "mesh-gateway",
        "--audience",
        "orders",
    )
    files = ("--ca-file", "ca.pem", "--cert-file", "gateway.pem", "--key-file", "gateway.key")
    done = subprocess.run(
        [sys.executable, "-m", "sts", *asked, *files],
        input=idp.token(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claims"]["client_id"] == "mesh-gateway"


@pytest.fixture
def nginx(tmp_path, monkeypatch):
    """The shipped nginx with the page's lines in place of what they replace."""
    program = servers.find(servers.NGINX)
    if program is None:
        pytest.skip("no nginx is installed, and none could be")
    started = []

    def start(service, changes, backend=1):
        shipped = real_nginx.configuration

        def changed(directory, **ports):
            text = shipped(directory, **ports)
            for old, new in changes.items():
                assert old in text.replace(str(directory), ""), old
                text = text.replace(old, new)
            return re.sub(r"include \S*sts-secret.conf;", "", text)

        monkeypatch.setattr(real_nginx, "configuration", changed)
        directory = tmp_path / "nginx"
        directory.mkdir()
        started.append(Nginx(program, directory, services=[service.port], backend=backend, secret="unused"))
        return started[-1].port

    yield start
    for one in started:
        one.__exit__(None, None, None)


def through(port, token):
    """What a client of the gateway gets: 502 where it may pass, since there is no backend."""
    done = subprocess.run(
        [
            *("curl", "--silent", "-o", os.devnull, "-w", "%{http_code}", "-H", "Host: api.example.com"),
            *("-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}/orders/1"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout)


ASKED = "proxy_pass http://sts/forward-auth/edge-gateway;"


def test_nginx_proves_itself_with_its_certificate(service, nginx, folder, idp):
    """MT-01: the certificate alone; the secret's file is gone."""
    port = nginx(service, {ASKED: SNIPPET.replace("/etc/nginx/sts", str(folder))})
    assert through(port, idp.token()) == 502
    assert (service.events()[-1]["client"], service.events()[-1]["outcome"]) == ("mesh-gateway", "allowed")
    assert through(port, idp.token(exp=1)) == 401


def test_nginx_with_another_certificate_opens_nothing(service, nginx, folder, idp):
    snippet = SNIPPET.replace("/etc/nginx/sts", str(folder)).replace("gateway.pem", "pinned-gateway.pem")
    port = nginx(service, {ASKED: snippet.replace("gateway.key", "pinned-gateway.key")})
    assert through(port, idp.token()) == 403
    assert service.events()[-1]["reason"] == "client_refused"


def test_nginx_proves_itself_by_its_user_on_our_socket(make_service, document, nginx, idp, tmp_path):
    path = tmp_path / "sts.sock"
    running = make_service(json.dumps(document | {"listen": f"unix:{path}"}), unix=path)
    changes = {
        f"server 127.0.0.1:{running.port} ": f"server unix:{path} ",
        ASKED: ASKED.replace("edge-gateway", "sidecar"),
    }
    assert through(nginx(running, changes), idp.token()) == 502
    assert running.events()[-1]["client"] == "sidecar"


def test_the_check_of_a_bound_token_takes_its_holder_and_nobody_else(tmp_path):
    """MT-04, MT-05: docs/trust.md."""
    text = (DOCS / "trust.md").read_text(encoding="utf-8")
    (tmp_path / "bound.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    spec = importlib.util.spec_from_file_location("bound", tmp_path / "bound.py")
    bound = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bound)
    from sts.model import thumbprint  # noqa: PLC0415 - the rest of this file needs no code of ours

    claims = {"cnf": {"x5t#S256": thumbprint(b"certificate")}}
    assert bound.is_the_holders(claims, b"certificate")
    for other in (b"another", b"", None):
        assert not bound.is_the_holders(claims, other)
    assert not bound.is_the_holders({}, b"certificate")
