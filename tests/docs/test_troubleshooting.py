"""docs/troubleshooting.md quotes only messages and reasons that the code contains."""

import ast
import re
from pathlib import Path

import pytest

from sts.errors import REASONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.compile(r"`` (.+?) ``|`([^`]+)`")
NOT_OURS = {"invalid_credential", "Authorization", "facts.why"}


def texts():
    """Return every text of the code; `…` is what an f-string puts in."""
    found = set(REASONS)
    for file in (*ROOT.glob("sts/**/*.py"), *ROOT.glob("keys/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
    return found


def quotes():
    """Yield the quotes in the first cell of each row of a table."""
    for line in PAGE.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            for double, single in QUOTED.findall(line.split(" | ")[0]):
                yield double or single


TEXTS = texts()


@pytest.mark.parametrize("quote", sorted({*quotes()} - NOT_OURS))
def test_each_quoted_message_and_reason_is_in_the_code(quote):
    pattern = re.compile(re.escape(quote).replace("…", ".*"), re.DOTALL)
    whole = quote in REASONS or any(pattern.fullmatch(text) for text in TEXTS)
    assert whole or any(len(quote) > 15 and pattern.search(text) for text in TEXTS), quote


def test_the_page_has_every_reason_that_an_operator_can_act_on():
    assert len({*quotes()} & set(REASONS)) >= 25
