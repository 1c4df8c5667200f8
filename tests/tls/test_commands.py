"""The commands that call a running service, where it speaks TLS; and who may use its Unix socket."""

import json
import os
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from harness import CLIENT, SECRET, minimal

from sts.cli.main import cli


def sts(*arguments, **more):
    result = CliRunner().invoke(cli, list(map(str, arguments)), **more)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def exchange(tls_service, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    url = f"https://127.0.0.1:{tls_service.port}"
    always = ("--url", url, "--client", CLIENT, "--secret-file", tmp_path / "secret", "--audience", "orders")
    return lambda *arguments, **more: sts("exchange", *always, *arguments, **more)


def test_health_asks_by_tls(tls_service, tmp_path):
    config = tmp_path / "sts.yaml"
    tls = "tls: {cert_file: gone.pem, key_file: gone.pem}"  # it is not asked what they hold
    config.write_text(f"listen: {{address: 127.0.0.1:{tls_service.port}, {tls}}}\n")
    assert sts("health", "-c", config, "--ready").stdout == "ready\n"
    at = ("health", "--listen", f"127.0.0.1:{tls_service.port}")
    assert sts(*at, "--tls").stdout == "alive\n"
    assert sts(*at).exit_code == 3


def test_exchange_believes_the_ca_that_it_is_told(exchange, pki, idp):
    result = exchange("--ca-file", pki.folder / "ca.pem", input=idp.token())
    assert (result.exit_code, result.stderr) == (0, "")
    stranger = exchange(input=idp.token())
    assert stranger.exit_code == 3
    assert "its certificate is not trusted" in stranger.stderr


def test_exchange_shows_a_certificate(exchange, pki, idp, tmp_path):
    mine = pki.ca.issue_cert("caller@example.com")
    mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mine.pem"))
    trusted = ("--ca-file", pki.folder / "ca.pem")
    assert exchange(*trusted, "--cert-file", tmp_path / "mine.pem", input=idp.token()).exit_code == 0
    other = pki.other.issue_cert("caller@example.com")
    other.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "other.pem"))
    assert exchange(*trusted, "--cert-file", tmp_path / "other.pem", input=idp.token()).exit_code == 3
    assert exchange(*trusted, "--cert-file", pki.folder / "ca.pem", input=idp.token()).exit_code == 2


def socket_in(tmp_path):
    return Path(tmp_path) / "sts.sock"


def listening(idp, listen):
    return json.dumps(yaml.safe_load(minimal(idp)) | {"listen": listen, "workers": 1})


def test_a_unix_socket_has_the_mode_and_the_group_that_are_written(idp, tmp_path, make_service):
    group = os.getgroups()[0] if os.getuid() else 4711
    listen = {"address": f"unix:{socket_in(tmp_path)}", "socket_mode": "0620", "socket_group": str(group)}
    service = make_service(listening(idp, listen), unix=socket_in(tmp_path))
    found = socket_in(tmp_path).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o620, group)
    assert service.exchange(idp.token()).status == 200


def test_a_group_that_is_not_there_stops_the_start(idp, tmp_path, make_service):
    listen = {"address": f"unix:{socket_in(tmp_path)}", "socket_group": "no-such-group"}
    service = make_service(listening(idp, listen), unix=socket_in(tmp_path), ready=False)
    assert service.process.wait(60) == 1
    assert "there is no such group" in service.log()
