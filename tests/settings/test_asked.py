"""`listen` alone: where a running service is asked, whatever has become of its file."""

import subprocess
import sys

import pytest

from sts.settings import SettingsError, listening, listening_at, load
from sts.settings.listen import Listen


def test_it_is_what_loading_the_whole_would_give(base, write):
    for listen in ("127.0.0.1:9", {"address": "0.0.0.0:9", "transport": "mesh"}, "unix:run/sts.sock", None):
        if listen is not None:
            base["listen"] = listen
        else:
            del base["listen"]
        path = write(base)
        assert listening(path) == load(path, {}).listen


def test_what_is_wrong_elsewhere_is_not_looked_at(write):
    path = write("listen: 127.0.0.1:9\nbogus: 1\nclients: [a]\nclients: {}\ninclude: [nowhere.yaml]\nissuer:\n")
    assert listening(path).bind == "127.0.0.1:9"
    assert listening(write("bogus: 1\n")).bind == "127.0.0.1:8080"
    assert listening(write("listen:\n")).bind == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("text", "line", "path"),
    [
        ("a: 1\nlisten: 0.0.0.0:80\n", 2, "listen"),
        ("listen:\n  address: 127.0.0.1:1\n  adress: x\n", 3, "listen.adress"),
        ("listen: {}\n", 1, "listen.address"),
        ("listen: [\n", 2, ""),
        ("- a\n", 1, ""),
    ],
)
def test_what_is_wrong_in_it_or_in_the_yaml_is_told_with_its_line(write, text, line, path):
    with pytest.raises(SettingsError) as caught:
        listening(write(text))
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [(line, path)]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        listening(tmp_path / "sts.yaml")


def test_an_address_that_is_only_asked_may_be_anywhere_and_one_that_is_bound_may_not(monkeypatch, tmp_path):
    assert listening_at("0.0.0.0:80").bind == "0.0.0.0:80"
    with pytest.raises(SettingsError, match="beyond loopback"):
        listening_at("0.0.0.0:80", Listen(address="127.0.0.1:1"))
    monkeypatch.chdir(tmp_path)
    assert listening_at("unix:s.sock").bind == f"unix:{tmp_path}/s.sock"
    with pytest.raises(SettingsError, match="--listen"):
        listening_at("here")


def test_asking_imports_neither_rules_nor_keys_nor_the_door():
    code = (
        "import sys\nimport sts.cli.health\nfrom sts.settings import listening\n"
        "print(sorted({'flask', 'joserfc', 'cel_expr_python', 'cryptography', 'urllib3', 'structlog', 'rich'}"
        " & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


def test_a_name_that_is_not_offered_is_no_attribute():
    import sts.settings  # noqa: PLC0415 - as a module

    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = sts.settings.nothing_of_the_kind
    assert all(getattr(sts.settings, name) for name in sts.settings.__all__)
    assert callable(sts.settings.load)
