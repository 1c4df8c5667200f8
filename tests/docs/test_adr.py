"""The records of decisions: numbered without a gap, each number once, all of them in docs/architecture.md."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORDS = sorted((DOCS / "adr").glob("*.md"))


def test_each_number_stands_once_and_none_is_missing():
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_each_record_says_its_own_number():
    said = [re.match(r"# ([0-9]+)\. \w", record.read_text(encoding="utf-8")) for record in RECORDS]
    assert [said and int(said[1]) for said in said] == list(range(1, len(RECORDS) + 1))


def test_the_architecture_lists_each_record():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[([0-9]+)\]\(adr/([^)]+)\) \|", page, re.MULTILINE)
    assert listed == [(str(int(record.name[:4])), record.name) for record in RECORDS]
