"""The recipes of docs/cookbook.md, for tests."""

import re
from pathlib import Path

import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")
_RECIPE = re.compile(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


class Recipe:
    """A fragment of configuration, the files beside it, and rows of what it comes to."""

    def __init__(self, title, body):
        self.title = title
        blocks = _BLOCK.findall(body)
        self.fragments = [yaml.safe_load(text) for language, name, text in blocks if language == "yaml" and not name]
        self.files = {name: text for _, name, text in blocks if name}
        lines = [self.cells(line) for line in _ROW.findall(_BLOCK.sub("", body))]
        self.rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]

    @staticmethod
    def cells(line):
        """The cells of a row: a `|` between backticks does not end one."""
        parts = re.split(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)", line)
        return [part.strip().strip("`") for part in parts]


RECIPES = [Recipe(*found) for found in _RECIPE.findall(PAGE)]
