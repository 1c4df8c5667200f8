"""docs/design-notes.md defines every id that code, tests and pages cite."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "design-notes.md").read_text(encoding="utf-8")
FILES = sorted(
    file
    for folder in ("sts", "keys", "tests", "scripts", "docs", "deploy")
    for kind in ("*.py", "*.md", "*.yaml", "*.conf")
    for file in (ROOT / folder).rglob(kind)
)


def cited(pattern):
    """Yield what `pattern` finds in each file, with the file's name."""
    for file in FILES:
        if file != Path(__file__) and file.name != "design-notes.md":
            for found in re.findall(pattern, file.read_text(encoding="utf-8")):
                yield found, str(file.relative_to(ROOT))


@pytest.mark.parametrize(
    ("pattern", "row"),
    [
        (r"\bLIB-[A-Z][0-9]{2}\b", r"^\| (LIB-[A-Z][0-9]{2}) \|"),
        (r"\b[Ll]essons? ([23CR]\.[0-9]+)", r"^\| ([23CR]\.[0-9]+) \|"),
    ],
)
def test_every_id_that_is_cited_is_defined_once(pattern, row):
    defined = re.findall(row, PAGE, re.MULTILINE)
    assert len(defined) == len(set(defined))
    found = dict(cited(pattern))
    assert len(found) > 10
    assert {name: file for name, file in found.items() if name not in defined} == {}


def test_nothing_cites_a_document_that_is_not_in_the_repository():
    assert list(cited(r"design §|design\.md|lessons\.md|wire-formats\.md")) == []
