"""`sts check`, and what every command does with a configuration that is faulty."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from sts.cli import main
from sts.cli.main import cli
from sts.errors import StartError

MINIMAL = Path(__file__).resolve().parents[1] / "settings" / "data" / "minimal.yaml"


@pytest.fixture
def run():
    """Run `sts` with arguments; standard output and error apart."""
    return lambda *arguments, **more: CliRunner().invoke(cli, list(map(str, arguments)), **more)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "sts.yaml"
    path.write_text(MINIMAL.read_text())
    return path


def test_a_right_configuration_is_one_line_with_counts_and_one_with_sizes(run, config):
    result = run("check", config)
    assert (result.exit_code, result.stderr) == (0, "")
    counted, sizes = result.stdout.splitlines()
    assert counted == f"{config}: nothing is wrong: 1 client, 1 source, 2 audiences, 4 routes"
    assert re.fullmatch(r"estimated bytes of a token: orders [0-9]+, billing [0-9]+", sizes)


def test_a_warning_is_no_fault(run, config):
    text = config.read_text().replace("  orders:\n", "  orders:\n    max_token_bytes: 300\n")
    config.write_text(text)
    line = text.splitlines().index("    max_token_bytes: 300") + 1
    result = run("check", config)
    assert result.exit_code == 0
    first, hint, counted, _ = result.stdout.splitlines()
    place = f"{config}:{line}  audiences.orders.max_token_bytes  warning: a typical token has about "
    assert first.startswith(place)
    assert hint.startswith("    → map fewer")
    assert counted == f"{config}: nothing is wrong: 1 client, 1 source, 2 audiences, 4 routes, 1 warning"
    effective = run("check", config, "--effective")
    assert effective.stderr.startswith(place)
    assert yaml.safe_load(effective.stdout)["audiences"]["orders"]["max_token_bytes"] == 300


def test_every_fault_is_listed_with_file_line_path_and_what_would_be_right(run, config, tmp_path):
    (tmp_path / "more.yaml").write_text("audiences:\n  extra: {tttl: 5m}\n")
    config.write_text(config.read_text() + "include: [more.yaml]\ntreads: 8\nthreads: many\n")
    result = run("check", config)
    line = config.read_text().splitlines().index("treads: 8") + 1
    assert result.exit_code == 1
    assert result.stdout == (
        f"{tmp_path}/more.yaml:2  audiences.extra.tttl  unknown key\n"
        f"    → did you mean `ttl`?\n"
        f"\n"
        f"{config}:{line}  treads  unknown key\n"
        f"    → did you mean `threads`?\n"
        f"{config}:{line + 1}  threads  must be a whole number\n"
        f"    → without quotes\n"
        f"3 faults in 2 files\n"
    )


def test_long_lines_are_not_broken_on_a_pipe(run, config):
    config.write_text(
        config.read_text().replace("allow: \"'accountant'", "allow: \"'" + "x" * 300 + "' in identity.nothing || 'a'")
    )
    result = run("check", config)
    assert result.exit_code == 1
    assert all(line.startswith((str(config), "    → ", "1 fault")) for line in result.stdout.splitlines())


def test_what_a_file_holds_cannot_drive_the_terminal_or_fake_a_line(run, config):
    config.write_text(config.read_text() + '"a\\e[2Jb\\nsts.yaml: nothing is wrong": 1\n"[red]x": 2\n')
    result = run("check", config)
    assert "\x1b" not in result.stdout
    assert "a\\x1b[2Jb\\nsts.yaml" in result.stdout
    assert "[red]x" in result.stdout


def test_the_configuration_comes_from_the_option_the_environment_or_this_folder(run, config, monkeypatch, tmp_path):
    assert run("check", "-c", config).exit_code == 0
    assert run("check", env={"STS_CONFIG": str(config)}).exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert run("check").stdout.startswith("sts.yaml: nothing is wrong")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = run("check")
    assert result.exit_code == 1
    assert "sts.yaml  cannot be read: No such file or directory\n    → `sts init` writes a first one" in result.stdout


def test_the_configuration_in_force_is_yaml_with_masked_secrets(run, config):
    result = run("check", config, "--effective")
    assert result.exit_code == 0
    assert result.stdout.startswith("# revision ")
    shown = yaml.safe_load(result.stdout)
    assert shown["threads"] == 64
    assert shown["clients"]["edge-gateway"]["secrets"] == ["**********"]


def test_a_faulty_configuration_is_not_in_force(run, config):
    config.write_text(config.read_text() + "treads: 8\n")
    result = run("check", config, "--effective")
    assert result.exit_code == 1
    assert "revision" not in result.stdout


def test_the_schema_needs_no_file(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = run("check", "--schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"]["issuer"]["description"]


def test_usage_is_exit_status_2(run):
    assert run("check", "--bogus").exit_code == 2
    assert run("bogus").exit_code == 2


def test_other_commands_show_the_faults_on_standard_error(run, config):
    config.write_text(config.read_text() + "treads: 8\n")
    result = run("keys", "list", "-c", config)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "treads  unknown key\n    → did you mean `threads`?\nsts: 1 fault\n" in result.stderr


def test_what_cannot_start_says_so_on_one_line(monkeypatch, run):
    def fails(*_args, **_kwargs):
        raise StartError("there is no\nring")

    monkeypatch.setattr("sts.settings.examine", fails)
    result = run("check", MINIMAL)
    assert (result.exit_code, result.stderr) == (1, "sts: there is no\\nring\n")


@pytest.mark.parametrize("command", sorted(main._COMMANDS))
def test_each_command_says_what_it_does_and_lists_its_exit_statuses(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "\\b" not in result.stdout
    groups = {"keys", "api-keys", "clients", "shadow", "backends", "revocations", "state"}  # their commands have it
    if command not in groups:
        assert "Exit status" in result.stdout
        assert f"sts {command}" in result.stdout


def test_help_lists_every_command_and_imports_none_of_them():
    code = (
        "import sys\nfrom sts.cli.main import cli\n"
        "try:\n    cli(['--help'], prog_name='sts')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pydantic', 'flask', 'rich', 'joserfc', 'yaml'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    assert all(f"  {name} " in shown for name in main._COMMANDS)


def test_the_version_is_printed(run):
    assert run("version").stdout.startswith("sts 0.")
    option = run("--version")
    assert (option.exit_code, option.stdout) == (0, run("version").stdout)


def test_a_terminal_gets_colours_and_a_pipe_does_not(tmp_path):
    check = [sys.executable, "-c", "from sts.cli.main import main; main()", "check", str(tmp_path / "absent.yaml")]
    piped = subprocess.run(check, capture_output=True, check=False).stdout
    ours, theirs = pty.openpty()
    subprocess.run(check, stdout=theirs, check=False, env=os.environ | {"TERM": "xterm-256color"})
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert (b"\x1b[" in shown, b"\x1b[" in piped) == (True, False)
