"""Every relative link in the documentation leads to a file, and every #part to a heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md") for page in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def prose(page):
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page):
    return [link for link in LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)]


def anchors(page):
    """The parts of a page as GitHub names them: lower case, words joined with "-", marks left out."""
    found = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))]
    return {*found, *(f"{name}-{number}" for name in found for number in range(1, found.count(name)))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for link in links(page):
        path, _, part = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if part:
            assert part in anchors(target), link


def test_links_and_headings_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three!\n[a](b.md#c) [d](https://e)\n```\n[f](g)\n```\n## Same\n## Same\n")
    assert links(page) == ["b.md#c"]
    assert anchors(page) == {"one-two-three", "same", "same-1"}
    assert sum(len(links(page)) for page in PAGES) > 10
