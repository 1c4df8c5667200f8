"""Each lesson of docs/design-notes.md has a test that names it in its docstring, such as "lesson 3.4"."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "design-notes.md").read_text(encoding="utf-8")
LESSONS = re.findall(r"^\| ([23CR]\.[0-9]+) \|", PAGE, re.MULTILINE)
_NAMED = re.compile(r"\b[Ll]essons? ((?:[0-9CR]+\.[0-9]+(?:, | and )?)+)")


def named():
    for file in TESTS.rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        for test in tests:
            for found in _NAMED.findall(ast.get_docstring(test) or ""):
                yield from re.findall(r"[0-9CR]+\.[0-9]+", found)


def test_each_lesson_has_a_test_and_each_test_a_lesson_that_there_is():
    assert set(named()) == set(LESSONS)
    assert len(LESSONS) == len(set(LESSONS)) == 43
