"""Every run under results/ has a page, which names the run in the commands that made and that print it."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNS = sorted(path.parent.relative_to(ROOT) for path in (ROOT / "results").rglob("config.json"))


def test_there_are_runs():
    assert len(RUNS) > 50


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_run_has_a_page(run):
    page = (ROOT / run / "README.md").read_text()
    made_by, reached = page.index("## Made by"), page.index("## Reached")
    limits = page.index("## What it does not show")
    assert f"--log-dir {run}\n" in page[made_by:reached]
    assert str(run) in page[reached:limits]
    assert len(page[limits:].splitlines()) > 2
