"""`sts init`: a first configuration that works as it stands."""

import stat

import click
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from sts.cli.main import cli
from sts.clients.secret import digest
from sts.settings import load


@pytest.fixture
def init(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, ["init", *map(str, arguments)])


def secret_in(text):
    return text.partition("shown once:  ")[2].splitlines()[0]


def test_it_works_as_it_stands_and_prints_the_secret_once(init, tmp_path):
    result = init()
    assert result.exit_code == 0
    settings = load(tmp_path / "sts.yaml", {})
    secret = secret_in(result.stdout)
    assert settings.clients["edge-gateway"].secrets == (SecretStr(digest(secret)),)
    assert len(secret) == 43
    assert result.stdout.count(secret) == 1
    assert secret not in (tmp_path / "sts.yaml").read_text()
    assert [command in result.stdout for command in ("sts check\n", "sts serve\n", "sts exchange")] == [True] * 3


def test_only_its_owner_may_read_it(init, tmp_path):
    init()
    assert stat.S_IMODE((tmp_path / "sts.yaml").stat().st_mode) == 0o600


def test_it_is_never_written_over_an_existing_file(init, tmp_path):
    (tmp_path / "sts.yaml").write_text("mine")
    result = init()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "sts: sts.yaml exists and is never overwritten\n"
    assert (tmp_path / "sts.yaml").read_text() == "mine"


def test_a_dangling_link_is_not_followed(init, tmp_path):
    (tmp_path / "sts.yaml").symlink_to(tmp_path / "elsewhere")
    assert init().exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_is_made_and_named_in_the_next_commands(init, tmp_path):
    result = init("etc/my sts")
    assert load(tmp_path / "etc" / "my sts" / "sts.yaml", {}).var == tmp_path / "etc" / "my sts" / "var"
    assert "sts serve -c 'etc/my sts/sts.yaml'" in result.stdout


def test_a_folder_that_cannot_be_made_is_one_line_on_standard_error(init, tmp_path):
    (tmp_path / "file").write_text("")
    result = init("file/inside")
    assert result.exit_code == 1
    assert result.stderr.startswith("sts: file/inside/sts.yaml cannot be written: ")


def test_two_runs_make_two_secrets(init):
    assert secret_in(init("a").stdout) != secret_in(init("b").stdout)


def test_what_it_writes_passes_check(init):
    init()
    result = CliRunner().invoke(cli, ["check"])
    assert (result.exit_code, result.stdout[:27]) == (0, "sts.yaml: nothing is wrong:")


def test_no_draft_is_left_behind(init, tmp_path):
    init()
    init()
    assert [path.name for path in tmp_path.iterdir()] == ["sts.yaml"]


def test_the_secret_is_shown_before_there_is_a_configuration(init, tmp_path, monkeypatch):
    """Killed in between, it leaves nothing that the next run would have to write over."""
    there, echo = [], click.echo

    def look_first(*text, **way):
        there.append((tmp_path / "sts.yaml").exists())
        echo(*text, **way)

    monkeypatch.setattr(click, "echo", look_first)
    init()
    assert there == [False, True]


def test_a_configuration_that_another_run_has_finished_meanwhile_is_kept(init, tmp_path, monkeypatch):
    echo = click.echo

    def finish_first(*text, **way):
        (tmp_path / "sts.yaml").write_text("mine")
        echo(*text, **way)

    monkeypatch.setattr(click, "echo", finish_first)
    result = init()
    assert (result.exit_code, "exists and is never overwritten" in result.stderr) == (1, True)
    assert (tmp_path / "sts.yaml").read_text() == "mine"


def test_of_two_runs_at_once_no_secret_is_shown_for_the_other_ones_file(init, tmp_path, monkeypatch):
    echo, other = click.echo, []

    def run_another(*text, **way):
        monkeypatch.setattr(click, "echo", echo)
        other.append(init())
        echo(*text, **way)

    monkeypatch.setattr(click, "echo", run_another)
    result = init()
    assert result.exit_code == 1
    secret = secret_in(other[0].stdout)
    assert load(tmp_path / "sts.yaml", {}).clients["edge-gateway"].secrets == (SecretStr(digest(secret)),)
