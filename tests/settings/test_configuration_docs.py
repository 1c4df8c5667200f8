"""docs/configuration.md says what the code declares."""

import importlib.util
from pathlib import Path

import pytest

from sts.settings import Settings, schema

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("configuration_docs", ROOT / "scripts" / "configuration_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_would_write(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.render(), "run: python scripts/configuration_docs.py"


def test_every_setting_has_its_row_and_its_words(script):
    page = script.render()
    sections = {model.__name__ for _, model, _ in script.sections()}
    assert set(schema()["$defs"]) <= sections
    for _, model, _ in script.sections():
        for name, field in model.model_fields.items():
            assert f"| `{name}` |" in page
            assert field.description, f"{model.__name__}.{name} has no docstring"


def test_a_page_that_lags_behind_is_seen(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "PAGE", tmp_path / "configuration.md")
    monkeypatch.setattr("sys.argv", ["configuration_docs.py"])
    assert script.main() == 0
    monkeypatch.setattr("sys.argv", ["configuration_docs.py", "--check"])
    assert script.main() == 0
    monkeypatch.setattr(Settings, "not_yet", Settings.not_yet | {"something_new"})
    assert script.main() == 1
    assert "is out of date" in capsys.readouterr().err
