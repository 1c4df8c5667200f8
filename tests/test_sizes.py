"""Rooms stay small: modules of at most 500 lines, functions of about 40 beside their docstring, with a little air."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES = 500
FUNCTION_LINES = 45
THE_WAY_LINES = 130  # read in a minute


def modules():
    return [path for folder in ("sts", "keys", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(tree):
    """Name, first line and length of each function, its docstring not counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                length -= first.end_lineno - first.lineno + 1
            yield node.name, node.lineno, length


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_longer_than_a_sitting():
    assert {str(path.relative_to(ROOT)): lines(path) for path in modules() if lines(path) > MODULE_LINES} == {}


def test_no_function_is_longer_than_a_screen():
    long = {}
    for path in modules():
        for name, line, length in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if length > FUNCTION_LINES:
                long[f"{path.relative_to(ROOT)}:{line} {name}"] = length
    assert long == {}


def test_the_way_of_a_request_is_read_in_a_minute():
    assert lines(ROOT / "sts" / "exchange.py") <= THE_WAY_LINES


def test_a_docstring_does_not_count_but_every_other_line_does():
    body = "\n".join("    x = 1" for _ in range(50))
    tree = ast.parse(f'def f():\n    """one\n    two"""\n{body}\n')
    assert list(functions(tree)) == [("f", 1, 51)]
