"""Where the service listens, and what must be said in writing for it."""

import os

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sts.settings import SettingsError, changes_needing_restart
from sts.settings import listen as listening
from sts.settings.asked import listening as asked

BEYOND = "listening beyond loopback needs `tls` or `transport: "


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "127.8.9.1:1", "[::1]:8080", "localhost:8080", "127.0.0.1:0", "unix:/run/sts.sock"]
)
def test_loopback_and_unix_sockets_need_nothing_in_writing(base, loaded, address):
    settings = loaded(base | {"listen": address})
    assert settings.listen.bind == address
    assert settings.listen.is_unix == address.startswith("unix:")


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:8080", "[::]:8080", "10.1.2.3:8080", "[::ffff:10.0.0.1]:80", "sts.internal:80", "localhost.evil.com:80"],
)
def test_beyond_loopback_the_transport_must_be_written(base, only_fault, loaded, address):
    """EP-02."""
    fault = only_fault(base | {"listen": address})
    assert fault.path == "listen"
    assert fault.problem.startswith(BEYOND)
    for transport in ("terminated", "mesh"):
        assert loaded(base | {"listen": {"address": address, "transport": transport}}).listen.bind == address


@pytest.mark.parametrize(
    "address",
    ["8080", ":8080", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x", "::1:8080", "unix:", "http://127.0.0.1:1", ""],
)
def test_what_is_no_address_is_a_fault(base, only_fault, address):
    assert only_fault(base | {"listen": address}).path == "listen"


@pytest.mark.parametrize("written", [8080, 80.5, True, [8080], ["127.0.0.1:8080"]])
def test_what_is_neither_text_nor_mapping_is_told_what_an_address_is(base, only_fault, write, written):
    forms = 'an address is "127.0.0.1:8080", "[::1]:8080" or "unix:/run/sts/sts.sock"'
    fault = only_fault(base | {"listen": written})
    assert (fault.path, fault.problem) == ("listen", forms)
    with pytest.raises(SettingsError, match="an address is"):
        asked(write({"listen": written}))


def test_another_transport_is_a_fault(base, only_fault):
    fault = only_fault(base | {"listen": {"address": "0.0.0.0:8080", "transport": "plain"}})
    assert fault.path == "listen.transport"
    assert "'terminated', 'mesh'" in fault.problem


def test_a_relative_unix_socket_counts_from_the_configuration(base, loaded, tmp_path):
    assert loaded(base | {"listen": "unix:run/sts.sock"}).listen.bind == f"unix:{tmp_path}/run/sts.sock"


def test_the_mode_of_a_unix_socket_is_octal_and_closed_to_others(base, loaded, only_fault):
    assert loaded(base | {"listen": "unix:/a"}).listen.socket_mode == 0o660
    listen = {"address": "unix:/a", "socket_mode": "0600"}
    assert loaded(base | {"listen": listen}).listen.socket_mode == 0o600
    for wrong in (432, "0888", "rw", "0666"):
        listen["socket_mode"] = wrong
        assert only_fault(base | {"listen": listen}).path == "listen.socket_mode"


@pytest.fixture
def certificate(tmp_path):
    """A certificate of ours and its key, as files beside the configuration."""
    made = trustme.CA().issue_cert("sts.example.internal")
    (tmp_path / "cert.pem").write_bytes(made.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(made.private_key_pem.bytes())
    return {"cert_file": "cert.pem", "key_file": "key.pem"}


def test_beyond_loopback_tls_of_our_own_is_enough(base, loaded, certificate):
    """EP-02."""
    settings = loaded(base | {"listen": {"address": "0.0.0.0:8443", "tls": certificate}})
    assert settings.listen.tls.cert_file.content.startswith(b"-----BEGIN CERTIFICATE")
    assert settings.listening_at("0.0.0.0:9443").listen.tls == settings.listen.tls
    assert "PRIVATE KEY" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("listen", "path"),
    [
        ({"address": "0.0.0.0:1", "transport": "mesh"}, "listen"),
        ({"address": "unix:/run/sts.sock"}, "listen"),
        ({"address": "127.0.0.1:1", "socket_group": "nginx"}, "listen"),
        ({"address": "127.0.0.1:1", "tls": {"cert_file": "cert.pem"}}, "listen.tls.key_file"),
        ({"address": "127.0.0.1:1", "tls": {"cert_file": "cert.pem", "key_file": "none.pem"}}, "listen.tls"),
        ({"address": "127.0.0.1:1", "tls": {"cert_file": "key.pem", "key_file": "key.pem"}}, "listen.tls"),
        ({"address": "127.0.0.1:1", "tls": {"cert_file": "cert.pem", "key_file": "cert.pem"}}, "listen.tls"),
        ({"address": "127.0.0.1:1", "tls": {"cert_file": "cert.pem", "key_file": "locked.pem"}}, "listen.tls"),
        (
            {"address": "127.0.0.1:1", "tls": {"cert_file": "cert.pem", "key_file": "key.pem", "ca_file": "key.pem"}},
            "listen.tls",
        ),
    ],
    ids=["and transport", "unix", "group of no socket", "no key", "none", "swapped", "no key in it", "locked", "no CA"],
)
def test_faults_of_tls_are_found_at_load(base, only_fault, certificate, tmp_path, listen, path):
    key = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "locked.pem").write_bytes(locked)
    fault = only_fault(base | {"listen": {"tls": certificate} | listen})
    assert fault.path == path


def test_only_the_content_of_tls_files_changes_without_a_restart(base, loaded, certificate, tmp_path):
    listen = {"address": "127.0.0.1:8443", "tls": certificate}
    before = loaded(base | {"listen": listen})
    renewed = trustme.CA().issue_cert("sts.example.internal")
    (tmp_path / "cert.pem").write_bytes(renewed.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(renewed.private_key_pem.bytes())
    after = loaded(base | {"listen": listen})
    assert changes_needing_restart(before, after) == ()
    assert before.revision != after.revision
    plain = loaded(base | {"listen": {"address": "127.0.0.1:8443"}})
    assert changes_needing_restart(before, plain) == changes_needing_restart(plain, before) == ("listen",)
    moved = loaded(base | {"listen": listen | {"address": "127.0.0.1:8444"}})
    assert changes_needing_restart(before, moved) == ("listen",)


def test_a_command_may_name_another_address_under_the_same_law(base, loaded):
    settings = loaded(base)
    moved = settings.listening_at("127.0.0.1:9999")
    assert (moved.listen.bind, settings.listen.bind) == ("127.0.0.1:9999", "127.0.0.1:8080")
    with pytest.raises(SettingsError, match="beyond loopback"):
        settings.listening_at("0.0.0.0:9999")
    written = loaded(base | {"listen": {"address": "0.0.0.0:8080", "transport": "mesh"}})
    assert written.listening_at("0.0.0.0:9999").listen.transport == "mesh"


@pytest.mark.parametrize(
    ("quota", "workers"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("?", 4)]
)
def test_workers_follow_the_quota_of_the_container(monkeypatch, tmp_path, quota, workers):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(listening, "CPU_QUOTA", tmp_path / "cpu.max")
    assert listening.available_cpus() == workers


def test_without_a_quota_every_processor_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(listening, "CPU_QUOTA", tmp_path / "absent")
    assert listening.available_cpus() == len(os.sched_getaffinity(0))
