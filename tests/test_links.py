"""Every link of a page leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    found = [ROOT / name for name in listed.stdout.split()] if not listed.returncode else ROOT.rglob("*.md")
    return sorted(page for page in found if page.exists() and ".venv" not in page.parts)


def links(page: Path) -> list[str]:
    """Without those in code and those to other places."""
    text = CODE.sub("", FENCED.sub("", page.read_text()))
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


@cache
def anchors(page: Path) -> set[str]:
    """Of the page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", page.read_text())):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(1 for anchor in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", anchor))
        found.add(f"{slug}-{number}" if slug in found else slug)
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: the page has {sorted(anchors(target))}"


@pytest.mark.parametrize(
    "page",
    [page for page in pages() if page.relative_to(ROOT).parts[0] != "results"],
    ids=lambda page: page.name,
)
def test_files_that_a_page_names_are_there(page):
    rooms = "mnm_rl|agents|envs|tests|scripts|examples|benchmarks|docs"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]*\w)`", page.read_text()):
        assert (ROOT / name).exists() or name.startswith("docs/_build"), f"there is no {name}"


def test_links_and_anchors_are_found(tmp_path):
    page = tmp_path / "page.md"
    text = "# One `two`, 3\n[a](b.md#c) ![x](y.png)\n```\n[no](code)\n```\n`[no](inline)`\n# One two 3\n"
    page.write_text(text)
    assert links(page) == ["b.md#c", "y.png"]
    assert anchors(page) == {"one-two-3", "one-two-3-1"}
