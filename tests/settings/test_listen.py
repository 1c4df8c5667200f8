"""Where the service listens, and what must be said in writing for it."""

import os

import pytest

from sts.settings import SettingsError
from sts.settings import listen as listening
from sts.settings.asked import listening as asked

BEYOND = "listening beyond loopback needs `tls` (not supported yet) or `transport: "


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
