"""Writes the last column of docs/standards.md: the tests that show a row are those that name it in their docstring.

python scripts/standards_docs.py            writes the column
python scripts/standards_docs.py --check    exit status 1 if the page is not what would be written
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "standards.md"
TESTS: Final = ROOT / "tests"
FAMILIES: Final = (
    *("TE", "EP", "PK", "MT", "CN", "AT", "JW", "IN", "CA", "RV", "MD", "JK", "RO"),
    *("ER", "BE", "FA", "DP", "AK", "CC", "XC"),
)
"""The rows that the page is about."""

_ID: Final = re.compile(rf"\b(?:{'|'.join(FAMILIES)})-[0-9]{{2}}\b")
_ROW: Final = re.compile(rf"^\| ({_ID.pattern}) \|")


def shown(tests: Path) -> dict[str, list[str]]:
    """Return the ids of the tests in `tests`, by the rows that their docstrings name; imports and runs no test."""
    found = defaultdict(list)
    for file in sorted(tests.rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                name = f"{file.relative_to(tests.parent).as_posix()}::{node.name}"
                for row in sorted(set(_ID.findall(ast.get_docstring(node) or ""))):
                    found[row].append(name)
    return dict(found)


def rows(page: str) -> list[tuple[str, list[str]]]:
    """Each row of the page: its id, and its cells."""
    lines = [line for line in page.splitlines() if _ROW.match(line)]
    return [(cells[0], cells) for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)]


def render(page: str, tests: dict[str, list[str]]) -> str:
    """Return the page with a new last column."""
    return "\n".join(_line(line, tests) for line in page.split("\n"))


def _line(line: str, tests: dict[str, list[str]]) -> str:
    match = _ROW.match(line)
    if match is None:
        return line
    *kept, _, _ = line.split("|")
    return "|".join([*kept, f" {'<br>'.join(f'`{name}`' for name in tests.get(match[1], []))} |"])


def main() -> int:
    """Write the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    written = render(page, shown(TESTS))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written, encoding="utf-8")
    elif written != page:
        print(f"{PAGE} is out of date: run python scripts/standards_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
