"""The table of docs/architecture.md has a line for every part of the service."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def rows():
    """The rows of the layout's table: the modules in the first column, and the text of the second."""
    table = PAGE.read_text(encoding="utf-8").partition("| module |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        _, modules, text, _ = row.split("|")
        yield re.findall(r"`([^`]+)`", modules), text


def there():
    """What stands at the top of `sts/`, and the package `keys`."""
    modules = {f"sts/{path.name}" for path in (ROOT / "sts").glob("*.py") if not path.name.startswith("__")}
    return modules | {f"sts/{path.parent.name}/" for path in (ROOT / "sts").glob("*/__init__.py")} | {"keys/"}


def test_every_top_level_module_has_its_line_and_every_line_its_module():
    assert {module for modules, _ in rows() for module in modules} == there()


def test_every_file_that_a_line_speaks_of_stands_there():
    named = [(ROOT / modules[0] / file, file) for modules, text in rows() for file in re.findall(r"`(\w+\.py)`", text)]
    assert named
    assert [file for path, file in named if not path.is_file()] == []
