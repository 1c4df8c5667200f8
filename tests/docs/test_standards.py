"""docs/standards.md is true: each row once, every test it names is there, every test that names a row is named."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAST = {
    "TE": 35,
    "EP": 10,
    "PK": 7,
    "MT": 7,
    "CN": 2,
    "AT": 12,
    "JW": 40,
    "IN": 15,
    "CA": 8,
    "RV": 6,
    "MD": 9,
    "JK": 9,
    "RO": 7,
    "ER": 2,
    "BE": 8,
    "FA": 11,
    "DP": 12,
    "AK": 3,
    "CC": 13,
    "XC": 14,
}
"""How many rows each family has."""
OPEN = ("**not built yet**", "**not applicable**")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("standards_docs", ROOT / "scripts" / "standards_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(script):
    return script.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(script):
    return script.shown(script.TESTS)


@pytest.fixture(scope="module")
def rows(script, page):
    return script.rows(page)


def test_every_row_stands_exactly_once_and_in_order(rows):
    wanted = [f"{family}-{number:02}" for family, last in LAST.items() for number in range(1, last + 1)]
    assert [row for row, _ in rows] == wanted


def test_every_row_is_whole(rows):
    for row, cells in rows:
        assert len(cells) == 6, row
        assert all(cells[:5]), row
        assert set(re.split(r"[/ >-]+", cells[2])) <= {"M", "S", "O", "House"}, row


def test_a_row_that_is_built_names_modules_that_are_there(rows):
    for row, cells in rows:
        named = re.findall(r"`((?:sts|keys|deploy)/[^`]+)`", cells[4])
        assert named or cells[4].startswith(OPEN), row
        assert [name for name in named if not (ROOT / name).is_file()] == [], row


def test_no_row_is_built_without_a_test(rows):
    assert [row for row, cells in rows if not cells[5] and not cells[4].startswith(OPEN)] == []


def test_a_row_that_is_not_built_says_what_will_bring_it_and_one_that_does_not_apply_why(rows):
    for row, cells in rows:
        if cells[4].startswith(OPEN):
            assert re.match(r"\*\*[a-z ]+\*\*: .{8}", cells[4]), row


def test_the_tests_that_are_named_are_those_that_name_the_row(script, page, shown):
    assert page == script.render(page, shown), "run: python scripts/standards_docs.py"


def test_no_test_names_a_row_that_there_is_not(shown, rows):
    assert set(shown) <= {row for row, _ in rows}


def test_a_page_that_lags_behind_is_seen(script, page, shown, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "shown", lambda _: shown)
    monkeypatch.setattr(script, "PAGE", tmp_path / "standards.md")
    script.PAGE.write_text(page.replace("::test_", "::test_not_", 1), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["standards_docs.py", "--check"])
    assert script.main() == 1
    assert "is out of date" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["standards_docs.py"])
    assert script.main() == 0
    assert script.PAGE.read_text(encoding="utf-8") == page


def test_a_docstring_is_what_counts(script, tmp_path):
    folder = tmp_path / "tests" / "part"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(
        'def test_one():\n    """JW-02, JW-01 and no. JW-011, XJW-03, PX-01."""\n\n\n'
        'def test_two():\n    "It is about JW-01."\n\n\ndef helper():\n    """JW-04."""\n\n\n'
        "def test_three():\n    assert True  # JW-05\n",
        encoding="utf-8",
    )
    one, two = "tests/part/test_it.py::test_one", "tests/part/test_it.py::test_two"
    assert script.shown(tmp_path / "tests") == {"JW-01": [one, two], "JW-02": [one]}
