"""`sts health`: what a container's health check asks."""

import contextlib
import socket
import threading

import pytest
from harness import free_port
from web import Web

from sts.cli import health


@pytest.fixture
def ask(sts, configure):
    """Ask the service that a configuration says is listening there."""

    def ask(listen, *arguments):
        config = configure(lambda document: document.update(listen=listen))
        return sts("health", "-c", config, *arguments)

    return ask


@pytest.fixture
def unwell():
    """A service that answers, and says that it is not ready; `seen` are the paths it was asked for."""

    server = Web(lambda handler: (server.seen.append(handler.path), handler.reply(status=503)))
    server.seen = []
    yield server
    server.close()


def test_a_service_that_is_well_ends_with_0(ask, service):
    listen = f"127.0.0.1:{service.port}"
    alive, ready = ask(listen), ask(listen, "--ready")
    assert (alive.exit_code, alive.stdout, alive.stderr) == (0, "alive\n", "")
    assert (ready.exit_code, ready.stdout, ready.stderr) == (0, "ready\n", "")


def test_one_that_answers_and_is_not_well_ends_with_1(ask, unwell):
    listen = f"127.0.0.1:{unwell.port}"
    result = ask(listen, "--ready")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "sts: /readyz answered 503\n")
    assert ask(listen).exit_code == 1
    assert unwell.seen == ["/readyz", "/healthz"]


def test_where_it_listens_everywhere_it_is_asked_on_loopback(ask, service):
    assert ask({"address": f"0.0.0.0:{service.port}", "transport": "terminated"}).exit_code == 0


def test_one_that_is_not_there_ends_with_3(ask, tmp_path):
    for listen in (f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}", f"unix:{tmp_path}/no.sock"):
        result = ask(listen)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "does not answer" in result.stderr


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_one_that_does_not_speak_http_or_not_at_all_ends_with_3(ask, monkeypatch, says):
    monkeypatch.setattr(health, "_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(says)
                    connection.recv(4096)
                    connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        result = ask(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join(60)
    assert (result.exit_code, result.stdout) == (3, "")


def test_a_faulty_configuration_ends_with_1(ask):
    result = ask("0.0.0.0:80")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "listen" in result.stderr


def test_a_file_that_became_faulty_says_nothing_about_the_service(sts, service, tmp_path):
    config = tmp_path / "sts.yaml"
    config.write_text(f"listen: 127.0.0.1:{service.port}\nissuer: 5\nbogus: 1\nsources: [x]\ninclude: [gone.yaml]\n")
    result = sts("health", "-c", config, "--ready")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ready\n", "")


def test_a_file_that_cannot_be_read_ends_with_1_and_a_line(sts, tmp_path):
    config = tmp_path / "sts.yaml"
    for text in ("listen: [\n", "- a\n", None):
        config.unlink(missing_ok=True)
        if text is not None:
            config.write_text(text)
        result = sts("health", "-c", config)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"sts: {config}")
        assert len(result.stderr.splitlines()) == 1


def test_it_asks_where_serve_was_told_to_listen_and_reads_no_file(sts, service, tmp_path):
    nowhere = tmp_path / "sts.yaml"
    for host in ("127.0.0.1", "localhost"):
        assert sts("health", "-c", nowhere, "--listen", f"{host}:{service.port}").exit_code == 0
    assert sts("health", "-c", nowhere, "--listen", f"127.0.0.1:{free_port()}").exit_code == 3
    wrong = sts("health", "-c", nowhere, "--listen", "here")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("sts: --listen  here  an address is")


def test_an_unknown_option_ends_with_2(sts):
    assert sts("health", "--now").exit_code == 2
